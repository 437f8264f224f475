"""What a data set is: pictures, their classes, and what makes two data sets the same.

Class names are kept in Unicode's composed form (NFC; macOS writes them decomposed) and sorted by code
points, as torchvision sorts them: "10" comes before "2". The order of the training part rules all parts;
the other parts are matched to it by name.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convarium.errors import DataError

PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of folders and CSV values, in lower case, and the part that each means."""


@dataclass(frozen=True)
class Picture:
    """One picture: its name below the data's root with forward slashes, where it is, its class's index."""

    key: str
    source: Path | np.ndarray = field(compare=False)
    label: int | None


@dataclass(frozen=True)
class PictureSet:
    """Pictures with the names of their classes, in the order of the labels."""

    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]

    @property
    def counts(self) -> list[int]:
        """Number of pictures of each class."""
        found = Counter(picture.label for picture in self.pictures)
        return [found[index] for index in range(len(self.classes))]

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass
class Data:
    """A data set: its parts are "train", "val" and "test", as far as there are such, or only "all".

    `notes` are plain sentences on everything that was noticed and left out.
    """

    root: Path
    classes: tuple[str, ...]
    parts: dict[str, PictureSet]
    notes: list[str] = field(default_factory=list)


@dataclass
class Found:
    """What a reader found before labels are numbers: per part, (class, key, source) of each picture.

    `empty` are the class folders without pictures, named below the data's root.
    """

    parts: dict[str, list[tuple[str, str, Path | np.ndarray]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


def class_name(text: str, where: str) -> str:
    """A class's name in Unicode's composed form.

    Raises:
        DataError: its bytes are not UTF-8, so that no checkpoint could hold it.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"the class name {text!r} in {where} is not valid UTF-8; rename it") from error
    return unicodedata.normalize("NFC", text)


def numbered(root: Path, found: Found, classes: Sequence[str] | None) -> Data:
    """Turn class names into numbers, by the training part's order or the one that was given.

    Raises:
        DataError: one class only, or none that was asked for.
    """
    notes = list(found.notes)
    if classes is None:
        ruling = ["train"] if found.parts.get("train") else list(found.parts)
        names = {label for part in ruling for label, _, _ in found.parts[part]}
        # The MNIST files number their classes; sorted as words, 10 would come before 2.
        digits = all(isinstance(entry[2], np.ndarray) for entry in found.parts[ruling[0]])
        order = tuple(sorted(names, key=int) if digits else sorted(names))
        if len(order) < 2:
            raise DataError(_one_class(root, order[0]))
        owner = "the training part"
    else:
        order = tuple(classes)
        owner = "the network"
    index = {unicodedata.normalize("NFC", name): number for number, name in enumerate(order)}
    parts = {}
    for part, entries in found.parts.items():
        unknown = Counter(label for label, _, _ in entries if label not in index)
        for label, count in sorted(unknown.items()):
            note = f"Left out: {counted(count, 'picture')} of the class {label!r} in {part}"
            notes.append(f"{note}, which {owner} does not have.")
        absent = sorted(set(index) - {label for label, _, _ in entries})
        if absent and part != "train" and part != "all":
            notes.append(f"No pictures in {part} of {counted(len(absent), 'class')} ({listed(absent)}).")
        kept = [Picture(key, source, index[label]) for label, key, source in entries if label in index]
        if kept:
            parts[part] = PictureSet(order, tuple(sorted(kept, key=lambda picture: picture.key)))
        elif classes is None:
            notes.append(f"The part {part} has no picture of a known class and is left out.")
    if not parts:
        there = sorted({label for entries in found.parts.values() for label, _, _ in entries})
        raise DataError(
            f"{root} has no picture of a class of {owner}; it has {listed(there)}, want {listed(order)}"
        )
    return Data(root, order, parts, notes)


def fingerprint(pictures: PictureSet | Iterable[Picture]) -> str:
    """SHA-256 over key, label, size and content of every picture, in the order of the keys.

    Returns:
        64 hexadecimal digits; the same for the same pictures in any order.

    Raises:
        DataError: a picture cannot be read.
    """
    every = pictures.pictures if isinstance(pictures, PictureSet) else tuple(pictures)
    ordered = sorted(every, key=lambda picture: picture.key)
    total = hashlib.sha256()
    for picture, (size, digest) in zip(ordered, contents(ordered), strict=True):
        line = f"{picture.key}\0{picture.label}\0{size}\0{digest}\n"
        total.update(line.encode("utf-8", "backslashreplace"))
    return total.hexdigest()


def contents(pictures: Sequence[Picture]) -> list[tuple[int, str]]:
    """Size in bytes and SHA-256 of each picture's content, in the order given.

    Raises:
        DataError: a picture cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_content, pictures))


def _content(picture: Picture) -> tuple[int, str]:
    if isinstance(picture.source, np.ndarray):
        values = np.ascontiguousarray(picture.source)
        head = f"{values.dtype.str}{values.shape}".encode()
        return values.nbytes, hashlib.sha256(head + values.tobytes()).hexdigest()
    try:
        data = picture.source.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {picture.source}: {(error.strerror or str(error)).lower()}") from error
    return len(data), hashlib.sha256(data).hexdigest()


def _one_class(root: Path, name: str) -> str:
    """The message for a single class, which is often a folder too much."""
    inner = root / name
    if inner.is_dir() and sum(entry.is_dir() for entry in inner.iterdir()) > 1:
        return f"{root} has only one class, {name!r}; did you mean {inner}?"
    return f"{root} has only one class, {name!r}; training needs pictures of at least two"


def counted(number: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("s") else "s")
    plural = "entries" if noun == "entry" else plural
    return f"{number} {noun if number == 1 else plural}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(str(name) for name in list(names)[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
