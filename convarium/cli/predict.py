"""convarium predict: what is on some pictures."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from convarium.answering import Answering, Prediction, Source
    from convarium.cli.answer_file import AnswerFile, Job

UNREADABLE = 3  # exit status when a picture could not be read


def run(
    model: str = typer.Argument(
        help="The .safetensors file of a classifier, the folder of a run, or that of an export."
    ),
    pictures: list[str] = typer.Argument(
        help="Files, folders, patterns in quotes; - reads one picture, or names one a line, from standard input."
    ),
    top: int = typer.Option(5, help="Guesses a picture.", min=1),
    mirror: bool = typer.Option(
        False, "--mirror", help="Look at each picture mirrored, too, and average; twice the time."
    ),
    engine: str = typer.Option(
        "auto",
        help="How to compute: auto, the fastest way that agrees; exact, of float32 ways; plain; or a way's name.",
    ),
    out: Path | None = typer.Option(
        None, "-o", "--out", help="A file for the answers: CSV where it ends in .csv, otherwise JSON lines."
    ),
    resume: bool = typer.Option(
        False, "--resume", help="Keep the answers that are in the file given by -o, and go on."
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a picture."),
    as_csv: bool = typer.Option(False, "--csv", help="A CSV table, one line a guess."),
) -> None:
    """Say what is on pictures, in the order asked; exit status 3 when any could not be read."""
    from convarium.cli.answer_file import AnswerFile
    from convarium.costs.allocator import keep_freed_memory
    from convarium.deploy import quick
    from convarium.errors import ArgumentError

    if as_json and as_csv:
        raise ArgumentError("--json and --csv were both given; choose one")
    if resume and out is None:
        raise ArgumentError("--resume goes on with a file of answers; name it with -o")
    keep_freed_memory()
    told = quick.described(Path(model))
    if told is None:
        _refuse(model)
    sources = _sources(pictures, told is not None and told["preprocessing"].get("mode") == "F")
    if out is None:
        failed = _answered(
            _answering(model, engine, sources), sources, top, mirror, _printer(as_json, as_csv)
        )
    else:
        kind = "csv" if as_csv or (out.suffix.lower() == ".csv" and not as_json) else "jsonl"
        job = _job(Path(model), sources, kind, top, len(told["classes"]) if told else top, mirror, engine)
        with AnswerFile(out, job, lambda: map(_named, sources), resume) as file:
            if not file.complete:
                clf = _going_on(model, engine, sources, file)
                _answered(clf, sources, top, mirror, file.write, file)
            file.finish()
            bad = f", of which {file.unreadable:,} could not be read" if file.unreadable else ""
            print(f"{out}: {file.done:,} pictures{bad}", file=sys.stderr)
            failed = file.unreadable > 0
    if failed:
        raise typer.Exit(UNREADABLE)


def _answered(
    clf: Answering,
    sources: Sequence[Source],
    top: int,
    mirror: bool,
    show: Callable[[Sequence[Prediction]], None],
    file: AnswerFile | None = None,
) -> bool:
    """Answer for all pictures, batch by batch; whether one of them could not be read."""
    from convarium.errors import Interrupted
    from convarium.training import signals

    clf.mirror = mirror
    done = file.begin(clf.way, clf.batch) if file else 0
    failed = False
    try:
        with signals.listening() as stop:
            for some in clf.in_batches(itertools.islice(sources, done, None), top):
                show(some)
                done += len(some)
                failed = failed or any(one.error is not None for one in some)
                if done < len(sources):
                    stop.check("")
    except (Interrupted, KeyboardInterrupt) as error:
        done = file.done if file else done
        words = f"stopped after {done:,} of {len(sources):,} pictures"
        if file:
            words += f"; their answers are in {file.path}, and the same command with --resume goes on"
        raise Interrupted(words, getattr(error, "signal", signal.SIGINT)) from None
    return failed


def _answering(model: str, engine: str, sources: Sequence[Source]) -> Answering:
    """What answers: without torch where a way is remembered that needs none, and otherwise the classifier."""
    from convarium.deploy import quick

    found = quick.open(model, engine, len(sources))
    if found is not None:
        return found
    from convarium.classifier import load

    clf = load(model)
    for note in clf.hasten(sources, engine, Path(model)):
        print(f"note: {note}", file=sys.stderr)
    return clf


def _going_on(model: str, engine: str, sources: Sequence[Source], file: AnswerFile) -> Answering:
    """What answers by the same way as the answers that are in the file."""
    from convarium.errors import ArgumentError, MissingExtra, RunError

    try:
        return _answering(model, file.engine or engine, sources)
    except (ArgumentError, MissingExtra) as error:
        if file.engine is None:
            raise
        reason = str(error).split(";")[0]
        raise RunError(
            f"the answers in {file.path} were computed by {file.engine}, and the rest cannot be ({reason}); mend that, "
            "or remove the file and start again"
        ) from error


def _refuse(model: str) -> None:
    """Say what is wrong with what is no classifier."""
    from convarium.classifier import load

    load(model)


def _job(
    model: Path, sources: Sequence[Source], kind: str, top: int, classes: int, mirror: bool, engine: str
) -> Job:
    """What is asked for, as it is written beside a file of answers."""
    from convarium import storage
    from convarium.cli.answer_file import Job
    from convarium.deploy import quick

    digests = [storage.sha256(file) for file in quick.files(model)]
    names = hashlib.sha256()
    for source in sources:
        pixels = b"" if isinstance(source, str) else source.tobytes()  # type: ignore[union-attr]
        names.update(os.fsencode(_named(source)) + b"\0" + pixels)
    return Job(
        model=str(model),
        model_sha256=digests[0]
        if len(digests) == 1
        else hashlib.sha256("".join(digests).encode()).hexdigest(),
        pictures=len(sources),
        pictures_sha256=names.hexdigest(),
        format=kind,
        top=top,
        guesses=min(top, classes),
        mirror=mirror,
        asked=engine,
    )


def _named(source: Source) -> str:
    return source if isinstance(source, str) else ""


def _printer(as_json: bool, as_csv: bool) -> Callable[[Sequence[Prediction]], None]:
    """What writes answers to standard output, a batch at once."""
    if as_csv:
        from convarium.cli.answer_file import HEADER, table

        writer = csv.writer(sys.stdout)
        writer.writerow(HEADER)

    def show(predictions: Sequence[Prediction]) -> None:
        if as_csv:
            writer.writerows(row for one in predictions for row in table(one))
        else:
            lines = (json.dumps(one.to_dict()) if as_json else _sentence(one) for one in predictions)
            sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()

    return show


def _sentence(prediction: Prediction) -> str:
    name = prediction.path or "-"
    if prediction.error is not None:
        return f"{name}: cannot be read: {prediction.error}"
    said = ", ".join(f"{guess.name} {guess.probability:.1%}" for guess in prediction)
    doubt = prediction.unsure or prediction.strange
    return f"{name}: {said}{'  (unsure: perhaps none of these)' if doubt else ''}"


def _sources(asked: list[str], deep: bool) -> list[Source]:
    """Everything asked for, in its order, before any of it is answered; standard input in its place.

    Names are kept as text: a million paths would take five times as much.
    """
    from convarium.data.folders import list_pictures
    from convarium.errors import ArgumentError

    found: list[Source] = []
    for item in asked:
        if not item:
            raise ArgumentError("a name of a picture is empty; name a file, a folder or a pattern")
        if item == "-" and deep:
            raise ArgumentError(
                "a picture on standard input is read in 8 bits, and this model takes more; give it as a file"
            )
        found.extend(_standard_input() if item == "-" else map(os.fspath, list_pictures([item], deep)))
    return found


def _standard_input() -> list[Source]:
    """The picture, or the pictures that are named there, one a line or ended by NUL."""
    from convarium.data.decode import decode
    from convarium.errors import DataError, PictureError

    content = sys.stdin.buffer.read()
    if not content.strip():
        raise DataError(
            "nothing came on standard input; it must be one picture, or names of pictures, one a line"
        )
    try:
        return [decode(content)]
    except PictureError as error:
        by_nul = content.rstrip(b"\n").endswith(b"\0")
        if by_nul:  # as `find -print0` writes them: a name may then hold the end of a line
            names, odd = content.rstrip(b"\n").split(b"\0"), rb"[\x01-\x08\x0b\x0c\x0e-\x1f]"
        else:
            names, odd = [line.strip(b"\r") for line in content.split(b"\n")], rb"[\x00-\x1f]"
        if any(re.search(odd, name) for name in names):
            raise DataError(
                f"what came on standard input is neither a picture ({error}) nor names of pictures"
            ) from error
        return [str(Path(os.fsdecode(name))) for name in names if name]
