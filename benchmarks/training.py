"""The training step as `convarium train` takes it, beside the same network trained the usual way, in one run.

Each contender has a process of its own, since what glibc is told about freed memory cannot be taken back. They take
turns, a few steps each, and wait for each other; what is printed is the median of their steps.

    usual     eager PyTorch in float32, contiguous, torch's default optimiser, float pictures ready in memory:
              torchvision's resnet50 and resnet18; ResNet-20 and LeNet-5 in plain torch.nn
    kept      the same with freed memory kept (mallopt)
    ours      this package's loop on uint8 pictures in memory, with what `--precision auto` chooses, freed memory kept
    given     the same with freed memory given back

Memory is the most that the process held (VmHWM), Python and torch included.

    python -m benchmarks.training [NAME ...] [--rounds 7] [--steps 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CASES = {
    "resnet50": (32, 224, 3, 1000, 4.3),
    "resnet18": (32, 224, 3, 1000, 4.3),
    "resnet20": (128, 32, 3, 10, 2.0),
    "lenet5": (128, 28, 1, 10, 1.7),
}
"""Batch, side, channels, classes, and the ratio that is aimed at."""

CONTENDERS = ("usual", "kept", "ours", "given")


def main() -> None:
    """Print one line a network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=0, help="a turn; 3, and 30 for the small networks")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--child", default="")
    asked = parser.parse_args()
    if asked.child:
        child(asked.child, asked.names[0], asked.batch, asked.threads)
        return
    import torch

    print(
        f"{asked.threads} threads, torch {torch.__version__}, {asked.rounds} rounds, pictures a second (MiB)"
    )
    print(f"{'network':<10}{'batch':>6}" + "".join(f"{name:>18}" for name in CONTENDERS) + "  ratios")
    for name in asked.names or CASES:
        batch = asked.batch or CASES[name][0]
        steps = asked.steps or (30 if name in ("resnet20", "lenet5") else 3)
        rates, memory, reason = measure(name, batch, asked.rounds, steps, asked.threads)
        cells = "".join(f"{rates[c]:>11.1f} ({memory[c]:>4})" for c in CONTENDERS)
        goal = CASES[name][4]
        print(
            f"{name:<10}{batch:>6}{cells}  ours/usual {rates['ours'] / rates['usual']:.2f} (aim {goal}), "
            f"ours/kept {rates['ours'] / rates['kept']:.2f}, kept/usual {rates['kept'] / rates['usual']:.2f}",
            f"\n{'':<16}ours: {reason}",
            flush=True,
        )


