"""Every way of running a network beside torchvision as users run it: one run, in turns, with the same weights.

torchvision's network is eager, float32 and contiguous, in a process of its own that is left as it is, and once more in
one whose allocator keeps freed memory. Ours run as `convarium predict` runs them, which keeps freed memory too, and
begin with uint8 pictures: normalisation counts for ours and not for torchvision. Each turn is a batch, or as many as
take a fifth of a second; the processes take turns, round after round, and figures are medians. `auto` is the way that
was chosen, in the same run, for a million pictures; `exact` the same among those of float32. `openvino-int8` is what
`convarium quantise` writes where all parts may be rounded; it is not chosen by `auto`. Weights are random, so what
agrees here says nothing of trained networks: `convarium engines MODEL PICTURES` does.

    python -m benchmarks.engines [--only NAME ...] [--quick] [--int8] [--rounds 7] [--json FILE]

`--int8` measures the 8-bit form alone.
"""

from __future__ import annotations

import argparse
import atexit
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

# What `auto` must reach: ratio to torchvision at the large batch and at 1; None where nothing was asked.
GOALS: dict[str, tuple[float, float | None]] = {
    "resnet50": (14.0, 6.5),
    "vgg16": (14.5, 5.3),
    "mobilenet_v2": (14.0, 7.0),
    "mobilenet_v3_large": (7.6, 5.7),
    "efficientnet_b0": (10.7, 4.0),
    "densenet121": (12.0, 7.5),
    "convnext_tiny": (5.0, 2.8),
    "vit_b_16": (4.2, None),
}
INT8 = {"resnet50": 24.0, "vgg16": 24.0, "densenet121": 18.0}
EXACT = {name: 2.0 for name in GOALS if name not in ("vgg16", "convnext_tiny", "vit_b_16")}
LARGE = {"vit_b_16": 8}
TURN = 0.2  # seconds
PAUSE = 0.05  # for threads that still spin
SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Print two tables: the large batch, and single pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(GOALS), default=list(GOALS))
    parser.add_argument("--quick", action="store_true", help="without torch.compile, two rounds")
    parser.add_argument("--int8", action="store_true", help="of ours, the 8-bit form alone")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = []
    for name in asked.only:
        for batch in (LARGE.get(name, 32), 1):
            form = "int8" if asked.int8 else "quick" if asked.quick else "all"
            found.append(network(name, batch, 2 if asked.quick else asked.rounds, form))
            report(found[-1])
            if asked.json:
                asked.json.write_text(json.dumps(found, indent=1))
    summary(found)


def network(name: str, batch: int, rounds: int, form: str) -> dict[str, Any]:
    """Everything of one network at one batch."""
    servers = [Server(kind, name, batch, form) for kind in ("as users run it", "memory kept", "ours")]
    try:
        told = [server.ask("ready") for server in servers]
        ours = told[-1]
        turns = [(server, way) for server, one in zip(servers, told, strict=True) for way in one["ways"]]
        times: dict[tuple[str, str], list[float]] = {(server.kind, way): [] for server, way in turns}
        for number in range(rounds + 1):
            for server, way in turns:
                seconds = server.ask(way)
                time.sleep(PAUSE)
                if number:
                    times[server.kind, way].append(seconds)
    finally:
        for server in servers:
            server.end()
    rates = {key: batch / median(values) for key, values in times.items()}
    base = rates.pop(("as users run it", "torchvision"))
    kept = rates.pop(("memory kept", "torchvision"))
    return {
        "network": name,
        "batch": batch,
        "rounds": rounds,
        "torchvision": base,
        "memory_kept": kept / base,
        "ratios": {way: rate / base for (_, way), rate in rates.items()},
        **{key: ours[key] for key in ("auto", "exact", "remarks", "apart", "machine")},
    }


@dataclass
class Server:
    """A process that runs one batch of the way it is asked for."""

    kind: str
    name: str
    batch: int
    form: str

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        arguments = (other, self.kind, self.name, self.batch, self.form)
        self.process = context.Process(target=serve, args=arguments, daemon=False)
        self.process.start()

    def ask(self, what: str) -> Any:
        """What the process answers."""
        self.pipe.send(what)
        return self.pipe.recv()

    def end(self) -> None:
        """Let it go."""
        with suppress(OSError, EOFError):
            self.pipe.send(None)
        self.process.join()


