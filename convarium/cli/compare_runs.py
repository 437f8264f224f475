"""convarium compare-runs: is one of two trained classifiers better, or is it chance?"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import typer


def run(
    first: Path = typer.Argument(metavar="A", help="Folder of a finished run, or its answers.csv."),
    second: Path = typer.Argument(metavar="B", help="Folder of another, or its answers.csv."),
    common: bool = typer.Option(
        False, "--common", help="Compare on the pictures that both were judged on, where each has others too."
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Compare two runs on the same held-out pictures: paired test, interval of the difference, a sentence."""
    from convarium.judge.answers import read_answers
    from convarium.judge.versus import compare_runs

    files = answers_file(first), answers_file(second)
    answers = read_answers(files[0]), read_answers(files[1])
    found = compare_runs(*answers, _names(first, second), common=common)
    notes = list(found.notes)
    if files[0].resolve() == files[1].resolve():
        notes.append("Both are the same file.")
    if as_json:
        print(json.dumps({**found.to_dict(), "files": [str(file) for file in files], "notes": notes}))
        return
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    a, b = found.names
    width = max(len(a), len(b))
    paired = found.paired
    both = found.first.correct - paired.only_first
    print(f"{a:<{width}}  {found.first}")
    print(f"{b:<{width}}  {found.second}")
    print()
    print(f"both right  {both:,}")
    print(f"only {a}  {paired.only_first:,}")
    print(f"only {b}  {paired.only_second:,}")
    print(f"neither     {paired.count - both - paired.only_first - paired.only_second:,}")
    print()
    print(found.sentence)


def answers_file(path: Path) -> Path:
    """The file of answers that a path means.

    Raises:
        RunError: there is none, with the reason.
    """
    from convarium.errors import RunError
    from convarium.judge.answers import NAME

    if path.is_file():
        return path
    if not path.is_dir():
        raise RunError(f"there is no file or folder {path}; give the folder of a finished run, or its {NAME}")
    file = path / NAME
    if file.is_file():
        return file
    if not (path / "config.toml").is_file():
        raise RunError(f"{path} is no run: it has neither {NAME} nor config.toml")
    if not (path / "evaluation.json").is_file():
        again = f"convarium resume {shlex.quote(str(path))}"
        raise RunError(f"the run {path} is not finished; finish it with: {again}")
    raise RunError(f"the run {path} has no {NAME}: it was judged before answers were kept; train it again")


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Short names where they differ, else the paths as they were given."""

    def short(path: Path) -> str:
        whole = path.resolve()
        return (
            whole.name if whole.is_dir() else whole.parent.name if whole.name == "answers.csv" else whole.stem
        )

    a, b = short(first), short(second)
    if a != b:
        return a, b
    return (str(first), str(second)) if first != second else ("A", "B")
