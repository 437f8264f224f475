"""The way in which a job is done first, set-up included: small jobs run as they are, large ones try what may pay."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from convarium.deploy import remembered
from convarium.deploy.measuring import SAME, Row, Trial, filled, named, once, tried
from convarium.deploy.remembered import MODES
from convarium.deploy.runtimes import Ready
from convarium.deploy.scored import Subject, Workpiece
from convarium.deploy.ways import PLAIN, Way, threads, ways
from convarium.errors import ArgumentError

BATCH = 32
"""Pictures at once in large jobs; smaller ones have as many as there are."""

FEW = 8
"""Jobs of no more pictures are done as they are: even timing one would be felt."""

PAYS = 3.0
"""A way is tried where what is left to do takes so many times its set-up, and no other than the plain way is known."""

PAYS_STILL = {"torch": 5.0, "openvino": 5.0, "onnxruntime": 5.0, "compile": 20.0}
"""The same once another way is faster than the plain one: less can be won. Compiling wins a tenth at most then."""

MEASURING = 5.0
"""Seconds of timing at most; set-ups are not counted, nor what is needed to compare `CHECKED` pictures."""

PATIENCE = 0.005
"""Share of what a job takes that timing may take each time, where that is more."""

NEAR = 1.3
"""Times the best's seconds within which ways are timed once more at the end."""

WRITING, PART = 4.0, 0.06
"""Seconds that writing a network as an ONNX file takes, and for each of its parts besides: 10 s for ResNet-50."""

ONNX = "onnx file, times as long as thought"
"""Its name among what was measured."""

CHECKED = 32
"""Pictures at most on which answers are compared."""


