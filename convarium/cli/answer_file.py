"""Answers of `convarium predict` in a file: written batch by batch, so that what was done stays, and more can follow.

Beside FILE lies FILE.about.json, which says by which model, for which pictures and how it was made.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from convarium import __version__, storage
from convarium.answering import Prediction
from convarium.data.ahead import begun
from convarium.errors import ArgumentError, RunError

HEADER = ("path", "rank", "class", "index", "probability", "unsure", "error")

_WHAT = {
    "model_sha256": "another model",
    "pictures_sha256": "other pictures, or another order of them",
    "format": "another format",
    "top": "another number of guesses (--top)",
    "mirror": "another choice of --mirror",
}


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Args:
        model: as the user named it.
        model_sha256: of its content.
        pictures: how many.
        pictures_sha256: of their names, in their order.
        format: "jsonl" or "csv".
        top: guesses a picture that are asked for.
        guesses: that are given: at most one a class.
        mirror: whether pictures are also looked at mirrored.
        asked: which way to compute was asked for, as "auto".
    """

    model: str
    model_sha256: str
    pictures: int
    pictures_sha256: str
    format: str
    top: int
    guesses: int
    mirror: bool
    asked: str


class AnswerFile:
    """A file of answers, open and locked; nothing in it changes before `begin`.

    Args:
        path: the file.
        job: what is asked for.
        names: of the pictures, in their order; called where the file is gone on with.
        resume: keep the answers that are there.

    Attributes:
        path: as given.
        done: answers that are in it.
        unreadable: of these, for pictures that could not be read.
        engine: by which way these were made; None where there are none.
        batch: so many pictures at once; None where there are none.
        complete: whether all are there.

    Raises:
        RunError: it cannot be written, another process writes it, or what it holds is another's.
    """

    def __init__(self, path: Path, job: Job, names: Callable[[], Iterator[str]], resume: bool) -> None:
        self.path, self.job = path, job
        self.beside = path.with_name(f"{path.name}.about.json")
        self.done = self.unreadable = self._end = self._boundary = self._again = 0
        self.engine: str | None = None
        self.batch: int | None = None
        self.complete = False
        self._about: dict[str, Any] = {}
        self._made, self._cleared = False, True
        try:
            self.beside.exists()  # says so where the name is too long
            there = path.exists()
            if there and not path.is_file():
                raise ArgumentError(
                    f"{path} is no regular file; leave out -o, and answers go to standard output"
                )
            self._handle = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        except OSError as error:
            raise RunError(
                f"cannot write {path}: {(error.strerror or str(error)).lower()}; choose another place with -o"
            ) from error
        try:
            _lock(self._handle, path)
            if os.fstat(self._handle.fileno()).st_ino != path.stat().st_ino:
                raise RunError(f"{path} was replaced by another process meanwhile; run the command again")
            self._made = not there  # another process that holds it may have made it since
            self._look(names, resume)
        except BaseException:
            self.close()
            raise

    def _look(self, names: Callable[[], Iterator[str]], resume: bool) -> None:
        """Decide whether what is there may be replaced or gone on with."""
        size = os.fstat(self._handle.fileno()).st_size
        about = _read(self.beside)
        if not size and (about is not None or not self.beside.exists()):
            return
        if not size:
            raise RunError(
                f"{self.beside} is there, and predict did not write it; choose another file with -o"
            )
        if about is None:
            raise RunError(
                f"{self.path} is there, and no {self.beside.name} beside it says that predict wrote it; choose another "
                "file, or remove it"
            )
        if not resume:
            if about.get("finished"):
                return
            raise RunError(
                f"{self.path} holds the answers of a run that was stopped; go on with --resume, or remove it"
            )
        for key, other in _WHAT.items():
            if about.get(key) != getattr(self.job, key):
                raise RunError(
                    f"{self.path} has answers for {other} (made by {about.get('model')} for {about.get('pictures')} "
                    "pictures); choose another file"
                )
        if about.get("convarium") != __version__:
            raise RunError(
                f"the answers in {self.path} were computed by Convarium {about.get('convarium')}, and this is "
                f"{__version__}; finish with that version, or remove the file and start again"
            )
        self._about, self.engine = about, str(about.get("engine"))
        self.batch = int(about.get("batch", 1))
        if self.job.asked not in ("auto", about.get("asked"), self.engine):
            raise RunError(
                f"the answers in {self.path} were computed by {self.engine}; leave out --engine {self.job.asked}"
            )
        readable: list[bool] = []
        reader = _lines if self.job.format == "jsonl" else _rows
        expected = names()
        for path, good, end in reader(self._handle, self.path, self.job.guesses):
            if path != next(expected, None):
                raise RunError(
                    f"answer {len(readable) + 1:,} in {self.path} is for {path!r}, which was not asked there; it was "
                    "changed since, so choose another file"
                )
            readable.append(good)
            self._end = end
        self.done, self.unreadable = len(readable), readable.count(False)
        self.complete = self.done == self.job.pictures and self._end == size
        self._boundary = begun(readable, self.batch)

    def begin(self, engine: str, batch: int) -> int:
        """Say what is being made; the file changes with the first answer.

        Args:
            engine: way by which answers are made from here on.
            batch: pictures at once.

        Returns:
            How many pictures to skip: with the next one a batch begins, so that the bits are those of a run that was
            not stopped. Answers that are there already are not written again.
        """
        self._about = {"convarium": __version__, **asdict(self.job), "engine": engine, "batch": batch}
        self._again = self.done - self._boundary
        self._cleared = False
        return self._boundary

    def _clear(self) -> None:
        """Take off what is not whole; no sooner than something can be written, or a mistake would cost it."""
        if self._cleared:
            return
        self._cleared = True
        # Before it is said what is being made: other answers must never seem to be of it.
        self._handle.truncate(self._end)
        self._handle.seek(self._end)
        self._say(finished=False)
        if not self._end and self.job.format == "csv":
            self._handle.write(to_csv([HEADER]))

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Add the answers of one batch.

        Args:
            predictions: in order, from where `begin` said.
        """
        skipped = min(self._again, len(predictions))
        self._again -= skipped
        self._clear()
        new = predictions[skipped:]
        if self.job.format == "csv":
            text = to_csv(row for prediction in new for row in table(prediction))
        else:
            text = b"".join(json.dumps(one.to_dict()).encode() + b"\n" for one in new)
        self._handle.write(text)
        self._handle.flush()
        self.done += len(new)
        self.unreadable += sum(one.error is not None for one in new)

    def finish(self) -> None:
        """Say that all answers are there."""
        self._clear()
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._say(finished=True)

    def _say(self, finished: bool) -> None:
        text = json.dumps({**self._about, "finished": finished}, indent=1, ensure_ascii=False)
        storage.write_text(self.beside, text + "\n")

    def close(self) -> None:
        """Give the file free; one in which nothing was begun is as if it had not been made."""
        with suppress(OSError):
            if self._made and not self.beside.exists() and not os.fstat(self._handle.fileno()).st_size:
                self.path.unlink()
        self._handle.close()

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def table(prediction: Prediction) -> Iterator[tuple[object, ...]]:
    """The rows of one picture, as `HEADER` names them.

    Args:
        prediction: of the picture.
    """
    if prediction.error is not None:
        yield (prediction.path, "", "", "", "", "", prediction.error)
    doubt = int(prediction.unsure or prediction.strange)
    for rank, guess in enumerate(prediction, start=1):
        yield (prediction.path, rank, guess.name, guess.index, f"{guess.probability:.6f}", doubt, "")


def to_csv(rows: Iterable[Sequence[object]]) -> bytes:
    """Rows as CSV; names that are not valid UTF-8 are as they came from the file system.

    Args:
        rows: of cells.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _lines(handle: IO[bytes], path: Path, guesses: int) -> Iterator[tuple[str, bool, int]]:
    """Path, whether it could be read, and where it ends, of each whole answer."""
    end = 0
    for number, line in enumerate(handle, start=1):
        if not line.endswith(b"\n"):
            return
        end += len(line)
        try:
            told = json.loads(line)
            yield str(told["path"]), told["error"] is None, end
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"line {number:,} of {path} is no answer of predict; choose another file"
            ) from error


