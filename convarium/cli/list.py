"""convarium list: the networks that can be built."""

from __future__ import annotations

import fnmatch
import json
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from convarium.models.registry import Variant

# What rows are sorted by, and whether the greatest comes first; rows without a value come last.
_ORDERS = {"name": False, "year": False, "parameters": False, "macs": False, "top1": True}


def run(
    pattern: str = typer.Argument(
        "*", help="Shell-style pattern, as 'resnet*', 'timm:*clip*', 'torchvision:*'."
    ),
    family: str = typer.Option(None, help="Of this family only, as vgg."),
    year: str = typer.Option(None, help="Of this year of the paper, as 2015, or of these, as 2014-2016."),
    weights: bool = typer.Option(
        False,
        "--weights",
        help="Only those with published weights, and how many sets there are; with a pattern, their names too.",
    ),
    sort: str = typer.Option(
        None, help="name, year, parameters, macs or top1 (best first); in the order of history by default."
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a line."),
) -> None:
    """List networks with family, year, parameters and multiply-accumulates, in the order of history."""
    from convarium.errors import ArgumentError, unknown_name
    from convarium.models import names, variant

    if sort is not None and sort not in _ORDERS:
        raise ArgumentError(f"--sort {sort}; it must be one of {', '.join(_ORDERS)}")
    first, last = _years(year)
    if pattern.partition(":")[0].lower() in ("timm", "torchvision") and ":" in pattern:
        if family or year or sort not in (None, "name"):
            raise ArgumentError("--family, --year and --sort are for the networks of Convarium itself")
        _foreign(pattern.lower(), weights, as_json, sort)
        return
    found = names(pattern)
    if not found:
        raise unknown_name("network", pattern, names(), "(`convarium list` shows all)")
    families = list(dict.fromkeys(variant(name).family for name in names()))
    if family is not None and family.lower() not in families:
        raise unknown_name("family", family, families)
    rows = [
        row
        for row in map(variant, found)
        if (family is None or row.family == family.lower()) and first <= row.year <= last
    ]
    if sort:
        rows = _sorted(rows, sort)
    sets = _published([row.name for row in rows]) if weights else {}
    if weights:
        rows = [row for row in rows if sets[row.name]]
    if not rows:
        print("no network is all of this", file=sys.stderr)
    elif as_json:
        for row in rows:
            print(json.dumps(_fields(row) | ({"weights": sets[row.name]} if weights else {})))
    else:
        _table(rows, sets, named=pattern != "*")
    _note_unknown(rows, sort)


def _note_unknown(rows: list[Variant], sort: str | None) -> None:
    """What the order leaves open, on standard error."""
    if sort not in ("macs", "top1"):
        return
    unknown = sum(getattr(row, sort) is None for row in rows)
    if unknown:
        figure = "MACs" if sort == "macs" else "top-1"
        counts = "; `convarium cost NAME` counts them" if sort == "macs" else ""
        print(
            f"sorted by the published {figure}: the last {unknown} of {len(rows)} have none{counts}",
            file=sys.stderr,
        )


def _fields(row: Variant) -> dict[str, Any]:
    return {
        "name": row.name,
        "family": row.family,
        "year": row.year,
        "parameters": row.parameters,
        "macs": row.macs,
        "size": row.size,
        "channels": row.in_channels,
        "classes": row.classes,
        "top1": row.top1,
        "source": row.source,
        "reference": row.reference,
        "paper": row.paper,
    }


def _table(rows: list[Variant], sets: dict[str, list[str]], named: bool) -> None:
    width = max(len(row.name) for row in rows)
    asked = "  weights" if sets else ""
    print(
        f"{'name':<{width}}  {'family':<12}  year  {'parameters':>13}  {'MACs / M':>9}  input  {'top-1 %':>7}{asked}"
    )
    for row in rows:
        top1 = "" if row.top1 is None else f"{row.top1:.2f}"
        macs = "" if row.macs is None else f"{row.macs / 1e6:,.1f}"
        print(
            f"{row.name:<{width}}  {row.family:<12}  {row.year}  {row.parameters:>13,}  {macs:>9}  "
            f"{row.size:>5}  {top1:>7}" + (f"  {len(sets[row.name]):>7}" if sets else "")
        )
        if named:
            _references(sets.get(row.name, []))
    if any(row.top1 is not None for row in rows):
        print("top-1 and MACs as published; `convarium show NAME` gives the source")
    if sets:
        print("`convarium weights NAME` tells accuracy, input and licence of each set of weights")


def _foreign(pattern: str, weights: bool, as_json: bool, sort: str | None) -> None:
    """Names of another library's networks; what more there is to know would cost building each."""
    from convarium.errors import unknown_name
    from convarium.models import foreign

    library = pattern.partition(":")[0]
    known = foreign.names(library)
    found = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise unknown_name("network", pattern, known, f"(`convarium list '{library}:*'` shows all)")
    found = sorted(found) if sort else found
    sets = _published(found) if weights else {}
    for name in found:
        if weights and not sets[name]:
            continue
        if as_json:
            print(
                json.dumps({"name": name, "family": library, **({"weights": sets[name]} if weights else {})})
            )
        else:
            print(name)
            _references(sets.get(name, []))


def _references(found: list[str]) -> None:
    for reference in found:
        print(f"    {reference}")


def _published(names: list[str]) -> dict[str, list[str]]:
    """References of the published weights by name; imports the publishers' libraries."""
    from convarium.models.published import available

    return {name: [found.reference for found in available(name)] for name in names}


def _years(text: str | None) -> tuple[int, int]:
    """2015 or 2014-2016 to the first and the last year."""
    from convarium.errors import ArgumentError

    if text is None:
        return 0, 9999
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(first) > int(last)):
        raise ArgumentError(f"--year {text}; it must be a year, as 2015, or two, as 2014-2016")
    return int(first), int(last if dash else first)


def _sorted(rows: list[Variant], by: str) -> list[Variant]:
    """By one field; equal ones stay in the order of history."""
    known = [row for row in rows if getattr(row, by) is not None]
    unknown = [row for row in rows if getattr(row, by) is None]
    return sorted(known, key=lambda row: getattr(row, by), reverse=_ORDERS[by]) + unknown