@dataclass(frozen=True)
class Chosen:
    """The way that was chosen for a job.

    Args:
        name: of the way.
        ready: runs it.
        images_per_second: as measured; None where the job was too small to measure anything.
        ratio: to the plain way's; None where that is not known.
        rows: what was measured now.
        notes: sentences on what went otherwise than planned.
    """

    name: str
    ready: Ready
    images_per_second: float | None = None
    ratio: float | None = None
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As in "openvino-bf16, 610 pictures/s, 13.2 times as fast as plain"."""
        speed = f", {self.images_per_second:,.0f} pictures/s" if self.images_per_second else ""
        ratio = f", {self.ratio:.1f} times as fast as plain" if self.ratio and self.name != PLAIN else ""
        return self.name + speed + ratio


def choose(
    subject: Subject,
    pictures: np.ndarray,
    count: int,
    mode: str = "auto",
    *,
    batch: int | None = None,
    file: Path | None = None,
    on_trial: Callable[[str], None] = lambda name: None,
) -> Chosen:
    """The way in which a job is done first, of those that agree with the plain one.

    Args:
        subject: the classifier; left as it is.
        pictures: some of the job's, prepared, uint8 (N, channels, H, W); `CHECKED` are enough, `BATCH` good.
        count: pictures of the job.
        mode: "auto", "exact" (float32 only), or the name of a way.
        batch: pictures at once; chosen by the count where None.
        file: the classifier's file, by which is remembered what was measured; None: nothing is.
        on_trial: is told the name of each way before it is set up or timed, and may raise.

    Returns:
        The way, set up.

    Raises:
        UnknownName: no such mode or way.
        ArgumentError: the way that was named cannot be taken here, or disagrees.
    """
    batch = batch or max(1, min(count, BATCH))
    if mode in MODES and (count <= FEW or not len(pictures)):
        mode, file = PLAIN, None
    job = _Job(subject, np.asarray(pictures), count, mode, batch, file, on_trial)
    if mode not in MODES:
        return job.as_named(named(mode, ways(subject)))
    return job.decided()


def remembered_rows(rows: Iterable[Row], compared: int) -> list[Row]:
    """The rows to keep: what failed may go another time, and on a few pictures 16 bits agree by chance.

    Args:
        rows: of a table.
        compared: pictures on which answers were compared.
    """
    sure = compared >= CHECKED
    return [r for r in rows if r.agreement is not None and (sure or r.numbers == "float32" or not r.agrees)]


def decided_for(count: float, batch: int) -> float:
    """So many pictures a decision is good for: only jobs smaller than a full batch are done in smaller ones.

    Args:
        count: pictures of the job for which everything was tried that pays.
        batch: pictures at once.
    """
    return count if batch >= BATCH else min(count, batch)


class _Job:
    """What is known of the ways by now: rates (pictures a second) of those that agree, and what is set up."""

    def __init__(
        self,
        subject: Subject,
        pictures: np.ndarray,
        count: int,
        mode: str,
        batch: int,
        file: Path | None,
        on_trial: Callable[[str], None],
    ) -> None:
        self.on_trial = on_trial
        self.subject, self.pictures, self.count, self.mode = subject, pictures, count, mode
        self.batch, self.file = batch, file
        self.work = Workpiece(subject, remembered.folder_of(file) if file else None)
        self.everything = ways(subject)
        self.known: Mapping[str, dict[str, Any]] = (
            remembered.known(file, batch, subject.device.type) if file else {}
        )
        self.rates: dict[str, float] = {}
        self.setups: dict[str, float] = {PLAIN: 0.0}
        self.trials: dict[str, Trial] = {}
        self.left = MEASURING
        self.plain = self._make(self.everything[0])

    def as_named(self, way: Way) -> Chosen:
        """A way that the user named, where it agrees."""
        if way.name == PLAIN:
            return self._chosen(PLAIN)
        if missing := way.missing():
            raise ArgumentError(f"{way.name} cannot be taken here: {missing}; --engine auto takes what can")
        if not self.known.get(way.name, {}).get("agrees"):
            self._refer()
            trial = self._try(way)
            if trial.ready is None or not trial.row.agrees:
                raise ArgumentError(
                    f"{way.name} cannot be taken: {trial.row.verdict}; --engine auto takes one that agrees"
                )
        self.rates[way.name] = float("nan")
        return self._chosen(way.name)

    def decided(self) -> Chosen:
        """The way that is done first, by what is known and by what is worth measuring."""
        asked = [w for w in self.everything[1:] if w.numbers in MODES[self.mode] and not w.missing()]
        asked.sort(key=self._turn)
        for way in (self.everything[0], *asked):
            row = self.known.get(way.name)
            if row and row["agrees"] and row["images_per_second"]:
                self.rates[way.name], self.setups[way.name] = row["images_per_second"], row["setup"]
        if PLAIN not in self.rates:
            self.rates[PLAIN] = self._roughly()
        for way in asked:
            if way.name not in self.known and self._worth(way):
                self._refer()
                self._time(self._try(way))
        self._time_the_nearest()
        # Some rates are of an earlier day; near the plain one's they mean nothing.
        for name in [name for name, rate in self.rates.items() if rate <= (1 + SAME) * self.rates[PLAIN]]:
            if name != PLAIN:
                del self.rates[name]
        return self._chosen(min(self.rates, key=self._cost))

    def _roughly(self) -> float:
        """Pictures a second of the plain way, from a fiftieth of the job."""
        few = self.pictures[: max(1, min(self.count // 50, FEW, self.batch))]
        return len(few) / once(self.plain, few)

    def _worth(self, way: Way) -> bool:
        """Whether so much is left to do that setting a way up may pay."""
        best = min(self.rates, key=self._cost)
        if best == PLAIN:
            times = PAYS
        else:
            if self._outdone(way):
                return False
            times = PAYS_STILL["compile" if way.name.startswith("compile") else way.library]
        return self._cost(best) > times * self._expected(way)

    def _turn(self, way: Way) -> tuple[int, bool, float]:
        """Torch's ways come before those that need an ONNX file, and compiling comes last; short numbers first."""
        place = 2 if way.name.startswith("compile") else int(way.library != "torch")
        return place, way.numbers == "float32", self._expected(way)

    def _expected(self, way: Way) -> float:
        """Seconds that setting a way up will take."""
        own = remembered.expected(way.name, way.setup)
        if way.library == "torch" or self.work.has_onnx():
            return own
        return own + self._writing() * remembered.expected(ONNX, 1.0)

    def _writing(self) -> float:
        """Seconds that the ONNX file is thought to take."""
        return WRITING + PART * sum(not list(part.children()) for part in self.subject.net.modules())

    def _outdone(self, way: Way) -> bool:
        """Whether it computes in float32, and shorter numbers of the same kind were seen to agree and to be fast."""
        file = way.library != "torch"
        alike = {w.name for w in self.everything if w.numbers != "float32" and (w.library != "torch") == file}
        fast = max((rate for name, rate in self.rates.items() if name in alike), default=0.0)
        return way.numbers == "float32" and fast > 2 * self.rates[PLAIN]

    def _cost(self, name: str) -> float:
        """Seconds until the job is done in a way."""
        set_up = name == PLAIN or name in self.trials
        return (0.0 if set_up else self.setups.get(name, 0.0)) + self.count / self.rates[name]

    def _refer(self) -> None:
        """Let the plain way answer for the pictures that others are compared on."""
        if PLAIN in self.trials:
            return
        self.pictures = self.pictures[:CHECKED]  # of fewer, an agreement would come by chance
        began = time.perf_counter()
        self.trials[PLAIN] = tried(self.everything[0], self.work, self.pictures, self.batch, None)
        self.left -= time.perf_counter() - began

    def _try(self, way: Way) -> Trial:
        self.on_trial(way.name)
        expected = self.trials[PLAIN].answers
        self.trials[way.name] = trial = tried(way, self.work, self.pictures, self.batch, expected)
        return trial

    def _time(self, trial: Trial) -> None:
        """Time a way that agrees, in turns with the best so far."""
        if trial.ready is None or not trial.row.agrees:
            return
        best = min(self.rates, key=self._cost)
        rivals = {trial.way.name: trial.ready}
        other = self.trials.get(best)
        if other and other.ready:
            rivals[best] = other.ready
        self._turns(rivals, 3)

    def _time_the_nearest(self) -> None:
        """Time once more, in turns, what came near the best: rates of other moments mean little on a busy machine."""
        best = min(map(self._cost, self.rates))
        near = {
            name: trial.ready
            for name, trial in self.trials.items()
            if trial.ready and name in self.rates and self._cost(name) < NEAR * best
        }
        if len(near) > 1:
            self._turns(near, 5)

    def _turns(self, rivals: Mapping[str, Ready], most: int) -> None:
        taken: dict[str, list[float]] = {name: [] for name in rivals}
        allowed = max(self.left / 3, PATIENCE * min(map(self._cost, self.rates)))
        began, rounds = time.perf_counter(), 0
        while rounds < most and (not rounds or time.perf_counter() - began < allowed):
            rounds += 1
            for name, ready in rivals.items():
                self.on_trial(name)
                # The plain way takes fewer where it is slow; the others are made for whole batches.
                full = self.pictures[: self.batch] if name == PLAIN else filled(self.pictures, self.batch)
                taken[name].append(once(ready, full) / len(full))
        self.left = max(0.0, self.left - (time.perf_counter() - began))
        for name, times in taken.items():
            self.rates[name] = 1 / median(times)
            self.trials[name].row = replace(self.trials[name].row, images_per_second=self.rates[name])

    def _make(self, way: Way) -> Ready:
        return way.make(self.work, self.batch, threads(self.subject.device))

    def _chosen(self, name: str) -> Chosen:
        """The way, set up; where it cannot be any more, the next best."""
        way = named(name, self.everything)
        try:
            trial = self.trials.get(name)
            ready = self.plain if name == PLAIN else (trial and trial.ready) or self._make(way)
        except Exception as error:  # as a library that does not load any more: it agreed once
            reason = (
                f"{name} cannot be set up any more: {(str(error).strip() or repr(error)).splitlines()[0]}"
            )
            if self.mode not in MODES:
                raise ArgumentError(f"{reason}; --engine auto takes what can") from error
            self.work.notes.append(reason)
            del self.rates[name]
            return self._chosen(
                min({PLAIN: 0.0, **self.rates}, key=lambda n: self._cost(n) if n in self.rates else 1e9)
            )
        self._remember(name, ready)
        rate, plain = self.rates.get(name), self.rates.get(PLAIN)
        rate = rate if rate and rate == rate else None
        ratio = rate / plain if rate and plain else None
        rows = tuple(trial.row for trial in self.trials.values())
        return Chosen(name, ready, rate, ratio, rows, tuple(self.work.notes))

    def _remember(self, name: str, ready: Ready) -> None:
        rows = remembered_rows([trial.row for trial in self.trials.values()], len(self.pictures))
        took = {trial.way.name: trial.own for trial in self.trials.values() if trial.ready}
        if took:
            written = {ONNX: self.work.writing / self._writing()} if self.work.writing > 0.5 else {}
            remembered.note_setups({**took, **written})
        if self.file is None or self.mode not in MODES:
            return
        device = self.subject.device.type
        notes = [
            ready.keep(),
            remembered.remember(
                self.file, self.mode, [r.to_dict() for r in rows], decided_for(self.count, self.batch), device
            ),
        ]
        self.work.notes += filter(None, notes)
