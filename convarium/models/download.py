"""Published files, fetched once: resumed when cut, checked before they get their name, found again without a network.

The caches are those that the publishers' own libraries use, so that nothing is fetched twice: files with an address
lie where torch.hub keeps them, entries of the Hugging Face hub where huggingface_hub does.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from convarium.errors import CheckpointError
from convarium.models.published import Published

# Is told the bytes that are there and those there will be, which may be unknown.
Progress = Callable[[int, int | None], None]

TIMEOUT = 30.0  # seconds without a byte
TRIES = 5  # in a row that bring nothing
PIECE = 1 << 18  # bytes


def cached(published: Published) -> Path | None:
    """The file, where it is on this machine already.

    Args:
        published: the weights.

    Returns:
        Its path, or None.
    """
    if published.url:
        path = _home(published)
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    repository, revision = _entry(published)
    for file in published.files:
        found = try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def fetch(published: Published, progress: Progress | None = None) -> Path:
    """The file on this machine; fetched where it is not there.

    Args:
        published: the weights.
        progress: is told how far a file with an address is; by default a bar on standard error, on a terminal.

    Returns:
        The path of a whole file.

    Raises:
        CheckpointError: it cannot be fetched (what has come is kept, to go on from), or its checksum is wrong
            (it is removed).
    """
    found = cached(published)
    if found is not None:
        return found
    if not published.url:
        return _from_hub(published)
    from filelock import FileLock

    target = _home(published)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):  # a second process waits, and then finds the file
            if not target.is_file():
                _from_address(published, target, progress)
    except OSError as error:
        raise CheckpointError(
            f"{published.reference} could not be stored at {target}: {error.strerror or error}; free some space, or "
            "set TORCH_HOME to another folder"
        ) from error
    return target


def _home(published: Published) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / published.files[0]


def _from_address(published: Published, target: Path, progress: Progress | None) -> None:
    partial = target.with_name(target.name + ".partial")
    with (
        contextlib.nullcontext(progress) if progress else _bar(published) as tell,
        partial.open("ab") as file,
    ):
        _receive(published, file, tell, target)
        file.flush()
        os.fsync(file.fileno())
    digest = _sha256(partial)
    if not digest.startswith(published.sha256):
        partial.unlink()
        raise CheckpointError(
            f"the file from {published.url} is not the one published: its checksum begins {digest[:16]}, it should "
            f"begin {published.sha256}; it was removed. Something on the way may have put another page in its place; "
            "try again, or from another network"
        )
    partial.replace(target)


def _receive(published: Published, file: BinaryIO, tell: Progress, target: Path) -> None:
    """Append to the file until it is whole, from where an earlier try ended."""
    failures = 0
    while failures < TRIES:
        before = file.seek(0, os.SEEK_END)
        reason = ""
        try:
            total = _one_answer(published.url, file, tell)
            if total is None or file.tell() == total:
                return
            reason = f"the connection ended after {file.tell():,} of {total:,} bytes"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise CheckpointError(
                    f"{published.url} cannot be fetched: the server answers {error.code} {error.reason}; the address "
                    "comes from the publisher's library, so a newer version of that library may know a better one"
                ) from error
            reason = f"the server answers {error.code} {error.reason}"
        except urllib.error.URLError as error:
            reason = str(error.reason)
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
        failures = 0 if file.tell() > before else failures + 1
        if failures:
            time.sleep(min(0.1 * 2**failures, 2))
    come = file.tell()
    raise CheckpointError(
        f"{published.reference} could not be fetched from {published.url}: {reason}. "
        + (
            f"The {come:,} bytes that have come are kept; the same command goes on from there. "
            if come
            else ""
        )
        + f"Without a network, fetch the file elsewhere and put it at {target}"
    )


def _one_answer(url: str, file: BinaryIO, tell: Progress) -> int | None:
    """What one request brings; the size of the whole file, None where the server does not tell it."""
    have = file.tell()
    headers = {"User-Agent": "convarium", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if error.code != 416 or not have:
            raise
        if total and int(total[1]) == have:  # it was whole already
            return have
        _empty(file)  # longer than the file that is published now: anew
        return _one_answer(url, file, tell)
    with answer:
        length = answer.headers.get("Content-Length")
        if have and answer.status != 206:  # a server that cannot go on sends the whole again
            _empty(file)
            have = 0
        total_bytes = have + int(length) if length else None
        while piece := answer.read(PIECE):
            file.write(piece)
            tell(file.tell(), total_bytes)
    return total_bytes


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _bar(published: Published) -> Iterator[Progress]:
    """A bar on a terminal, one line elsewhere; both on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.print(f"fetching {published.files[0]}", soft_wrap=True)
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task(published.files[0], total=published.bytes)
        yield lambda done, total: bars.update(task, completed=done, total=total or published.bytes)


def _entry(published: Published) -> tuple[str, str | None]:
    """Entry and revision: timm writes the second after an @."""
    repository, _, revision = published.hub.partition("@")
    return repository, revision or None


def _from_hub(published: Published) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, revision = _entry(published)
    for file in published.files:
        try:
            path = Path(huggingface_hub.hf_hub_download(repository, file, revision=revision))
        except (
            LocalEntryNotFoundError
        ) as error:  # is an EntryNotFoundError, but says that the hub is out of reach
            raise _unreachable(published, error) from error
        except EntryNotFoundError:
            continue
        except Exception as error:  # the library raises those of its HTTP client, which has changed before
            raise _unreachable(published, error) from error
        return _checked(published, path)
    raise CheckpointError(
        f"the hub's entry {repository} has none of the files {', '.join(published.files)}; a newer version of "
        f"{'timm' if published.publisher != 'open_clip' else 'open_clip'} may know a better entry"
    )


def _unreachable(published: Published, error: Exception) -> CheckpointError:
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    return CheckpointError(
        f"{published.reference} could not be fetched from the entry {published.hub} of the Hugging Face hub: {reason} "
        "Without a network, fetch the entry elsewhere with `hf download` and copy its cache folder here, or give "
        "the path of the file"
    )


def _checked(published: Published, path: Path) -> Path:
    """A large file of the hub is stored under its checksum, to which a link leads."""
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) and _sha256(blob) != blob.name:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise CheckpointError(
            f"the file that came from the entry {published.hub} of the Hugging Face hub has not the checksum that the "
            "hub states; it was removed, try again"
        )
    return path
