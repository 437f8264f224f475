"""What a classifier answered, picture by picture: the file answers.csv of a run.

    picture            its key, as in split.csv
    sha256             of its content, or nothing
    truth              its class
    answer             the class it was said to be
    probability        that was given to the answer
    truth_probability  that was given to the truth

UTF-8; names that are not valid UTF-8 are kept as the file system gave them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convarium.errors import ArgumentError, RunError
from convarium.judge.metrics import checked
from convarium.storage import write_text

NAME = "answers.csv"
"""Of the file in a run's folder."""

COLUMNS = ("picture", "sha256", "truth", "answer", "probability", "truth_probability")


@dataclass(frozen=True)
class Answer:
    """What was said of one picture.

    Args:
        picture: its key.
        sha256: of its content, 64 hexadecimal digits; empty where it was not taken.
        truth: the name of its class.
        answer: the name of the class it was said to be.
        probability: given to the answer, 0 to 1.
        truth_probability: given to the truth.
    """

    picture: str
    sha256: str
    truth: str
    answer: str
    probability: float
    truth_probability: float

    @property
    def right(self) -> bool:
        """Whether the answer is the truth."""
        return self.truth == self.answer


def answers(
    keys: Sequence[str],
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    sha256: Sequence[str] | None = None,
) -> list[Answer]:
    """The answers that probabilities give.

    Args:
        keys: N, of the pictures.
        probabilities: (N, K), a row a picture, each row summing to 1.
        labels: (N,), the index of each picture's true class, 0 to K - 1.
        classes: the K names, in the order of the columns.
        sha256: N, of the pictures' contents, where they are known.

    Returns:
        N answers, in the order given; of equal probabilities the first class is said.

    Raises:
        ArgumentError: lengths differ, a label is out of range, or the rows are no probabilities.
    """
    p, truth = checked(np.asarray(probabilities), np.asarray(labels), len(classes))
    digests = [""] * len(keys) if sha256 is None else list(sha256)
    if not len(keys) == len(digests) == len(p):
        raise ArgumentError(
            f"{len(keys)} keys and {len(digests)} digests for {len(p)} pictures; give as many"
        )
    said = p.argmax(axis=1)
    return [
        Answer(key, digest, str(classes[t]), str(classes[s]), float(row[s]), float(row[t]))
        for key, digest, row, s, t in zip(keys, digests, p, said, truth, strict=True)
    ]


def write_answers(path: Path, rows: Iterable[Answer]) -> None:
    """Write answers as CSV, in one step.

    Args:
        path: the file to make or replace.
        rows: in the order to be kept.

    Raises:
        RunError: it cannot be written.
    """
    text = io.StringIO(newline="")
    lines = csv.writer(text)
    lines.writerow(COLUMNS)
    for row in rows:
        lines.writerow([getattr(row, column) for column in COLUMNS])
    write_text(path, text.getvalue())


def read_answers(path: Path) -> list[Answer]:
    """Read what `write_answers` wrote.

    Args:
        path: the file; further columns are passed over.

    Returns:
        The answers in their order.

    Raises:
        RunError: there is no such file, or it is damaged, with the line.
    """
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    except OSError as error:
        raise RunError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: list[Answer] = []
    seen: set[str] = set()
    try:
        head = next(lines, [])
        missing = [column for column in COLUMNS if column not in head]
        if missing:
            raise ValueError(f"its first line lacks the columns {', '.join(missing)}")
        places = [head.index(column) for column in COLUMNS]
        for line in lines:
            if len(line) != len(head):
                raise ValueError(f"{len(line)} fields for {len(head)} columns")
            picture, digest, truth, answer, own, of_truth = (line[place] for place in places)
            if picture in seen:
                raise ValueError(f"the picture {picture!r} comes twice")
            seen.add(picture)
            found.append(Answer(picture, digest, truth, answer, float(own), float(of_truth)))
    except (ValueError, csv.Error) as error:
        raise RunError(f"{path} is damaged at line {lines.line_num}: {error}; judge the run again") from error
    if not found:
        raise RunError(f"{path} holds no answers; judge the run again")
    return found
