"""A classifier in 8 bits, judged against itself in 32: how many points it costs, how surely, and at which speed.

All is rounded first. Where that costs more than is allowed, each part is rounded alone, and those that change the
answers most are left in float32: as few as keep the bound, found by doubling and halving their number.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convarium.data.pictures import Picture, PictureSet
from convarium.data.preprocessing import Preprocessing
from convarium.data.splits import rank
from convarium.deploy import export, int8, onnx_file, parity, script
from convarium.deploy.openvino_file import Run
from convarium.deploy.quantised import Quantised, Speed
from convarium.errors import ArgumentError, CheckpointError, DataError, PictureError, unknown_name
from convarium.judge.answers import answers
from convarium.judge.versus import Versus, compare_runs
from convarium.net import Net

ROOM = 1_000_000_000
"""Bytes of prepared pictures that are held at once; of a larger part, some are judged."""

FEW = 32
"""Pictures on which parts are ranked."""

_BATCH = 32
_CHECKED = 20  # files that the written program is run on

Tell = Callable[[str], None]


@dataclass
class _Judged:
    """A set's prepared pictures, and what float32 answers."""

    pictures: PictureSet
    squares: np.ndarray
    plain: np.ndarray = field(default_factory=lambda: np.empty(0))

    def versus(self, said: np.ndarray) -> Versus:
        keys = [picture.key for picture in self.pictures.pictures]
        labels = np.array([picture.label for picture in self.pictures.pictures])
        both = [answers(keys, p, labels, self.pictures.classes) for p in (self.plain, said)]
        return compare_runs(both[0], both[1], ("float32", "int8"))