def _rows(handle: IO[bytes], path: Path, guesses: int) -> Iterator[tuple[str, bool, int]]:
    """Likewise from a CSV file, where an answer has as many rows as guesses."""
    end, record = 0, b""
    for number, line in enumerate(handle, start=1):
        record += line
        end += len(line)
        if not line.endswith(b"\n") or record.count(b'"') % 2:  # a name may hold the end of a line, in quotes
            continue
        try:
            cells = next(csv.reader([record.decode("utf-8", "surrogateescape")]), [])
        except csv.Error:
            cells = []
        if len(cells) != len(HEADER) or not line.endswith(b"\r\n"):
            raise RunError(f"line {number:,} of {path} is no answer of predict; choose another file")
        record = b""
        if cells[6] and not cells[1]:
            yield cells[0], False, end
        elif cells[1] == str(guesses):
            yield cells[0], True, end


def _read(path: Path) -> dict[str, Any] | None:
    try:
        told = json.loads(path.read_text("utf-8", "surrogateescape"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) and "pictures_sha256" in told else None


def _lock(handle: IO[bytes], path: Path) -> None:
    """Keep other processes from writing the file, until this one closes it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunError(f"another run is writing {path}; wait for it, or choose another file") from error
    except OSError:  # a file system without locks
        return
