"""The page of an inspection: one HTML file with pictures inside, opens offline, needs no script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jinja2

from convarium.data.decode import decode
from convarium.data.duplicates import Group
from convarium.data.inspection import Inspection
from convarium.data.splits import rank
from convarium.errors import PictureError
from convarium.judge.thumbnails import PIXEL_ART, thumbnail

CLASSES, EACH = 24, 6
"""Classes of which pictures are shown, and pictures of each, drawn by a hash of their names."""

GROUPS, MEMBERS = 30, 6
"""Groups of duplicates that are shown, those that matter most first, and pictures of each."""

EXTREMES = 12
"""Pictures of each kind of extreme that are shown."""

NEIGHBOURS = 8
"""Damaged files that are shown between their neighbours; all of them are listed."""

ROWS = 500
"""Lines of a list that are shown."""


@dataclass(frozen=True)
class Shown:
    """A picture on the page: its thumbnail ("" where there is none) and what stands below it."""

    uri: str
    pixels: bool
    name: str
    label: str
    part: str
    size: str


def render(seen: Inspection) -> str:
    """The page of an inspection.

    Args:
        seen: what was found; the pictures that the page shows are read once more.

    Returns:
        The page, with its style and pictures inside; all text is escaped.
    """
    samples = _samples(seen)
    groups = sorted(seen.groups, key=lambda group: _weight(seen, group))[:GROUPS]
    extremes = _extremes(seen)
    damaged = [_neighbours(seen, index) for index in list(seen.damaged)[:NEIGHBOURS]]
    wanted = {
        *(index for _, some in samples for index in some),
        *(index for group in groups for index in group.members[:MEMBERS]),
        *(index for _, some in extremes for index in some),
        *(index for some in damaged for index in some),
    }
    shown = _shown(seen, sorted(wanted))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    counts = {name: row for name, row in seen.counts.items() if name}
    return environment.get_template("inspection.html.j2").render(
        seen=seen,
        counts=counts,
        most=max((max(row.values()) for row in counts.values()), default=1) or 1,
        samples=[(name, [shown[index] for index in some]) for name, some in samples],
        cut=len(samples) == CLASSES < len(counts),
        groups=[
            (_title(seen, group), [shown[i] for i in group.members[:MEMBERS]], len(group.members) - MEMBERS)
            for group in groups
        ],
        more_groups=len(seen.groups) - len(groups),
        extremes=[(title, [shown[index] for index in some]) for title, some in extremes],
        neighbours=[[shown[index] for index in some] for some in damaged],
        damaged=[(seen.entries[index].key, why) for index, why in list(seen.damaged.items())[:ROWS]],
        more_damaged=len(seen.damaged) - ROWS,
        census=_census(seen),
        strays={what: names[:ROWS] for what, names in vars(seen.strays).items() if names},
    )


def _samples(seen: Inspection) -> list[tuple[str, list[int]]]:
    """A few pictures of each class, of the part that rules; the smallest classes where there are too many."""
    found: dict[str, list[int]] = {}
    for index, entry in enumerate(seen.entries):
        if entry.part == seen.ruling and entry.label and index not in seen.damaged:
            found.setdefault(entry.label, []).append(index)
    names = sorted(found)
    if len(names) > CLASSES:
        names = sorted(sorted(names, key=lambda name: (len(found[name]), name))[:CLASSES])
    return [(name, sorted(found[name], key=lambda i: rank(0, seen.entries[i].key))[:EACH]) for name in names]


def _weight(seen: Inspection, group: Group) -> tuple[bool, bool, bool, int]:
    """Conflicts of classes first, then leaks, then identical ones, then small groups."""
    return (
        not seen.across_classes(group),
        not seen.across_parts(group),
        group.kind != "identical",
        len(group.members),
    )


def _title(seen: Inspection, group: Group) -> str:
    words = {"identical": "byte for byte the same", "near": "nearly the same", "chain": "alike in a chain"}
    more = [
        "in different parts" if seen.across_parts(group) else "",
        "of different classes" if seen.across_classes(group) else "",
    ]
    return ", ".join([words[group.kind], *filter(None, more)])


def _extremes(seen: Inspection) -> list[tuple[str, list[int]]]:
    place = {entry.key: index for index, entry in enumerate(seen.entries)}
    rows = [
        ("longest for their width", [place[key] for key in seen.census.extreme[:EXTREMES]]),
        ("smallest", [place[key] for key in seen.census.tiny[:EXTREMES]]),
        ("of a single colour, or nearly", [place[key] for key in seen.census.blank[:EXTREMES]]),
    ]
    areas = [(fact.width * fact.height, -index) for index, fact in enumerate(seen.facts) if fact is not None]
    if areas and max(areas)[0] > 4 * sorted(areas)[len(areas) // 2][0]:
        largest = sorted(areas, reverse=True)[:EXTREMES]
        middle = sorted(areas)[len(areas) // 2][0]
        rows.append(("largest", [-index for area, index in largest if area > 4 * middle]))
    return [(title, some) for title, some in rows if some]


def _neighbours(seen: Inspection, index: int) -> list[int]:
    """A damaged picture between the one before and the one after it in its class."""
    entry = seen.entries[index]
    some = [index]
    for step in (-1, 1):
        other = index + step
        while 0 <= other < len(seen.entries) and other in seen.damaged:
            other += step
        if 0 <= other < len(seen.entries) and (seen.entries[other].part, seen.entries[other].label) == (
            entry.part,
            entry.label,
        ):
            some.insert(0 if step < 0 else len(some), other)
    return some


def _shown(seen: Inspection, indices: Sequence[int]) -> dict[int, Shown]:
    """The pictures read once more, in parallel; a damaged one has no thumbnail."""

    def read(index: int) -> Shown:
        entry, fact = seen.entries[index], seen.facts[index]
        uri, pixels = "", False
        if fact is not None:
            try:
                picture = decode(entry.source)
            except PictureError:  # gone since it was looked at
                pass
            else:
                uri, pixels = thumbnail(picture), max(picture.size) <= PIXEL_ART
        size = f"{fact.width}x{fact.height}" if fact is not None else seen.damaged.get(index, "")
        return Shown(uri, pixels, entry.key, entry.label, entry.part, size)

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(indices, pool.map(read, indices), strict=True))


def _census(seen: Inspection) -> list[tuple[str, list[tuple[str, int]]]]:
    """Tables of the kinds of files, as (title, rows); those with nothing to tell are left out."""
    census = seen.census

    def rows(counts: Iterable[tuple[object, int]]) -> list[tuple[str, int]]:
        return [(str(what), count) for what, count in counts]

    tables = [
        ("format", rows(census.formats.items())),
        ("colour mode as stored", rows(census.modes.items())),
        ("bits a channel", rows(census.bits.items())),
        ("EXIF orientation", rows(census.orientations.items())),
        ("most frequent sizes", rows(census.sides.items())),
    ]
    return [(title, some) for title, some in tables if some]
