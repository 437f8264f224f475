"""convarium evaluate: how good a classifier is on pictures whose class is known."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from convarium.cli.columns import shown


def run(
    model: str = typer.Argument(
        help="The .safetensors file of a classifier, or the folder of a run or of an export."
    ),
    data: str = typer.Argument(help="Folder of class folders, CSV file, or MNIST folder."),
    part: str = typer.Option(None, help="train, val, test or all; by default test, else val, else all."),
    mirror: bool = typer.Option(
        False, "--mirror", help="Look at each picture mirrored, too, and average; twice the time."
    ),
    engine: str = typer.Option(
        "auto",
        help="How the network is run: auto, the fastest way that agrees where that pays; plain; exact, float32 only; "
        "or the name of a way, as `convarium engines` shows them.",
    ),
    answers: Path = typer.Option(
        None, help="Write each picture's answer to this CSV file, for compare-runs."
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Measure top-1, top-5, each class and confusions, with 95 % intervals."""
    import sys

    from convarium import storage
    from convarium.costs.allocator import keep_freed_memory
    from convarium.deploy import quick
    from convarium.evaluation import evaluate

    keep_freed_memory()
    if answers:
        storage.must_be_writable(answers)
    judged = evaluate(model, data, part, mirror=mirror, engine=engine)
    if answers:
        judged.write_answers(answers)
    for note in judged.notes:
        print(f"note: {note}", file=sys.stderr)
    for key, reason in judged.scored.damaged:
        print(f"left out: {shown(key)}: {reason}", file=sys.stderr)
    if as_json:
        print(json.dumps(judged.to_dict()))
        return
    print(f"top-1  {judged.top1}")
    if judged.top5:
        print(f"top-5  {judged.top5}")
    print(f"loss   {judged.loss:.4f} nats")
    print(f"calibration error {judged.reliability.ece:.1%}")
    if judged.way != "plain":
        exported = quick.described(Path(model)) if Path(model).is_dir() else None
        own = "" if exported and "convarium_export" in exported else ", which agrees with plain float32"
        print(f"run by {judged.way}{own}")
    if judged.relied_on:
        coverage, risk = judged.relied_on
        print(f"above the classifier's threshold: {coverage:.1%} of the pictures, {risk:.1%} of them wrong")
    print()
    names = [shown(score.name) for score in judged.classes]
    width = max(5, *map(len, names))
    print(f"{'class':<{width}}  precision  recall      f1   count")
    for name, score in zip(names, judged.classes, strict=True):
        parts = (_percent(score.precision, 9), _percent(score.recall, 6), _percent(score.f1, 6))
        print(f"{name:<{width}}  {'  '.join(parts)}  {score.count:>6,}")
    mixed = [
        (count, truth, said)
        for truth, row in enumerate(judged.confusion)
        for said, count in enumerate(row)
        if truth != said and count
    ]
    if mixed:
        print()
        print("taken for another most often")
        for count, truth, said in sorted(mixed, key=lambda m: -m[0])[:10]:
            print(f"{count:>6,}  {names[truth]} said to be {names[said]}")


def _percent(value: float | None, width: int) -> str:
    return ("-" if value is None else f"{value:.1%}").rjust(width)
