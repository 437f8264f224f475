"""convarium predict: what is on some pictures."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from convarium.cli import asked
from convarium.cli.columns import shown

if TYPE_CHECKING:
    from convarium.answering import Answering, Prediction
    from convarium.cli.answer_file import AnswerFile, Job
    from convarium.data.ahead import Source


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
    from convarium.errors import ArgumentError

    if as_json and as_csv:
        raise ArgumentError("--json and --csv were both given; choose one")
    if resume and out is None:
        raise ArgumentError("--resume goes on with a file of answers; name it with -o")
    keep_freed_memory()
    told = asked.told_by(model)
    sources = asked.sources(pictures, told["preprocessing"].get("mode") == "F")
    if out is None:
        failed = _answered(
            asked.answering(model, engine, sources), sources, top, mirror, _printer(as_json, as_csv)
        )
    else:
        kind = "csv" if as_csv or (out.suffix.lower() == ".csv" and not as_json) else "jsonl"
        job = _job(Path(model), sources, kind, top, len(told["classes"]), mirror, engine)
        with AnswerFile(out, job, lambda: map(asked.named, sources), resume) as file:
            if not file.complete:
                clf = _going_on(model, engine, sources, file)
                _answered(clf, sources, top, mirror, file.write, file)
            file.finish()
            bad = f", of which {file.unreadable:,} could not be read" if file.unreadable else ""
            print(f"{out}: {file.done:,} pictures{bad}", file=sys.stderr)
            failed = file.unreadable > 0
    if failed:
        raise typer.Exit(asked.UNREADABLE)


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


def _going_on(model: str, engine: str, sources: Sequence[Source], file: AnswerFile) -> Answering:
    """What answers by the same way as the answers that are in the file."""
    from convarium.errors import ArgumentError, MissingExtra, RunError

    try:
        clf = asked.answering(model, file.engine or engine, sources, file.batch)
    except (ArgumentError, MissingExtra) as error:
        if file.engine is None:
            raise
        reason = str(error).split(";")[0]
        raise RunError(
            f"the answers in {file.path} were computed by {file.engine}, and the rest cannot be ({reason}); mend that, "
            "or remove the file and start again"
        ) from error
    if file.batch not in (None, clf.batch):
        raise RunError(
            f"the answers in {file.path} were computed {file.batch} at once, and now it would be {clf.batch}, with "
            "other last digits; remove the file and start again"
        )
    return clf


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
        names.update(os.fsencode(asked.named(source)) + b"\0" + pixels)
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
    name = shown(prediction.path) or "-"
    if prediction.error is not None:
        return f"{name}: cannot be read: {prediction.error}"
    said = ", ".join(f"{shown(guess.name)} {guess.probability:.1%}" for guess in prediction)
    doubt = prediction.unsure or prediction.strange
    return f"{name}: {said}{'  (unsure: perhaps none of these)' if doubt else ''}"
