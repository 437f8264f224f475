"""convarium split: a division of pictures into parts, as a file that every verb reads."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from convarium.data.pictures import Data, PictureSet

CHAIN = 0.05
"""Pictures that are alike in a chain stay together, unless there are more of them than this share of all."""


def run(
    data: Path = typer.Argument(help="Folder of class folders, or CSV file."),
    val: float = typer.Option(0.2, help="Share of every class for validation."),
    test: float = typer.Option(0.0, help="Share of every class for the test."),
    by_group: str = typer.Option(
        None,
        metavar="REGEX",
        help="Pictures that it finds the same text in (its first group) stay together, as a patient or a film.",
    ),
    seed: int = typer.Option(0, help="Of the draw."),
    anew: bool = typer.Option(False, "--anew", help="Pool the parts that there are and divide them again."),
    out: Path = typer.Option(Path("split.csv"), "--out", "-o", help="The file to make."),
    force: bool = typer.Option(False, "--force", help="Replace the file where it exists."),
    threads: int = typer.Option(None, help="Threads that decode; one a processor by default.", min=1),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Divide pictures by class, groups and copies kept in one part, into a file for `convarium train`."""
    from convarium.cli.inspect import looking
    from convarium.data.folders import read_data
    from convarium.data.grouped import divide
    from convarium.data.splits import write_split

    _check_out(out, force)
    found = read_data(data)
    shares = {part: share for part, share in (("val", val), ("test", test)) if share}
    pool, fixed = _pool(found, list(shares), anew)
    with looking("looking at pictures") as progress:
        good, damaged, together, notes, kept = _together(pool, fixed, by_group, threads, progress)
    parts, more = divide(good, shares, seed, together)
    parts = {**parts, **fixed}
    write_split(out, parts, relative=True)
    notes = [*found.notes, *notes, *more]
    if as_json:
        told: dict[str, Any] = {
            "file": str(out),
            "seed": seed,
            "parts": {part: len(held) for part, held in parts.items()},
            "classes": {
                name: {part: held.counts[index] for part, held in parts.items()}
                for index, name in enumerate(found.classes)
            },
            "kept_together": kept,
            "damaged": [{"picture": key, "reason": reason} for key, reason in damaged],
            "notes": notes,
        }
        print(json.dumps(told))
        return
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    for key, reason in damaged:
        print(f"left out: {key}: {reason}", file=sys.stderr)
    _tell(parts, found.classes, kept)
    print(f"\nsplit  {out}")


def _check_out(out: Path, force: bool) -> None:
    from convarium.errors import ArgumentError

    if out.is_dir():
        raise ArgumentError(f"--out {out} is a folder; give the name of a file, as {out / 'split.csv'}")
    if out.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise ArgumentError(f"--out {out} must end in .csv")
    if out.exists() and not force:
        raise ArgumentError(f"{out} exists; --force replaces it, -o gives another name")
    if not out.absolute().parent.is_dir():
        raise ArgumentError(f"--out {out}: there is no folder {out.parent}; make it first")


def _pool(found: Data, asked: list[str], anew: bool) -> tuple[PictureSet, dict[str, PictureSet]]:
    """The pictures to divide, and the parts that stay as they are."""
    from convarium.data.pictures import PictureSet
    from convarium.errors import ArgumentError, DataError

    if anew:
        every = {p.key: p for pictures in found.parts.values() for p in pictures.pictures}
        pool = PictureSet(found.classes, tuple(every[key] for key in sorted(every)))
        fixed = {}
    else:
        name = next((part for part in ("all", "train") if part in found.parts), "")
        if not name:
            raise DataError(f"{found.root} has nothing to train on, only {' and '.join(found.parts)}")
        pool = found.parts[name]
        fixed = {part: pictures for part, pictures in found.parts.items() if part != name}
        there = [part for part in asked if part in fixed]
        if there:
            raise ArgumentError(
                f"{found.root} has a {' and a '.join(there)} part already; --anew pools all its pictures and divides "
                f"them again, --{there[0]} 0 leaves that part as it is"
            )
    if any(not isinstance(picture.source, Path) for picture in pool.pictures):
        raise DataError(f"{found.root} has pictures that are no files; only files can be listed in a split")
    return pool, fixed


def _together(
    pool: PictureSet, fixed: dict[str, PictureSet], by_group: str | None, threads: int | None, progress: Any
) -> tuple[PictureSet, list[tuple[str, str]], list[list[int]], list[str], dict[str, dict[str, int]]]:
    """The pictures that can be read, those that cannot, the groups to keep whole, notes, and counts of groups."""
    from convarium.data.duplicates import find_duplicates
    from convarium.data.fingerprints import look_at_all
    from convarium.data.grouped import groups_by_name
    from convarium.data.pictures import PictureSet, counted

    named = groups_by_name([picture.key for picture in pool.pictures], by_group) if by_group else {}
    every = [*pool.pictures, *(picture for pictures in fixed.values() for picture in pictures.pictures)]
    looked = look_at_all([picture.source for picture in every], threads, progress)
    place: dict[int, int] = {}
    for index in range(len(pool)):
        if index not in looked.damaged:
            place[index] = len(place)
    good = PictureSet(pool.classes, tuple(pool.pictures[index] for index in place))
    damaged = [(every[index].key, reason) for index, reason in looked.damaged.items()]

    kept: dict[str, dict[str, int]] = {}
    notes: list[str] = []
    together: list[list[int]] = []

    def keep(kind: str, group: list[int]) -> None:
        if len(group) > 1:
            together.append(group)
            row = kept.setdefault(kind, {"groups": 0, "pictures": 0})
            row["groups"] += 1
            row["pictures"] += len(group)

    if by_group:
        for members in named.values():
            keep("by name", [place[index] for index in members if index in place])
        alone = len(pool) - sum(map(len, named.values()))
        if alone:
            notes.append(
                f"--by-group {by_group} does not fit {counted(alone, 'picture')}; each stands for itself."
            )
    words = {"identical": "identical", "near": "nearly the same", "chain": "alike in a chain"}
    shared: set[int] = set()
    for group in find_duplicates([f.digest if f else None for f in looked.facts], looked.thumbs):
        inside = [place[index] for index in group.members if index in place]
        if group.kind == "chain" and len(inside) > CHAIN * len(good):
            notes.append(
                f"{counted(len(inside), 'picture')} are alike in one chain, too many to stay together; "
                "they are divided. Where they are frames of films, name the films with --by-group."
            )
            continue
        if len(inside) < len(group.members):
            shared.update(inside)
        keep(words[group.kind], inside)
    if shared:
        others = " and ".join(fixed)
        notes.append(
            f"{counted(len(shared), 'picture')} also in {others}, as a copy; --anew divides all of them."
        )
    return good, damaged, together, notes, kept


def _tell(parts: dict[str, PictureSet], classes: tuple[str, ...], kept: dict[str, dict[str, int]]) -> None:
    from convarium.cli.inspect import table
    from convarium.data.pictures import counted

    table(
        {
            name: {part: held.counts[index] for part, held in parts.items()}
            for index, name in enumerate(classes)
        }
    )
    if kept:
        print("\nkept together")
        for kind, row in kept.items():
            print(f"  {kind}: {counted(row['pictures'], 'picture')} in {counted(row['groups'], 'group')}")
