"""convarium doctor: what a file of weights is, and what it fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

_SHOWN = 20  # problems of one network


def run(
    file: Path = typer.Argument(help="A file of weights of any origin."),
    model: str = typer.Option(None, help="Compare with this network only, as resnet18 or timm:resnet10t."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Say what a file of weights is, which networks it fits and what keeps it from fitting; nothing in it is run.

    Exit status 0 where it fits a network completely, else 2.
    """
    from convarium.models.doctor import examine

    found = examine(file, model)
    if as_json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
        raise typer.Exit(0 if found.usable else 2)
    print(f"{found.path}: {found.kind}, {found.bytes:,} bytes")
    if found.problem:
        print(f"cannot be used: {found.problem}")
        raise typer.Exit(2)
    types = ", ".join(f"{count} {name}" for name, count in found.dtypes.items())
    print(f"{found.tensors:,} tensors ({types}), {found.parameters:,} parameters")
    if found.description:
        told = found.description
        print(f"it describes itself: {told.get('architecture', {}).get('name')}, {_origin(told)}")
        print(f"classes: {', '.join(map(str, told.get('classes', ())))}")
    for line in [found.norms, *found.notes]:
        if line:
            print(line)
    if not found.fits:
        print("none of the networks here is near it; `convarium doctor FILE --model NAME` compares with one")
    for fit in found.fits:
        source = "our own names" if fit.publisher == "convarium" else f"names of {fit.publisher}"
        given = ", ".join(f"{key}={value!r}" for key, value in fit.arguments.items())
        if not fit.problems:
            print(f"fits {fit.name} ({given}), {source}: create({fit.name!r}, weights=FILE, {given})")
            for option, (own, *others) in fit.unseen.items():
                values = " or ".join(map(repr, others))
                print(
                    f"  the file cannot tell {option}: {own!r} is this network's, {values} takes the same tensors and "
                    f"computes something else; whoever trained it knows (add {option}={others[0]!r})"
                )
            continue
        print(f"near {fit.name} ({given}), {source}: {len(fit.problems)} of {fit.tensors} tensors do not fit")
        for line in fit.problems[:_SHOWN]:
            print(f"  {line}")
        if len(fit.problems) > _SHOWN:
            print(f"  ... and {len(fit.problems) - _SHOWN} more; --json has all")
    raise typer.Exit(0 if found.usable else 2)


def _origin(told: dict[str, Any]) -> str:
    """Who trained the weights, as far as the file tells it."""
    origin = told.get("origin")
    if not isinstance(origin, dict):
        return "written by Convarium"
    licence = f" ({origin['licence']})" if origin.get("licence") else ""
    return f"packed by Convarium from {origin.get('weights', 'foreign weights')}{licence}"
