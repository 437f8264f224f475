"""Ways of running a classifier side by side: how fast each is, and whether it says what the plain one says."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from convarium.costs.turns import Lane, take_turns
from convarium.deploy import processor
from convarium.deploy.agreement import Agreement, compare
from convarium.deploy.remembered import MODES
from convarium.deploy.runtimes import Ready
from convarium.deploy.scored import Subject, Workpiece
from convarium.deploy.ways import PLAIN, Way, threads, ways
from convarium.errors import ArgumentError, MissingExtra, unknown_name

SAME = 0.02
"""A way that is faster than the plain one by no more is not taken."""


@dataclass(frozen=True)
class Row:
    """What is known of one way.

    Args:
        name: of the way.
        numbers: that it computes with.
        library: that runs it.
        batch: pictures at once.
        threads: that it computes with.
        images_per_second: median; None where it was not run.
        setup: seconds until its first batch was answered, an ONNX file included; 0 for the plain way.
        agreement: with the plain way; None where it was not run.
        verdict: in words.
        when: it was measured, in UTC.
    """

    name: str
    numbers: str
    library: str
    batch: int
    threads: int
    images_per_second: float | None
    setup: float
    agreement: Agreement | None
    verdict: str
    when: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def agrees(self) -> bool:
        """Whether it was run and agrees."""
        return self.agreement is not None and not self.agreement.refused

    def to_dict(self) -> dict[str, Any]:
        """All fields, those of the agreement among them, ready for JSON."""
        fields = asdict(self)
        agreement = fields.pop("agreement") or {}
        agreement.pop("refused", None)
        finite = {k: v if math.isfinite(v) else None for k, v in agreement.items()}
        return {**fields, **finite, "agrees": self.agrees}


@dataclass(frozen=True)
class Table:
    """All ways of running one classifier, measured in one run.

    Args:
        rows: the plain way first.
        mode: "auto" or "exact".
        best: name of the way that is taken.
        pictures: on which answers were compared.
        made: whether these were made for want of real ones.
        notes: sentences on what went otherwise than planned.
    """

    rows: tuple[Row, ...]
    mode: str
    best: str
    pictures: int
    made: bool = False
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def to_dict(self) -> dict[str, Any]:
        """{"mode", "best", "pictures", "made", "machine", "versions", "rows", "notes"}."""
        return {
            "mode": self.mode,
            "best": self.best,
            "pictures": self.pictures,
            "made": self.made,
            "machine": processor.fingerprint(),
            "versions": processor.versions(),
            "rows": [row.to_dict() for row in self.rows],
            "notes": list(self.notes),
        }


def measure(
    subject: Subject,
    pictures: np.ndarray,
    batch: int = 32,
    *,
    mode: str = "auto",
    seconds: float = 20.0,
    made: bool = False,
    folder: Path | None = None,
    only: Sequence[str] = (),
    on_progress: Callable[[str], None] = lambda text: None,
) -> Table:
    """Set up every way, compare its answers with the plain way's, and time those that run, in turns.

    Args:
        subject: the classifier; left as it is.
        pictures: prepared ones, uint8 (N, channels, H, W); real ones, or their agreement says little.
        batch: pictures at once.
        mode: "auto" for all ways, "exact" for those that compute in float32.
        seconds: of timing, shared by the ways, set-ups and comparisons not counted.
        made: whether the pictures were made.
        folder: where the ONNX file and what the best way needs are kept; None: nowhere.
        only: names of the ways to look at beside the plain one; all where empty.
        on_progress: is told what is being done.

    Returns:
        The table.

    Raises:
        ArgumentError: a batch below 1, no pictures, or a time that is not above 0.
        UnknownName: no such mode or way.
    """
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)
    if batch < 1 or not len(pictures) or not seconds > 0:
        raise ArgumentError(
            f"batch {batch}, {len(pictures)} pictures, {seconds} seconds; all must be above 0"
        )
    everything = ways(subject)
    for name in only:
        named(name, everything)
    asked = [way for way in everything if way.numbers in MODES[mode]]
    asked = [way for way in asked if not only or way.name in (PLAIN, *only)]
    work, trials = Workpiece(subject, folder), list[Trial]()
    for way in asked:
        on_progress(f"setting up {way.name}")
        trials.append(tried(way, work, pictures, batch, trials[0].answers if trials else None))
    running = [trial for trial in trials if trial.ready]
    full, share = filled(pictures, batch), seconds / len(running)
    lanes = [Lane(partial(once, trial.ready, full), share, 0.02) for trial in running if trial.ready]
    take_turns(lanes, on_turn=lambda index: on_progress(f"timing {running[index].way.name}"))
    for trial, lane in zip(running, lanes, strict=True):
        if lane.failure or not lane.medians:
            trial.row = replace(trial.row, verdict=f"failed: {lane.failure}", agreement=None)
        else:
            trial.row = replace(trial.row, images_per_second=batch / median(lane.medians))
    rows = [trial.row for trial in trials]
    best = taken(rows)
    for trial in trials:
        if (
            trial.ready
            and trial.way.name in (best, best_of(rows, torch=False))
            and (why := trial.ready.keep())
        ):
            work.notes.append(why)
    return Table(tuple(judged(rows, best)), mode, best, len(pictures), made, tuple(work.notes))


@dataclass
class Trial:
    """A way, what it answered and how it can be run again; `ready` and `answers` are None where it could not.

    `own` is the seconds of its set-up without those of writing the ONNX file, which several ways share.
    """

    way: Way
    row: Row
    ready: Ready | None = None
    answers: tuple[np.ndarray, np.ndarray] | None = None
    own: float = 0.0


def tried(
    way: Way,
    work: Workpiece,
    pictures: np.ndarray,
    batch: int,
    expected: tuple[np.ndarray, np.ndarray] | None,
) -> Trial:
    """Set a way up and compare its answers; whatever goes wrong is its verdict.

    Args:
        way: the way.
        work: the classifier.
        pictures: prepared ones.
        batch: pictures at once.
        expected: answers of the plain way; None for itself.
    """
    count = threads(work.subject.device)
    row = Row(way.name, way.numbers, way.library, batch, count, None, 0.0, None, "")
    if missing := way.missing():
        return Trial(way, replace(row, verdict=missing))
    began, written = time.perf_counter(), work.writing
    try:
        ready = way.make(work, batch, count)
        ready(pictures[:batch])
        own = time.perf_counter() - began - (work.writing - written)
        answers = answered(ready, pictures)
    except MissingExtra as error:
        return Trial(way, replace(row, verdict=f"not installed: {error}"))
    except Exception as error:  # of whatever kind, from five libraries: the other ways go on
        if expected is None:
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Trial(way, replace(row, verdict=f"failed: {lines[0][:120]}"))
    agreement = compare(expected or answers, answers, way.numbers, work.subject.temperature)
    setup = 0.0 if way.name == PLAIN else own + (0.0 if way.library == "torch" else work.writing)
    row = replace(row, setup=setup, agreement=agreement, verdict=agreement.refused)
    return Trial(way, row, ready, answers, own)


def answered(ready: Ready, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and features of any number of pictures."""
    starts = range(0, len(pictures), ready.batch)
    parts = [ready(pictures[start : start + ready.batch]) for start in starts]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))  # type: ignore[return-value]