def quantise(
    net: Net,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    known: Mapping[str, Any],
    calibration: PictureSet,
    judged: PictureSet,
    folder: Path,
    *,
    max_drop: float = 0.5,
    to: str = "openvino",
    count: int = 300,
    unseen: PictureSet | None = None,
    source: Path | None = None,
    tell: Tell = lambda line: None,
) -> Quantised:
    """Write a model in 8 bits, once it was seen to cost no more than is allowed.

    Args:
        net: the network; left as it was.
        classes: names, in the order of its scores.
        preprocessing: of its pictures.
        known: what is known besides, as for `export`.
        calibration: pictures to take ranges from; their labels only spread the choice over the classes.
        judged: pictures that the bound is held on, with labels in the order of the classes.
        folder: a new or empty one, or that of an earlier export.
        max_drop: points of top-1 that it may cost, as 0.5.
        to: "openvino" or "onnx".
        count: pictures of `calibration` that are used.
        unseen: pictures that decide nothing, with labels; judged besides.
        source: the model's file, whose folder must not be written to.
        tell: takes a line on what is being done.

    Returns:
        What was written; nothing, where the bound cannot be held.

    Raises:
        UnknownName: no such format.
        ArgumentError: a value that is not allowed, or pictures of more than 8 bits.
        CheckpointError: the graph disagrees with the network.
        DataError: no picture can be read.
        MissingExtra: a library is not installed.
        RunError: the folder holds something else, or cannot be written.
    """
    if to not in int8.MAKERS:
        raise unknown_name("format for 8 bits", to, int8.MAKERS)
    if not 0 <= max_drop <= 100:
        raise ArgumentError(f"a drop of at most {max_drop} points; allowed is 0 to 100, as 0.5")
    if count < 1:
        raise ArgumentError(f"{count} pictures to take ranges from; give at least 1, some hundred are good")
    export.must_fit(preprocessing)
    export.must_be_free(folder, source)
    int8.library()
    onnx_file.must_be_there("onnx", "onnxscript", "onnxruntime")
    notes: list[str] = []
    tell("reading pictures")
    squares = _read(_spread(calibration, count), preprocessing, "calibration", notes).squares
    sets = [_read(_within(part, preprocessing, name, notes), preprocessing, name, notes)
            for name, part in (("judged", judged), ("unseen", unseen)) if part is not None]  # fmt: skip
    tell("writing the graph")
    answer = export.Answer(net, preprocessing, float(known.get("temperature", 1.0)), False)
    about = export.told(net, classes, preprocessing, known, to)
    proto = export.traced(onnx_file.model, answer, preprocessing, True, about, to)
    maker: int8.Maker = int8.MAKERS[to](proto)
    plain = maker.run(maker.plain)
    _must_agree(answer, plain, squares[:8])
    for part in sets:
        part.plain = _answers(plain, part.squares)

    def tried(kept: Sequence[str]) -> tuple[Any, np.ndarray, Versus]:
        model = maker.rounded(squares, kept)
        said = _answers(maker.run(model), sets[0].squares)
        return model, said, sets[0].versus(said)

    tell(f"rounding, with ranges from {len(squares)} pictures")
    best, parts = tried(()), 0
    paths: list[str] = []
    if _drop(best) > max_drop:
        tell(f"all in 8 bits costs {_drop(best):.2f} points; rounding each part alone")
        harm = int8.harm(proto, squares, squares[:: max(1, len(squares) // FEW)][:FEW])
        best, paths = _fewest(tried, harm, max_drop, best, tell)
        parts = len(harm)
    model, said, versus = best
    held = _drop(best) <= max_drop
    tell("measuring the speed")
    speeds = tuple(_speed(maker, model, sets[0].squares, batch) for batch in (1, _BATCH))
    if max(speed.ratio for speed in speeds) < 1:
        notes.append(
            "8 bits are slower than float32 here; a network this small, or this engine, gains nothing by them"
        )
    quantised = Quantised(
        folder=folder if held else None,
        files=(),
        about=about,
        versus=versus,
        unseen=sets[1].versus(_answers(maker.run(model), sets[1].squares)) if len(sets) > 1 else None,
        kept=tuple(paths),
        parts=parts,
        max_drop=max_drop,
        calibrated=len(squares),
        parity=_parity(sets[0].plain, said),
        speeds=speeds,
        notes=tuple(dict.fromkeys(notes)),
    )
    return _written(quantised, maker, model, sets[0], said, preprocessing, to) if held else quantised


def _fewest(
    tried: Callable[[Sequence[str]], Any],
    harm: Mapping[str, tuple[float, list[str]]],
    max_drop: float,
    best: Any,
    tell: Tell,
) -> tuple[Any, list[str]]:
    """The fewest of the most harmful parts that must stay; the best try, where not even all but one suffice."""
    order = list(harm)

    def kept(count: int) -> Any:
        found = tried([name for path in order[:count] for name in harm[path][1]])
        tell(f"{count} of {len(order)} parts in float32: {_drop(found):.2f} points")
        return found

    low, count = 0, 1
    paths: list[str] = []
    while True:
        count = min(count, len(order) - 1)
        if count <= low:
            return best, paths
        found = kept(count)
        if _drop(found) <= max_drop:
            break
        if _drop(found) < _drop(best):
            best, paths = found, order[:count]
        low, count = count, 2 * count
    best = found
    while count - low > 1:
        middle = (low + count) // 2
        found = kept(middle)
        if _drop(found) <= max_drop:
            count, best = middle, found
        else:
            low = middle
    return best, order[:count]


def _drop(found: tuple[Any, np.ndarray, Versus]) -> float:
    return round(100 * found[2].paired.difference, 9)


def _spread(pictures: PictureSet, count: int) -> PictureSet:
    """Some pictures, each class in turn; which ones depends on their keys only."""
    groups: dict[int | None, list[Picture]] = {}
    for picture in sorted(pictures.pictures, key=lambda picture: (rank(0, picture.key), picture.key)):
        groups.setdefault(picture.label, []).append(picture)
    turns = [(place, rank(0, group[0].key), p) for group in groups.values() for place, p in enumerate(group)]
    chosen = sorted(turns, key=lambda turn: turn[:2])[:count]
    return PictureSet(pictures.classes, tuple(picture for _, _, picture in chosen))


def _within(pictures: PictureSet, preprocessing: Preprocessing, name: str, notes: list[str]) -> PictureSet:
    """As many as are held at once."""
    most = max(1, ROOM // (preprocessing.size**2 * preprocessing.channels))
    if len(pictures) <= most:
        return pictures
    notes.append(f"{name}: {most:,} of {len(pictures):,} pictures, each class in turn")
    return _spread(pictures, most)


def _read(pictures: PictureSet, preprocessing: Preprocessing, name: str, notes: list[str]) -> _Judged:
    def one(picture: Picture) -> np.ndarray | str:
        try:
            prepared = preprocessing.prepare(preprocessing.open(picture.source))
            return np.ascontiguousarray(np.asarray(prepared).transpose(1, 2, 0))
        except PictureError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        found = list(zip(pictures.pictures, pool.map(one, pictures.pictures), strict=True))
    good = [(picture, square) for picture, square in found if not isinstance(square, str)]
    if not good:
        first = f", as {found[0][0].key}: {found[0][1]}" if found else ""
        raise DataError(f"none of the {len(found)} pictures ({name}) can be read{first}")
    notes.extend(f"left out: {picture.key}: {why}" for picture, why in found if isinstance(why, str))
    kept = PictureSet(pictures.classes, tuple(picture for picture, _ in good))
    return _Judged(kept, np.stack([square for _, square in good]))


def _answers(run: Run, squares: np.ndarray) -> np.ndarray:
    return np.concatenate([run(squares[start : start + _BATCH]) for start in range(0, len(squares), _BATCH)])


def _must_agree(answer: export.Answer, plain: Run, some: np.ndarray) -> None:
    with torch.inference_mode():
        expected = answer(torch.from_numpy(some)).numpy()
    difference = np.abs(plain(some) - expected).max()
    if not difference <= parity.BOUND:  # nor what is not a number
        raise CheckpointError(
            f"the graph in float32 disagrees with the classifier (largest difference {difference:.2g}; allowed is "
            f"{parity.BOUND}), so nothing was rounded; try another format with --to, and please report it"
        )


def _parity(plain: np.ndarray, said: np.ndarray) -> parity.Parity:
    flips = plain.argmax(1) != said.argmax(1)
    ordered = np.sort(plain, axis=1)
    margin = float((ordered[:, -1] - ordered[:, -2])[flips].max(initial=0.0))
    return parity.Parity(len(plain), int(flips.sum()), float(np.abs(said - plain).max()), margin)


def _speed(maker: int8.Maker, model: Any, squares: np.ndarray, batch: int, rounds: int = 5) -> Speed:
    """By turns, so that what disturbs the machine disturbs both; the median of the rounds."""
    some = np.resize(squares, (batch, *squares.shape[1:]))
    runs = [maker.run(maker.plain, batch), maker.run(model, batch)]
    taken: list[list[float]] = [[], []]
    times = 1
    for number in range(rounds + 1):
        for run, seconds in zip(runs, taken, strict=True):
            began = time.perf_counter()
            for _ in range(times):
                run(some)
            if number:  # the first one warms up
                seconds.append((time.perf_counter() - began) / times)
            elif run is runs[0]:
                times = max(1, round(0.05 / (time.perf_counter() - began)))
    plain, rounded = (batch / statistics.median(seconds) for seconds in taken)
    return Speed(batch, plain, rounded)


def _written(
    quantised: Quantised,
    maker: int8.Maker,
    model: Any,
    judged: _Judged,
    said: np.ndarray,
    preprocessing: Preprocessing,
    to: str,
) -> Quantised:
    """The folder of the export, once its program was seen to answer as the model that was judged."""
    about = {
        **quantised.about,
        "whole": False,
        "input": export.input_of(preprocessing, False, True),
        "parity": quantised.parity.to_dict(),
        "int8": quantised.report(),
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        staging, file = Path(place), export.FILES[to]
        maker.write(model, staging / file, json.dumps(about))
        program = script.write(staging, to, file, preprocessing, False)
        _, run = script.load(program, staging / file)
        rows = [i for i, p in enumerate(judged.pictures.pictures) if isinstance(p.source, Path)][:_CHECKED]
        files = [Path(str(judged.pictures.pictures[i].source)) for i in rows]
        if files:
            found = parity.measure([said[i] for i in rows], run, files)
            # Batches of another size may be summed in another order, and a number at a step's edge then falls
            # to its other side: more than in float32, and less than a wrong preprocessing gives.
            if found.largest > 10 * parity.BOUND:
                raise CheckpointError(
                    f"{script.NAME} disagrees with the model that was judged ({found}), so nothing was written; "
                    "please report it"
                )
        names = (file, *export.BESIDE.get(to, ()), script.NAME)
        notes = quantised.notes
        done = export.placed(
            export.Exported(quantised.folder or staging, names, about, quantised.parity, notes), staging
        )
    return replace(quantised, files=done.files, about=about)
