"""Where pictures and their labels come from: folders, a CSV file, or the MNIST files."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from convarium.data import tables
from convarium.data.decode import DEEP_EXTENSIONS, EXTENSIONS
from convarium.data.pictures import (
    PARTS,
    Data,
    Found,
    Picture,
    PictureSet,
    class_name,
    counted,
    fingerprint,
    listed,
    numbered,
)
from convarium.errors import DataError

__all__ = ["Data", "Picture", "PictureSet", "find", "fingerprint", "hidden", "list_pictures", "read_data"]

_SYSTEM = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir"}


def read_data(path: str | Path, classes: Sequence[str] | None = None, deep: bool = False) -> Data:
    """Find the pictures of a data set and their labels; no picture is opened.

    Args:
        path: a folder of class folders; a folder with train/ and val/ (or valid/, validation/, test/) of
            class folders; a CSV file with the columns path, label and, if wanted, part and key; or a
            folder with the four MNIST files.
        classes: the classes of a network that exists, in its order; pictures of others are left out, and
            one class is enough. None: the classes of the training part, sorted.
        deep: arrays (.npy) count as pictures, too.

    Returns:
        The data with at least one part and, where `classes` is None, two classes.

    Raises:
        DataError: there is no such path, or it holds nothing that can be used; says what to do.
    """
    return numbered(Path(path), find(path, deep), classes)


def find(path: str | Path, deep: bool = False) -> Found:
    """Find the pictures of a data set and the names of their classes; no picture is opened.

    Args:
        path: as for `read_data`.
        deep: likewise.

    Returns:
        All that is there, also of classes that only one part has.

    Raises:
        DataError: there is no such path, or its layout is not one of those.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(_nothing_there(root))
    if root.is_dir():
        idx = tables.idx_files(root)
        return tables.read_idx(idx) if idx else _read_folder(root, DEEP_EXTENSIONS if deep else EXTENSIONS)
    return tables.read_csv(root)


def hidden(name: str) -> bool:
    """Whether a file or folder is the system's or an editor's own."""
    return name.startswith(".") or name.lower() in _SYSTEM


def _read_folder(root: Path, extensions: frozenset[str]) -> Found:
    folders, files = _entries(root)
    parts: dict[str, list[str]] = {}
    for name in folders:
        if name.lower() in PARTS:
            parts.setdefault(PARTS[name.lower()], []).append(name)
    scan = _Scan(root, extensions)
    if "train" in parts or (parts and sum(map(len, parts.values())) == len(folders)):
        for part, names in parts.items():
            if len(names) > 1:
                raise DataError(f"{root} has both {' and '.join(names)}, which mean the same; keep one")
            scan.part(part, names[0])
        beside = [name for name in folders if name.lower() not in PARTS]
        if beside:
            scan.notes.append(f"Left out: {listed(beside)} beside {parts['train'][0]}/, which is no part.")
        order = [part for part in ("train", "val", "test") if scan.parts.get(part)]
        if "train" in parts and "train" not in order:
            raise DataError(_no_classes(root / parts["train"][0], extensions))
        scan.parts = {part: scan.parts[part] for part in order}
    else:
        scan.part("all", "")
    if not any(scan.parts.values()):
        raise DataError(_no_classes(root, extensions))
    loose = [name for name in files if not hidden(name)]
    if loose:
        scan.notes.append(f"Left out: {counted(len(loose), 'file')} beside the folders ({listed(loose)}).")
    return Found(scan.parts, scan.all_notes(), scan.left.get("empty", []))


class _Scan:
    """Walks the class folders of one data set and remembers what it left out."""

    def __init__(self, root: Path, extensions: frozenset[str]) -> None:
        self.root = os.fspath(root)
        self.extensions = extensions
        self.parts: dict[str, list[tuple[str, str, Path | np.ndarray]]] = {}
        self.notes: list[str] = []
        self.left: dict[str, list[str]] = {}

    def part(self, part: str, name: str) -> None:
        """Read the class folders below one part's folder."""
        folder = Path(self.root, name)
        folders, files = _entries(folder)
        found = self.parts.setdefault(part, [])
        for folder_name in folders:
            below = list(self._walk(f"{name}/{folder_name}" if name else folder_name))
            where = f"{name}/{folder_name}" if name else folder_name
            if not below:
                self.leave("empty", where)
                continue
            label = class_name(folder_name, os.fspath(folder))
            found.extend((label, key, Path(self.root, key)) for key in below)
        for entry in os.scandir(folder):
            if hidden(entry.name) and _is_dir(entry):
                self.leave("hidden", f"{name}/{entry.name}" if name else entry.name)
        pictures = [file for file in files if _ends(file, self.extensions) and not hidden(file)]
        if name and pictures:
            text = f"Left out: {counted(len(pictures), 'picture')} directly in {name}/, which have no class"
            self.notes.append(f"{text} ({listed(pictures)}).")

    def _walk(self, top: str) -> Iterator[str]:
        """Keys of the pictures below a folder; each real folder is entered once, so that loops end.

        A link to a folder above is not followed: it would bring in the pictures of other classes.
        """
        above = (Path(self.root, folder) for folder in Path(top).parents)
        seen = {_identity(folder) for folder in above}
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            identity = _identity(Path(self.root, folder))
            if identity in seen and folder != ".":
                continue
            seen.add(identity)
            for entry in _scandir(f"{self.root}/{folder}"):
                key = f"{folder}/{entry.name}"
                if hidden(entry.name):
                    if _is_dir(entry):
                        self.leave("hidden", key)
                    elif _ends(entry.name, self.extensions):
                        self.leave("hidden picture", key)
                elif _is_dir(entry):
                    waiting.append(key)
                elif not _is_file(entry):
                    self.leave("link" if entry.is_symlink() else "odd", key)
                elif _ends(entry.name, self.extensions):
                    yield key
                else:
                    self.leave("extension", key)

    def leave(self, why: str, key: str) -> None:
        self.left.setdefault(why, []).append(key)

    def all_notes(self) -> list[str]:
        """One sentence for each reason to leave something out."""
        words = {
            "empty": ("class folder", "without pictures"),
            "hidden": ("hidden folder", ""),
            "hidden picture": ("hidden file", ""),
            "link": ("broken link", ""),
            "odd": ("entry", "that is neither file nor folder"),
            "extension": ("file", "whose extension is no picture's"),
        }
        notes = list(self.notes)
        for why, (noun, rest) in words.items():
            keys = sorted(self.left.get(why, []))
            if keys:
                text = f"Left out: {counted(len(keys), noun)} {rest}".rstrip()
                notes.append(f"{text} ({listed(keys)}).")
        return notes