def filled(pictures: np.ndarray, batch: int) -> np.ndarray:
    """Exactly so many pictures, some of them several times where there are fewer."""
    return np.ascontiguousarray(pictures[np.arange(batch) % len(pictures)])


def once(ready: Ready, pictures: np.ndarray) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    ready(pictures)
    return time.perf_counter() - began


def best_of(rows: Sequence[Row], torch: bool = True) -> str:
    """The fastest way of those that agree.

    Args:
        rows: of all ways.
        torch: whether ways that need torch count.

    Returns:
        Its name; empty where there is none.
    """
    can = [row for row in rows if row.agrees and row.images_per_second and (torch or row.library != "torch")]
    return max(can, key=lambda row: row.images_per_second or 0.0).name if can else ""


def taken(rows: Sequence[Row]) -> str:
    """The way to take: the fastest that agrees, or the plain one where none is faster by more than `SAME`.

    Args:
        rows: of all ways, the plain one first.
    """
    best = next((row for row in rows if row.name == best_of(rows)), rows[0])
    plain = rows[0].images_per_second or 0.0
    return best.name if (best.images_per_second or 0.0) > (1 + SAME) * plain else PLAIN


def judged(rows: Sequence[Row], best: str) -> list[Row]:
    """The rows with their verdicts in words.

    Args:
        rows: of all ways, the plain one first.
        best: the one that is taken.
    """
    made = []
    for row in rows:
        verdict = row.verdict
        if row.agrees and row.images_per_second:
            verdict = "the reference, slower" if row.name == PLAIN else "agrees, slower"
            verdict = "taken" if row.name == best else verdict
            if row.agreement and row.agreement.flips:
                flips = f"{row.agreement.flips} flip{'s' * (row.agreement.flips > 1)}"
                verdict += f"; {flips} at margins up to {row.agreement.margin:.2g}"
        made.append(replace(row, verdict=verdict))
    return made


def named(name: str, among: Sequence[Way]) -> Way:
    """The way of a name.

    Raises:
        UnknownName: there is none.
    """
    found = next((way for way in among if way.name == name), None)
    if found is None:
        raise unknown_name("engine", name, [*(way.name for way in among), *MODES])
    return found
