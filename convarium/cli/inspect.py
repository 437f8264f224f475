"""convarium inspect: a data set looked through before anything is trained on it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from convarium.data.inspection import Inspection

CLASSES = 40
"""Classes that the table shows; of more, the smallest and the largest ones."""

NAMES = 5
"""Pictures that are named with a finding; the page and --json name more."""

DAMAGED = 20
"""Damaged files that are listed; the page and --json list all."""


def run(
    data: Path = typer.Argument(
        help="Folder of class folders (with or without train/ and val/), CSV file, MNIST folder."
    ),
    html: Path = typer.Option(
        None, help="The page with pictures; inspect.html in this folder by default, none with --json."
    ),
    no_html: bool = typer.Option(False, "--no-html", help="Write no page."),
    threads: int = typer.Option(None, help="Threads that decode; one a processor by default.", min=1),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Look a data set through: every pixel, classes, duplicates, leaks, strays; changes nothing."""
    from convarium.data.inspection import inspect_data

    page = _place(data, html, no_html or (as_json and html is None))
    with looking("looking at pictures") as progress:
        seen = inspect_data(data, threads, progress)
    if page is not None:
        from convarium.judge.inspection_page import render
        from convarium.storage import write_text

        write_text(page, render(seen))
    if as_json:
        print(json.dumps({**seen.to_dict(), "html": str(page) if page else None}))
    else:
        tell(seen)
        if page is not None:
            print(f"\npage  {page}")
    if not seen.usable:
        raise typer.Exit(2)


def tell(seen: Inspection) -> None:
    """Print an inspection: the counts, what the files are, then the verdict."""
    from convarium.data.pictures import counted

    classes = [name for name in seen.counts if name]
    of = f" of {counted(len(classes), 'class')}" if classes else ""
    print(f"{seen.root}: {counted(len(seen.entries), 'picture')}{of}, {seen.bytes / 1e6:,.1f} MB")
    if classes:
        print()
        table(seen.counts)
    print()
    for what, text in facts(seen):
        print(f"{what:<9} {text}")
    if seen.damaged:
        print(f"\ndamaged ({len(seen.damaged):,})")
        for index, reason in list(seen.damaged.items())[:DAMAGED]:
            print(f"  {seen.entries[index].key}: {reason}")
        if len(seen.damaged) > DAMAGED:
            print(f"  and {len(seen.damaged) - DAMAGED:,} more; --json lists all")
    print(f"\nverdict: {seen.verdict}")
    before = ""
    for finding in seen.findings:
        mark = {"stop": "stop", "warning": "warn", "note": "note"}[finding.weight]
        print(f"  {mark}  {finding.text}")
        if (
            finding.pictures
            and finding.weight != "note"
            and not finding.code.startswith(("damaged", "stray"))
        ):
            more = f", ... (first {NAMES})" if len(finding.pictures) > NAMES else ""
            print(f"        {', '.join(finding.pictures[:NAMES])}{more}")
        if finding.advice and finding.advice != before:
            print(f"        -> {finding.advice}")
        before = finding.advice


def facts(seen: Inspection) -> list[tuple[str, str]]:
    """What the files are, as (what, text) in the order shown."""
    census = seen.census
    rows = [
        ("formats", _counts(census.formats)),
        ("modes", _counts(census.modes)),
        ("bits", _counts(census.bits) if set(census.bits) - {8} else ""),
        ("EXIF turn", _counts(census.orientations)),
    ]
    if census.sizes:
        if len(census.sides) == 1:
            rows.append(("size", f"{next(iter(census.sides))}, all of them"))
        else:
            rows += [
                (what, "{:,.0f} to {:,.0f} pixels, median {:,.0f}".format(low, high, middle))  # noqa: UP032
                for what, (low, middle, high) in list(census.sizes.items())[:2]
            ]
            low, middle, high = census.sizes["aspect"]
            rows.append(("aspect", f"{low:.3g} to {high:.4g}, median {middle:.3g} (longer by shorter side)"))
    if seen.imbalance is not None and len(seen.counts) > 1:
        where = "" if seen.ruling == "all" else f", in {seen.ruling}"
        rows.append(("balance", f"largest class {seen.imbalance:.3g} times the smallest{where}"))
    return [(what, text) for what, text in rows if text]


@contextmanager
def looking(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal, nothing in a pipe; the TIFF library's remarks on broken files are held back.

    Args:
        what: name of the phase.

    Yields:
        A function of (done, total), or None.
    """
    sys.stderr.flush()
    try:
        screen = os.dup(2)
    except OSError:  # no standard error at all
        yield None
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        with open(screen, "w", encoding=sys.stderr.encoding, closefd=False) as stream:  # noqa: PTH123
            if not stream.isatty():
                yield None
                return
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            console = Console(file=stream, highlight=False)
            with Progress(*columns, console=console, transient=True) as bar:
                task = bar.add_task(what, total=None)
                yield lambda done, total: bar.update(task, completed=done, total=total)
    finally:
        os.dup2(screen, 2)
        os.close(screen)


def _place(data: Path, html: Path | None, none: bool) -> Path | None:
    """Where the page goes; never into the data, where it would be a stray file."""
    from convarium.errors import ArgumentError

    if none:
        if html is not None:
            raise ArgumentError("--html and --no-html exclude each other; give one of them")
        return None
    page = html or Path("inspect.html")
    inside = data.is_dir() and page.absolute().parent.resolve().is_relative_to(data.resolve())
    if inside and html is None:
        print(
            "note: no page, because this folder belongs to the data; --html FILE puts it elsewhere",
            file=sys.stderr,
        )
        return None
    if inside:
        raise ArgumentError(
            f"--html {html} lies in the data, which is never written to; give a place outside of {data}"
        )
    if page.is_dir():
        raise ArgumentError(f"--html {html} is a folder; give the name of a file, as {page / 'inspect.html'}")
    if not page.absolute().parent.is_dir():
        raise ArgumentError(f"--html {html}: there is no folder {page.parent}; make it first")
    return page


def table(counts: dict[str, dict[str, int]]) -> None:
    """Print class to part to number of pictures, with a line for all; of very many classes, the ends."""
    from rich.cells import cell_len  # Chinese letters are two columns wide

    parts = list(next(iter(counts.values())))
    numbers = [(name, list(row.values())) for name, row in counts.items() if name]
    total = [sum(row[part] for row in counts.values()) for part in parts]
    if len(numbers) > CLASSES:
        print(f"the {CLASSES // 2} largest and the {CLASSES // 2} smallest of {len(numbers):,} classes")
        ranked = sorted(numbers, key=lambda row: -row[1][0])
        numbers = ranked[: CLASSES // 2] + ranked[-CLASSES // 2 :]
    heads = ["pictures" if part == "all" else part for part in parts]
    rows = [
        ("class", heads),
        *((name, [f"{n:,}" for n in row]) for name, row in [*numbers, ("in all", total)]),
    ]
    width = max(cell_len(name) for name, _ in rows)
    columns = [max(map(len, cells)) for cells in zip(*(row for _, row in rows), strict=True)]
    for name, row in rows:
        cells = "  ".join(cell.rjust(wide) for cell, wide in zip(row, columns, strict=True))
        print(f"{name}{' ' * (width - cell_len(name))}  {cells}")


def _counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{what}{':' * isinstance(what, int)} {count:,}" for what, count in counts.items())
