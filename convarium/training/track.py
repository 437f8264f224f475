"""Trackers: where the records of a training go besides its folder.

A tracker is any object with two methods, `epoch(record)` and `close()`; hand it to `Watch(trackers=[...])`. The record
is the line that metrics.jsonl holds: "epoch", "step", "train_loss", "train_top1", "lr", "seconds", and "val_loss" and
"val_top1" where there is something to validate on. For another service than TensorBoard:

    class Lines:
        def epoch(self, record):
            print(record["epoch"], record["train_loss"])

        def close(self):
            pass

A tracker that fails never ends training: it is told nothing more, and a note says so.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from convarium import storage
from convarium.errors import MissingExtra


class Tracker(Protocol):
    """Who keeps the records of a training elsewhere."""

    def epoch(self, record: dict[str, Any]) -> None:
        """One epoch is done.

        Args:
            record: as in metrics.jsonl.
        """

    def close(self) -> None:
        """No record comes any more in this sitting."""


def tensorboard(folder: Path) -> Tracker:
    """A tracker that writes what TensorBoard shows; look at it with `tensorboard --logdir FOLDER`.

    Args:
        folder: for the event files; made where it is not there.

    Returns:
        The tracker: curves of training and validation in one chart each, by epoch. A resumed run goes on in the same
        curves.

    Raises:
        MissingExtra: TensorBoard is not installed.
        RunError: the folder cannot be made.
    """
    needed()
    from torch.utils.tensorboard import SummaryWriter

    storage.make_folder(folder)
    return _TensorBoard(SummaryWriter(str(folder)))


def needed() -> None:
    """See that TensorBoard is there, before anything is begun.

    Raises:
        MissingExtra: it is not installed.
    """
    if find_spec("tensorboard") is None:
        raise MissingExtra(
            "TensorBoard is not installed; `pip install convarium[track]` brings it, or leave --tensorboard out"
        )


class _TensorBoard:
    """Writes each figure of a record as a scalar: "loss/train", "loss/val", "top-1/train", ..."""

    NAMES = {
        "train_loss": "loss/train",
        "val_loss": "loss/val",
        "train_top1": "top-1/train",
        "val_top1": "top-1/val",
        "lr": "learning rate",
        "seconds": "seconds an epoch",
    }

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def epoch(self, record: dict[str, Any]) -> None:
        for key, name in self.NAMES.items():
            if key in record:
                self._writer.add_scalar(name, record[key], record["epoch"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