def measure(
    name: str, batch: int, rounds: int, steps: int, threads: int
) -> tuple[dict[str, float], dict[str, int], str]:
    """Pictures a second and MiB of each contender, and why ours computes as it does; the first round is not counted."""
    command = [sys.executable, "-m", "benchmarks.training", name, "--threads", str(threads)]
    running = {
        contender: subprocess.Popen(
            [*command, "--batch", str(batch), "--child", contender],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for contender in CONTENDERS
    }
    taken: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
    reasons, memory = {}, {}
    try:
        for contender, process in running.items():
            reasons[contender] = said(process)["reason"]  # ready: nobody measures while another begins
        for round_ in range(rounds + 1):
            for contender, process in running.items():
                times = turn(process, steps)
                taken[contender] += times if round_ else []
        for contender, process in running.items():
            process.stdin.write("0\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            memory[contender] = said(process)["mib"]
    finally:
        for process in running.values():
            process.kill()
            process.communicate()
    rates = {contender: batch / statistics.median(times) for contender, times in taken.items()}
    return rates, memory, reasons["ours"]


def turn(process: subprocess.Popen[str], steps: int) -> list[float]:
    """Let a child take some steps; seconds of each."""
    process.stdin.write(f"{steps}\n")  # type: ignore[union-attr]
    process.stdin.flush()  # type: ignore[union-attr]
    return said(process)["seconds"]


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line of a child."""
    line = process.stdout.readline()  # type: ignore[union-attr]
    if not line:
        raise SystemExit("a contender has failed")
    return json.loads(line)


def child(contender: str, name: str, batch: int, threads: int) -> None:
    """Train until told to stop: a line on standard input asks for so many steps, 0 for the end."""
    import torch

    from convarium.costs.allocator import keep_freed_memory
    from convarium.costs.measured_memory import resident

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if contender in ("kept", "ours"):
        keep_freed_memory()
    run = ours if contender in ("ours", "given") else usual
    for line in run(name, batch):
        print(json.dumps(line), flush=True)
    print(json.dumps({"mib": (resident("VmHWM") or 0) >> 20}), flush=True)


def usual(name: str, batch: int) -> Iterator[dict[str, Any]]:
    """The loop of PyTorch's own tutorial."""
    import torch
    import torchvision
    from torch import nn

    from benchmarks.plain_networks import lenet5, resnet20

    _, size, channels, classes, _ = CASES[name]
    makers = {"resnet20": resnet20, "lenet5": lenet5}
    net = makers[name]() if name in makers else getattr(torchvision.models, name)(weights=None)
    net.train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    pictures, labels = torch.randn(batch, channels, size, size), torch.arange(batch) % classes
    yield {"reason": "float32, contiguous"}
    while steps := int(sys.stdin.readline()):
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            optimizer.zero_grad()
            loss = criterion(net(pictures), labels)
            loss.backward()
            optimizer.step()
            loss.item()  # as for the running mean that such loops print
            seconds.append(time.perf_counter() - start)
        yield {"seconds": seconds}


def ours(name: str, batch: int) -> Iterator[dict[str, Any]]:
    """The loop of this package; between two steps it is held up until its turn comes."""
    import torch

    import convarium
    from convarium.data.preprocessing import Preprocessing
    from convarium.training import loop
    from convarium.training.precision import choose
    from convarium.training.recipes import Recipe
    from convarium.training.signals import Stop
    from convarium.training.task import Classify
    from convarium.training.watch import Watch

    _, size, channels, classes, _ = CASES[name]
    task = Classify(convarium.create(name, classes=classes))
    device = torch.device("cpu")
    way = choose("auto", task, (batch, channels, size, size), classes, device)
    look = Preprocessing(
        size, "L" if channels == 1 else "RGB", mean=(0.5,) * channels, std=(0.25,) * channels
    )
    given = SimpleNamespace(
        pictures=torch.randint(0, 256, (batch, channels, size, size), dtype=torch.uint8),
        labels=torch.arange(batch) % classes,
    )
    yield {"reason": way.reason}

    class Turns(Watch):
        """Times each step from the end of the one before, and ends an epoch's batches when told to."""

        left = 0
        seconds: list[float] = []  # noqa: RUF012
        start = 0.0

        def step(self, progress: Any, batches: int, loss: Any) -> None:
            self.seconds.append(time.perf_counter() - self.start)
            if len(self.seconds) == self.left:
                print(json.dumps({"seconds": self.seconds}), flush=True)
                self.ask()
            self.start = time.perf_counter()

        def ask(self) -> None:
            self.left = int(sys.stdin.readline())
            self.seconds = []
            self.start = time.perf_counter()

    class Same:
        """One batch for ever."""

        def __len__(self) -> int:
            return 10**6

        def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
            while watch.left:
                yield given

    watch = Turns(quiet=True)
    watch.ask()
    recipe = Recipe(epochs=1, batch=batch, optimizer="sgd", lr=0.01, weight_decay=1e-4, warmup=0, clip=0)
    with tempfile.TemporaryDirectory() as folder:
        setting = loop.Setting(
            seed=0,
            device=device,
            precision=way,
            normalise=look.normalise,
            validate=None,
            state=Path(folder) / "last.safetensors",
            minutes=10**6,
            stop=Stop(),
            watcher=watch,
        )
        loop.fit(task, Same(), recipe, setting)


if __name__ == "__main__":
    main()