def list_pictures(paths: Iterable[str | Path], deep: bool = False) -> list[Path]:
    """The files meant by names of files, folders and patterns, in the order asked.

    Args:
        paths: a file is kept as it is, even where it does not exist or has a strange extension: decoding
            says what is wrong. A folder gives its pictures and those below, sorted. A pattern (with
            *, ? or [ ]; ** for all folders below) gives the pictures that fit, sorted.
        deep: arrays (.npy) count as pictures, too.

    Returns:
        Paths of files.

    Raises:
        DataError: a folder or a pattern without pictures.
    """
    files: list[Path] = []
    extensions = DEEP_EXTENSIONS if deep else EXTENSIONS
    for item in paths:
        path = Path(item)
        if path.is_dir():
            below = _below(path, extensions)
            if not below:
                raise DataError(
                    f"{path} has no pictures; extensions known are {' '.join(sorted(extensions))}"
                )
            files.extend(below)
        elif os.path.lexists(path) or not glob.has_magic(os.fspath(item)):
            files.append(path)
        else:
            fitting = [Path(name) for name in sorted(glob.glob(os.fspath(item), recursive=True))]  # noqa: PTH207
            matched = [file for file in fitting if _ends(file.name, extensions) and not file.is_dir()]
            if not matched:
                raise DataError(f"no picture fits {item}; check the pattern and its quotes")
            files.extend(matched)
    return files


def _scandir(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(
            f"cannot read the folder {folder}: {(error.strerror or str(error)).lower()}"
        ) from error


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the visible folders and of all other entries, sorted."""
    entries = _scandir(folder)
    folders = sorted(entry.name for entry in entries if _is_dir(entry) and not hidden(entry.name))
    return folders, sorted(entry.name for entry in entries if not _is_dir(entry))


def _below(top: Path, extensions: frozenset[str]) -> list[Path]:
    """The pictures in a folder and below it, sorted by their names below it."""
    scan = _Scan(top, extensions)
    return [top / key.removeprefix("./") for key in sorted(scan._walk("."))]


def _identity(folder: Path) -> tuple[int, int]:
    """What is the same for a folder and for every link to it."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _ends(name: str, extensions: frozenset[str]) -> bool:
    return os.path.splitext(name)[1].lower() in extensions  # noqa: PTH122 (a Path costs ten times as much)


def _nothing_there(path: Path) -> str:
    """The message for a path that does not exist, with near names beside it."""
    if path.is_symlink():
        return f"{path} is a broken link; mend it or give another path"
    parent = path.absolute()
    missing = parent.name
    while not parent.exists():
        missing, parent = parent.name, parent.parent
    names = [entry.name for entry in _scandir(parent)] if parent.is_dir() else []
    near = difflib.get_close_matches(missing, names, n=3, cutoff=0.6)
    hint = (
        f"did you mean {' or '.join(str(parent / name) for name in near)}?" if near else "check the spelling"
    )
    return f"{path} does not exist; {hint}"


def _no_classes(folder: Path, extensions: frozenset[str]) -> str:
    """The message for a folder without class folders, from what it has instead."""
    want = "make one folder for each class and put its pictures there, or give a CSV file of path,label"
    folders, files = _entries(folder)
    pictures = [name for name in files if _ends(name, extensions) and not hidden(name)]
    if pictures:
        return f"{folder} has {counted(len(pictures), 'picture')} but no class folders; {want}"
    tables = [name for name in files if name.lower().endswith((".csv", ".tsv"))]
    if tables:
        return f"{folder} has no class folders; did you mean {folder / tables[0]}?"
    if folders:
        arrays = [] if extensions is DEEP_EXTENSIONS else sorted(folder.glob("*/*.npy"))
        if arrays:
            return (
                f"the folders in {folder} have no pictures but arrays ({arrays[0].name}), which --deep reads"
            )
        return f"the folders in {folder} ({listed(folders)}) have no pictures; {want}"
    return f"{folder} is empty; {want}"
