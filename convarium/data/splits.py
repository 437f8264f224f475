"""Dividing pictures into parts, and the file that keeps the division."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from pathlib import Path

from convarium.data.folders import Picture, PictureSet
from convarium.errors import ArgumentError, DataError
from convarium.storage import write_text


def stratified(pictures: PictureSet, fraction: float, seed: int) -> tuple[PictureSet, PictureSet]:
    """Hold out the same share of every class; which pictures depends only on the seed and their keys.

    Args:
        pictures: all with labels.
        fraction: share of each class to hold out, between 0 and 1, rounded; at least one picture of a
            class stays on each side. A class with a single picture stays with the rest (`lonely` names it).
        seed: any whole number.

    Returns:
        The rest and the held-out pictures, each in the order that they were in.

    Raises:
        DataError: no class has two pictures.
    """
    if not 0 < fraction < 1:
        raise ArgumentError(f"fraction is {fraction!r}; want a number between 0 and 1, such as 0.2")
    groups: dict[int | None, list[Picture]] = {}
    for picture in pictures.pictures:
        groups.setdefault(picture.label, []).append(picture)
    held: set[str] = set()
    for group in groups.values():
        number = min(max(1, round(fraction * len(group))), len(group) - 1)
        ranked = sorted(group, key=lambda picture: (rank(seed, picture.key), picture.key))
        held.update(picture.key for picture in ranked[:number])
    if not held:
        raise DataError(
            "nothing can be held out: every class has a single picture; add some, or give validation data"
        )
    rest = tuple(picture for picture in pictures.pictures if picture.key not in held)
    out = tuple(picture for picture in pictures.pictures if picture.key in held)
    return PictureSet(pictures.classes, rest), PictureSet(pictures.classes, out)


def folds(pictures: PictureSet, count: int, seed: int) -> list[PictureSet]:
    """Divide pictures into parts of the same size, each class in its share, every picture in one of them.

    Args:
        pictures: all with labels.
        count: of parts.
        seed: any whole number; which part a picture is in depends only on it and the keys of its class.

    Returns:
        The parts, each in the order that the pictures were in.

    Raises:
        ArgumentError: fewer than two parts.
        DataError: a class has fewer pictures than there are parts.
    """
    if not isinstance(count, int) or count < 2:
        raise ArgumentError(f"{count!r} folds; want a whole number of at least 2")
    few = [name for name, number in zip(pictures.classes, pictures.counts, strict=True) if number < count]
    if few:
        raise DataError(
            f"{len(few)} classes have fewer than {count} pictures ({', '.join(few[:5])}), so not every fold would have "
            "some; take fewer folds, or add pictures"
        )
    place: dict[str, int] = {}
    for label in range(len(pictures.classes)):
        of_class = (picture.key for picture in pictures.pictures if picture.label == label)
        for position, key in enumerate(sorted(of_class, key=lambda key: (rank(seed, key), key))):
            # Classes begin at different parts, or the first would be the largest everywhere.
            place[key] = (position + label) % count
    return [
        PictureSet(pictures.classes, tuple(p for p in pictures.pictures if place[p.key] == part))
        for part in range(count)
    ]


def lonely(pictures: PictureSet) -> list[str]:
    """A note on each class with a single picture, which `stratified` cannot divide."""
    return [
        f"The class {name!r} has a single picture, which is used for training; nothing of it is held out."
        for name, count in zip(pictures.classes, pictures.counts, strict=True)
        if count == 1
    ]


def write_split(path: Path, parts: dict[str, PictureSet], relative: bool = False) -> None:
    """Write a division as a CSV file (path, label, part, key) that `read_data` reads back, keys included.

    Args:
        path: the file to make or replace, in one step.
        parts: by the names "train", "val", "test" or "all"; pictures that are files.
        relative: name pictures below the file's folder from there, so that both can be moved together.

    Raises:
        DataError: pictures in memory, which have no path.
        RunError: it cannot be written.
    """
    text, top = io.StringIO(newline=""), Path(os.path.abspath(path.parent))  # noqa: PTH100
    rows = csv.writer(text)
    rows.writerow(("path", "label", "part", "key"))
    for part, pictures in parts.items():
        if part not in ("train", "val", "test", "all"):
            raise ArgumentError(f"part is {part!r}; allowed are train, val, test and all")
        for picture in pictures.pictures:
            if not isinstance(picture.source, Path) or picture.label is None:
                raise DataError(f"{picture.key} is no labelled file; only files can be listed in {path.name}")
            whole = Path(os.path.abspath(picture.source))  # noqa: PTH100 (links stay links)
            if relative and whole.is_relative_to(top):
                whole = whole.relative_to(top)
            rows.writerow(
                (
                    whole.as_posix(),
                    pictures.classes[picture.label],
                    "" if part == "all" else part,
                    picture.key,
                )
            )
    write_text(path, text.getvalue())


def rank(seed: int, key: str) -> bytes:
    """A picture's place in the draw; a hash, not a generator, so that other pictures do not move it."""
    return hashlib.blake2b(f"{seed}\0{key}".encode("utf-8", "backslashreplace"), digest_size=16).digest()
