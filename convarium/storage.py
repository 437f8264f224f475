"""Files that are whole or absent: written to a temporary name, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from convarium.errors import RunError

LEFT = 3600.0
"""Seconds after which an unfinished file belongs to nobody."""


def write(path: Path, writer: Callable[[Path], object]) -> None:
    """Replace a file in one step; when anything fails, the old file stays as it was.

    Args:
        path: the file to replace or make.
        writer: writes the content to the temporary path that it is given.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        writer(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # some writers keep their files to their owner
        temporary.replace(path)
        _flush_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        reason = _disk_reason(error)
        if reason is None:
            raise
        raise RunError(f"cannot write {path}: {reason}") from error


def sweep(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left; one that writes now is younger.

    Args:
        folder: in which `write` writes.
    """
    for left in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT:
                left.unlink()


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) in one step.

    Args:
        path: the file to replace or make.
        text: its content; names that are not valid UTF-8 are kept as they came from the file system.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    write(path, lambda temporary: temporary.write_bytes(text.encode("utf-8", "surrogateescape")))


def must_be_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work is done that it is for.

    Args:
        path: the file to make or replace.

    Raises:
        RunError: it cannot be written, with the reason.
    """
    if path.is_dir():
        raise RunError(f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise RunError(f"there is no folder {path.parent}; make it, or choose another place for {path.name}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise RunError(f"cannot write {path}: {_disk_reason(error) or error.strerror}") from error


def is_model(name: str | Path) -> bool:
    """Whether a name is that of a trained model's file, or of a run that holds one, and not that of a network."""
    return str(name).endswith(".safetensors") or Path(name, "model.safetensors").is_file()


def make_folder(path: Path, instead: str = "choose another place with --out") -> Path:
    """Make a folder and those above it.

    Args:
        path: the folder.
        instead: what to do where it cannot be made.

    Raises:
        RunError: it cannot be made, with the reason.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot make the folder {path}: {_disk_reason(error) or error.strerror}; {instead}"
        ) from error
    return path


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits; empty where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


ELSEWHERE = "set CONVARIUM_CACHE to a folder that can be written"
"""What to do where the cache cannot be."""


def cache_folder() -> Path:
    """Where is kept what can be made anew: $CONVARIUM_CACHE, or ~/.cache/convarium."""
    if told := os.environ.get("CONVARIUM_CACHE"):
        return Path(told)
    try:
        home = Path.home()
    except RuntimeError:  # no $HOME and no entry of the user's, as in some containers
        home = Path(tempfile.gettempdir())
    return home / ".cache" / "convarium"


def _disk_reason(error: BaseException) -> str | None:
    """Why the system refused to write, in words; None where it was not the system."""
    words = {
        errno.ENOSPC: "the disk is full; free some space and go on",
        errno.EDQUOT: "the quota is used up; free some space and go on",
        errno.EROFS: "the disk is read-only",
        errno.EACCES: "no permission to write there",
        errno.EPERM: "no permission to write there",
        errno.ENOENT: "the folder is gone",
        errno.ENOTDIR: "a file stands where a folder is needed",
        errno.EEXIST: "a file stands where a folder is needed",
        errno.EIO: "the disk reported an input/output error",
    }
    if isinstance(error, OSError):
        return words.get(error.errno or 0, error.strerror or str(error))
    # safetensors reports the system's error as text, in an exception of its own.
    if type(error).__name__ == "SafetensorError":
        number = next((n for n in words if f"os error {n}" in str(error)), None)
        return words[number] if number else None
    return None


def _umask() -> int:
    """The permissions that new files are not given; it can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable; not every file system allows it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