def serve(pipe: Connection, kind: str, name: str, batch: int, form: str) -> None:
    """Set up, say what there is, then time what is asked for."""
    import torch
    import torchvision

    from convarium.costs.allocator import keep_freed_memory
    from tests.reference import fitted

    if kind != "as users run it":
        keep_freed_memory()
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None)
    net = fitted(theirs, name)
    draw = np.random.default_rng(0)
    few = draw.integers(0, 256, (max(batch, 4), 3, 8, 8), dtype=np.uint8)
    pictures = few.repeat(SIZE // 8, 2).repeat(SIZE // 8, 3)
    calls: dict[str, Callable[[], object]] = {}
    told: dict[str, Any] = {}
    if kind == "ours":
        told = ours(net, theirs, pictures, batch, form, calls)
    else:
        x = normalised(pictures[:batch])
        theirs.eval()
        calls["torchvision"] = lambda: theirs(x)
    with torch.inference_mode():
        while (what := pipe.recv()) is not None:
            pipe.send({"ways": list(calls), **told} if what == "ready" else turn(calls[what]))


def ours(
    net: Any,
    theirs: Any,
    pictures: np.ndarray,
    batch: int,
    form: str,
    calls: dict[str, Callable[[], object]],
) -> dict[str, Any]:
    """All ways of ours, set up; and which of them were chosen."""
    import torch

    from convarium.classifier import Classifier
    from convarium.costs.machine import this_machine
    from convarium.data.preprocessing import Preprocessing
    from convarium.deploy import remembered
    from convarium.deploy.job import choose
    from convarium.deploy.measuring import filled, tried
    from convarium.deploy.scored import Workpiece
    from convarium.deploy.ways import PLAIN, ways

    clf = Classifier(
        net, [str(i) for i in range(1000)], Preprocessing(size=SIZE, mean=MEAN, std=STD), device="cpu"
    )
    place = tempfile.mkdtemp()  # the ONNX file is written once; nothing that was measured before is known
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    os.environ["CONVARIUM_CACHE"] = place
    file = clf.save(Path(place, "model.safetensors"))
    work, expected, remarks = Workpiece(clf, remembered.folder_of(file)), None, {}
    full = filled(pictures, batch)
    for way in ways(clf):
        if (form == "quick" and way.name.startswith("compile")) or (form == "int8" and way.name != PLAIN):
            continue
        trial = tried(way, work, pictures, batch, expected)
        expected = expected or trial.answers
        if trial.ready is None or not trial.row.agrees:
            remarks[way.name] = trial.row.verdict
            continue
        calls[way.name] = lambda ready=trial.ready: ready(full)
    with torch.inference_mode():
        truth = theirs.eval()(normalised(pictures)).numpy()
    apart = float(np.linalg.norm(expected[0] - truth) / np.linalg.norm(truth))  # type: ignore[index]
    if form != "quick":
        calls["openvino-int8"] = in_8_bits(clf, pictures, full, batch)
    if form == "int8":
        return {"auto": PLAIN, "exact": PLAIN, "remarks": {}, "apart": apart, "machine": str(this_machine())}
    count = 3_000 if form == "quick" else 1_000_000
    modes = ("auto", "exact")
    chosen = {mode: choose(clf, pictures, count, mode, batch=batch, file=file).name for mode in modes}
    return {**chosen, "remarks": remarks, "apart": apart, "machine": str(this_machine())}


def in_8_bits(clf: Any, pictures: np.ndarray, full: np.ndarray, batch: int) -> Callable[[], object]:
    """The network with all parts rounded, ranges taken from the same pictures."""
    from convarium.deploy import export, int8, onnx_file

    answer = export.Answer(clf.net, clf.preprocessing, 1.0, False)
    about = export.told(clf.net, clf.classes, clf.preprocessing, {}, "openvino")
    maker = int8.OpenVINO(export.traced(onnx_file.model, answer, clf.preprocessing, True, about, "openvino"))
    run = maker.run(maker.rounded(np.ascontiguousarray(pictures.transpose(0, 2, 3, 1))), batch)
    squares = np.ascontiguousarray(full.transpose(0, 2, 3, 1))
    return lambda: run(squares)


def normalised(pictures: np.ndarray) -> Any:
    """As torchvision's transforms leave them."""
    import torch

    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (MEAN, STD))
    return (torch.from_numpy(pictures) / 255 - mean) / std


def turn(call: Callable[[], object]) -> float:
    """Seconds of one call, the median of those that fit into a turn."""
    seconds: list[float] = []
    while sum(seconds) < TURN:
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def report(found: dict[str, Any]) -> None:
    """One network at one batch."""
    name, ratios = found["network"], found["ratios"]
    print(f"\n{name}, batch {found['batch']}, {found['rounds']} rounds, {found['machine']}")
    print(f"  scores of the plain way and torchvision's differ by {found['apart']:.0e} (relative)")
    print(f"  torchvision, eager float32  {found['torchvision']:8.1f} img/s   1.00")
    print(f"  the same, freed memory kept          {'':8} {found['memory_kept']:6.2f}")
    for way, ratio in sorted(ratios.items(), key=lambda pair: pair[1]):
        marks = ", ".join(mode for mode in ("auto", "exact") if found[mode] == way)
        print(f"  {way:<36} {'':8} {ratio:6.2f}  {ratio / found['memory_kept']:6.2f} of memory kept  {marks}")
    for way, remark in found["remarks"].items():
        print(f"  {way:<36} {remark}")


def summary(everything: list[dict[str, Any]]) -> None:
    """What was asked for, and what was reached."""
    print("\nratio to torchvision in the same run; in brackets to the same with freed memory kept")
    marks = f"{'auto':>6} {'':>8}  goal  of best  {'exact':>6}  goal  {'int8':>6}  goal"
    print(f"{'network':<20} batch  {'auto took':<18} {marks}")
    for found in everything:
        name, batch, ratios = found["network"], found["batch"], found["ratios"]
        goal = GOALS[name][batch == 1]
        eight = ratios.get("openvino-int8", float("nan"))
        auto = ratios.get(found["auto"], float("nan"))
        best = max(ratio for way, ratio in ratios.items() if way != "openvino-int8")
        exact = ratios.get(found["exact"], float("nan"))
        wanted = EXACT.get(name) if batch > 1 else None
        kept = f"({auto / found['memory_kept']:.2f})"
        print(
            f"{name:<20} {batch:>5}  {found['auto']:<18} {auto:>6.2f} {kept:>8}"
            f"  {goal or '':>4}  {auto / best:>7.2f}  {exact:>6.2f}  {wanted or '':>4}"
            f"  {eight:>6.2f}  {INT8.get(name, '') if batch > 1 else ''}"
        )


if __name__ == "__main__":
    main()
