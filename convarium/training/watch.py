"""Telling how training goes: a bar on a terminal, plain lines in a file, always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from convarium.training import checkpoint
from convarium.training.gauge import Gauge
from convarium.training.track import Tracker


class Watch:
    """Prints how training goes.

    Args:
        quiet: print nothing.
        epochs: how many there will be, for the bar.
        record: called with each finished epoch's record before it is printed.
        trackers: told each finished epoch's record, too.
    """

    def __init__(
        self,
        quiet: bool = False,
        epochs: int = 0,
        record: Callable[[dict[str, Any]], None] | None = None,
        trackers: Sequence[Tracker] = (),
    ):
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.epochs = epochs
        self.record = record
        self.trackers = list(trackers)
        self._bar: Progress | None = None
        self._task: Any = None
        self._shown = 0.0
        self._gauge: Gauge | None = None

    @contextmanager
    def bar(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A bar for one phase; on anything but a terminal, nothing.

        Args:
            what: name of the phase.

        Yields:
            A function of (done, total).
        """
        if not self.console.is_terminal or self.console.quiet:
            yield lambda done, total: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=None)
            self._bar, self._task = bar, task
            try:
                yield lambda done, total: bar.update(task, completed=done, total=total)
            finally:
                self._bar = None

    def step(self, progress: checkpoint.Progress, batches: int, loss: Tensor) -> None:
        """One step is done; shown ten times a second at most, so that watching costs nothing."""
        if self._bar is None or time.perf_counter() - self._shown < 0.1:
            return
        self._shown = time.perf_counter()
        self._gauge = self._gauge or Gauge(loss.device)
        what = (
            f"epoch {progress.epoch + 1}/{self.epochs}  loss {float(loss):.3f}  {self._gauge.text()}".rstrip()
        )
        with suppress(OSError, ValueError):
            self._bar.update(self._task, completed=progress.batch, total=batches, description=what)

    def epoch(self, record: dict[str, Any]) -> None:
        """One epoch is done."""
        if self.record is not None:
            self.record(record)
        self._track(record)
        parts = [
            f"epoch {record['epoch']:>3}/{self.epochs}",
            f"train loss {record['train_loss']:.4f}  top-1 {record['train_top1']:6.2%}",
        ]
        if "val_loss" in record:
            parts.append(f"val loss {record['val_loss']:.4f}  top-1 {record['val_top1']:6.2%}")
        parts.append(f"{record['seconds']:.1f} s")
        self.note("  |  ".join(parts))

    def _track(self, record: dict[str, Any]) -> None:
        """Tell the trackers; one that fails is told nothing more, and training goes on."""
        for tracker in list(self.trackers):
            try:
                tracker.epoch(record)
            except (
                Exception
            ) as error:  # a tracker is somebody else's code: a full disk, a server that is gone
                self.trackers.remove(tracker)
                why = (str(error).strip() or type(error).__name__).splitlines()[0]
                self.note(f"note: {type(tracker).__name__} is told no more ({why}); training goes on")

    def note(self, text: str) -> None:
        """One plain line; where nobody can read it (a closed terminal, a full disk), training goes on without."""
        if self.console.quiet:
            return
        with suppress(OSError, ValueError):
            if self._bar is not None:
                self.console.print(text, markup=False, soft_wrap=True)
            else:
                print(text, file=sys.stderr, flush=True)
