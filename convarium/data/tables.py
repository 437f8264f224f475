"""Data sets that are files: a CSV file of paths and labels, and the four MNIST files (idx)."""

from __future__ import annotations

import csv
import gzip
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from convarium.data.pictures import PARTS, Found, class_name
from convarium.errors import DataError

_IDX = {"train": "train", "t10k": "test"}


def read_csv(path: Path) -> Found:
    """Read a CSV file with the columns path and label, and part and key where it has them.

    UTF-8 with or without byte order mark; separated by commas, semicolons or tabs. Relative paths are
    relative to the file's folder. `key` is the name that rules order and augmentation; without it,
    the path does.

    Raises:
        DataError: it is no such file, or a row lacks something; says which and what to do.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    want = "want a folder of class folders, or a CSV file whose first line has the columns path,label"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is UTF-16; save it as UTF-8")
    if b"\0" in data[:4096]:
        raise DataError(f"{path} is no CSV file; {want}")
    text = data.decode("utf-8-sig", "surrogateescape")
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [name.strip().casefold() for name in next(reader, [])]
        lacking = [name for name in ("path", "label") if name not in header]
        if lacking:
            there = ", ".join(header)[:200] if first.isprintable() or "\r" in first else "something else"
            raise DataError(
                f"{path} lacks the column {' and '.join(lacking)}; its first line has: {there}; {want}"
            )
        rows = [(reader.line_num, dict(zip(header, row, strict=False))) for row in reader if any(row)]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; {want}") from error
    return _rows(path, rows)


def _rows(path: Path, rows: list[tuple[int, dict[str, str]]]) -> Found:
    found = Found()
    seen: dict[str, tuple[str, str]] = {}
    twice, shared, missing = 0, [], []
    with_parts = any(row.get("part", "").strip() for _, row in rows)
    for line, row in rows:
        name, label, part = (row.get(column, "").strip() for column in ("path", "label", "part"))
        name = row.get("path", "") if row.get("key") else name  # our own files keep blanks at a name's ends
        if not name or not label:
            raise DataError(f"{path}, line {line}: {'path' if not name else 'label'} is empty; fill it in")
        if with_parts and part.lower() not in PARTS:
            raise DataError(f"{path}, line {line}: part is {part!r}; allowed are train, val and test")
        part = PARTS[part.lower()] if with_parts else "all"
        source = _place(path.parent, name)
        key = row.get("key") or _key(path.parent, source)
        label = class_name(label, f"{path}, line {line}")
        if key in seen:
            before, place = seen[key]
            if before != label:
                raise DataError(
                    f"{path}, line {line}: {name} is {label!r} here and {before!r} above; decide on one"
                )
            if place == part:
                twice += 1
                continue
            shared.append(name)
        seen[key] = (label, part)
        if not source.exists():
            missing.append(name)
        found.parts.setdefault(part, []).append((label, key, source))
    if not seen:
        raise DataError(f"{path} has no rows below its first line; add one for each picture")
    if len(missing) == len(seen):
        raise DataError(
            f"none of the {len(missing)} paths in {path} exists (first: {missing[0]}); "
            f"relative paths start from {path.parent.absolute()}"
        )
    if missing:
        found.notes.append(
            f"{len(missing)} of {len(seen)} paths in {path.name} do not exist (first: {missing[0]}); "
            "they count as damaged pictures."
        )
    if twice:
        found.notes.append(f"Left out: {twice} rows of {path.name} that repeat a picture.")
    if shared:
        found.notes.append(f"{len(shared)} pictures are in more than one part (first: {shared[0]}).")
    found.parts = {part: found.parts[part] for part in ("train", "val", "test", "all") if part in found.parts}
    return found


def _place(folder: Path, name: str) -> Path:
    """Where a row's picture is; a Windows path is understood elsewhere too."""
    path = folder / name
    if os.sep == "/" and "\\" in name and not path.exists():
        other = folder / name.replace("\\", "/")
        return other if other.exists() else path
    return path


def _key(folder: Path, source: Path) -> str:
    """A picture's path below the CSV file's folder, or its whole path where it is elsewhere."""
    # Not resolve(), which would follow links.
    whole, top = Path(os.path.abspath(source)), Path(os.path.abspath(folder))  # noqa: PTH100
    return (whole.relative_to(top) if whole.is_relative_to(top) else whole).as_posix()


def idx_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """The files of MNIST in a folder: part to (pictures, labels); empty where there are none.

    Raises:
        DataError: one of a pair is missing.
    """
    pairs = {}
    for prefix, part in _IDX.items():
        pictures, labels = (
            next(
                (
                    folder / f"{prefix}-{kind}{dot}idx{rank}-ubyte{end}"
                    for dot in "-."
                    for end in ("", ".gz")
                    if (folder / f"{prefix}-{kind}{dot}idx{rank}-ubyte{end}").is_file()
                ),
                None,
            )
            for kind, rank in (("images", 3), ("labels", 1))
        )
        if pictures and labels:
            pairs[part] = (pictures, labels)
        elif pictures or labels:
            kind = "labels" if pictures else "images"
            raise DataError(f"{folder} has {(pictures or labels)} but not {prefix}-{kind}; add it")
    return pairs


def read_idx(files: dict[str, tuple[Path, Path]]) -> Found:
    """Read MNIST's files into memory; the keys are "train/00017", the classes the numbers of the labels."""
    found = Found()
    for part, (picture_file, label_file) in files.items():
        pictures, labels = _idx(picture_file, 3), _idx(label_file, 1)
        if len(pictures) != len(labels):
            got = f"{picture_file} has {len(pictures)} pictures, {label_file} {len(labels)} labels"
            raise DataError(f"{got}; get them anew")
        found.parts[part] = [
            (str(label), f"{part}/{number:05d}", picture)
            for number, (label, picture) in enumerate(zip(labels.tolist(), pictures, strict=True))
        ]
    return found


def _idx(path: Path, rank: int) -> np.ndarray:
    """An idx file: two zero bytes, type 8 (bytes), rank, sizes as big-endian 32-bit integers, values."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}; get it anew") from error
    head = 4 + 4 * rank
    if len(data) < head or data[:4] != bytes((0, 0, 8, rank)):
        raise DataError(f"{path} is no idx file of rank {rank}; get it anew")
    shape = struct.unpack(f">{rank}I", data[4:head])
    values = np.frombuffer(data, np.uint8, offset=head)
    if values.size != np.prod(shape, dtype=np.int64):
        raise DataError(
            f"{path} is cut short: {values.size} values instead of {'x'.join(map(str, shape))}; get it anew"
        )
    return values.reshape(shape)
