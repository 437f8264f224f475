"""Every picture of every part decoded before training; what cannot be used is refused or written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convarium.data.augment import SETS
from convarium.data.folders import fingerprint
from convarium.data.loader import check
from convarium.data.splits import write_split
from convarium.errors import DataError
from convarium.sitting.state import Sitting
from convarium.training import signals


def look(now: Sitting, stop: signals.Stop) -> None:
    """Decode every picture of every part; refuse what cannot be trained on; write down what was left out."""
    for part, pictures in now.found.parts.items():
        with now.watch.bar(f"checking {part} pictures") as shown:

            def progress(done: int, total: int, shown: Any = shown) -> None:
                stop.check("no training was lost: pictures were still being checked")
                shown(done, total)

            augment = SETS[now.config["augment"]]
            now.sets[part] = checked = check(
                pictures,
                now.preprocessing(),
                progress=progress,
                cache=Path(now.config["cache"]) if "cache" in now.config else None,
                margin=part == "train" and augment is not None and augment.area is not None,
            )
        now.damaged += checked.damaged
        if now.damaged and not now.found.root.exists():
            raise DataError(
                f"{now.found.root} vanished while its pictures were checked; put it back and start again"
            )
        if not len(checked.good):
            now.folder.list_damaged(now.damaged)
            raise DataError(
                f"not one picture of the {part} part can be read; the first: {': '.join(checked.damaged[0])}"
            )
    now.folder.list_damaged(now.damaged)
    train = now.sets["train"].good
    empty = [name for name, count in zip(now.found.classes, train.counts, strict=True) if count == 0]
    if empty:
        raise DataError(
            f"no picture to train on is left of {', '.join(map(repr, empty[:5]))}: all are damaged "
            f"(see {now.folder.damaged_file}); mend them or remove the class's folder"
        )
    now.sha256 = {part: fingerprint(checked.good) for part, checked in now.sets.items()}
    if not now.resume and all(isinstance(p.source, Path) for p in train.pictures):
        write_split(now.folder.split_file, {part: checked.good for part, checked in now.sets.items()})
    for note in now.found.notes:
        now.watch.note(f"note: {note}")
    if now.damaged:
        now.watch.note(
            f"note: {len(now.damaged)} pictures cannot be read and are left out; see {now.folder.damaged_file}"
        )
