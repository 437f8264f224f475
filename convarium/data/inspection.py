"""A data set looked through before anything is trained on it; nothing in it is changed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convarium.data.census import Census, Strays, find_strays, take_census
from convarium.data.duplicates import Group, find_duplicates
from convarium.data.fingerprints import Facts, look_at_all
from convarium.data.folders import find, list_pictures
from convarium.data.pictures import Found, numbered
from convarium.errors import DataError

PARTS = ("train", "val", "test", "all")


@dataclass(frozen=True)
class Entry:
    """One picture as it was found: its part, its class ("" without one), its name and where it is."""

    part: str
    label: str
    key: str
    source: Path | np.ndarray


@dataclass(frozen=True)
class Finding:
    """One thing that a reader should know.

    Args:
        weight: "stop" (training is not possible), "warning" or "note".
        code: a short name that scripts can look for.
        text: what was found, in a sentence.
        advice: what to do about it; may be empty.
        pictures: names of some of the pictures that it is about.
    """

    weight: str
    code: str
    text: str
    advice: str = ""
    pictures: tuple[str, ...] = ()


@dataclass
class Inspection:
    """All that is known of a data set.

    Args:
        root: its folder or file.
        entries: every picture, by part and then by name.
        facts: on each; None where it is damaged.
        damaged: index to reason.
        groups: pictures that are the same.
        census: kinds of files.
        strays: what else lies there.
        empty: class folders without pictures.
        refusal: why training would refuse this data at once; "" where it would not.
        findings: the weightiest first.
    """

    root: Path
    entries: list[Entry]
    facts: list[Facts | None]
    damaged: dict[int, str]
    groups: list[Group]
    census: Census
    strays: Strays
    empty: list[str] = field(default_factory=list)
    refusal: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def parts(self) -> dict[str, int]:
        """Number of pictures, damaged ones included, by part."""
        found = Counter(entry.part for entry in self.entries)
        return {part: found[part] for part in PARTS if found[part]}

    @property
    def ruling(self) -> str:
        """The part whose classes rule: the training part, or the first one."""
        return next(iter(self.parts), "all")

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Class to part to number of pictures that can be read; classes sorted."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for index, entry in enumerate(self.entries):
            found[entry.label][entry.part] += index not in self.damaged
        return {label: {part: found[label][part] for part in self.parts} for label in sorted(found)}

    @property
    def bytes(self) -> int:
        """Size of all pictures that can be read."""
        return sum(fact.bytes for fact in self.facts if fact is not None)

    @property
    def imbalance(self) -> float | None:
        """Pictures of the largest class over those of the smallest one that has any, in the ruling part."""
        numbers = [count[self.ruling] for count in self.counts.values() if count[self.ruling]]
        return max(numbers) / min(numbers) if numbers else None

    @property
    def usable(self) -> bool:
        """Whether one can train on it."""
        return all(finding.weight != "stop" for finding in self.findings)

    @property
    def verdict(self) -> str:
        """The whole in a few words."""
        if not self.usable:
            return "not usable"
        warned = any(finding.weight == "warning" for finding in self.findings)
        return "ready with warnings" if warned else "ready"

    def across_parts(self, group: Group) -> bool:
        """Whether a group has pictures of more than one part."""
        return len({self.entries[index].part for index in group.members}) > 1

    def across_classes(self, group: Group) -> bool:
        """Whether a group has pictures of more than one class."""
        return len({self.entries[index].label for index in group.members}) > 1

    def to_dict(self) -> dict[str, Any]:
        """All of it as values that JSON can hold."""
        return {
            "path": str(self.root),
            "verdict": self.verdict,
            "findings": [{**vars(found), "pictures": list(found.pictures)} for found in self.findings],
            "pictures": len(self.entries),
            "bytes": self.bytes,
            "parts": self.parts,
            "classes": [{"name": name, "pictures": counts} for name, counts in self.counts.items()],
            "empty_classes": self.empty,
            "imbalance": self.imbalance,
            "damaged": [
                {"picture": self.entries[index].key, "reason": why} for index, why in self.damaged.items()
            ],
            "duplicates": [
                {
                    "kind": group.kind,
                    "across_parts": self.across_parts(group),
                    "across_classes": self.across_classes(group),
                    "pictures": [
                        {"picture": entry.key, "part": entry.part, "class": entry.label}
                        for entry in (self.entries[index] for index in group.members)
                    ],
                }
                for group in self.groups
            ],
            "census": self.census.to_dict(),
            "strays": vars(self.strays),
        }


def inspect_data(
    path: str | Path,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Look a data set through: classes, every pixel, kinds of files, duplicates and what else lies there.

    Args:
        path: as for `read_data`. A folder whose layout cannot be trained on is looked through as well,
            and the verdict says why it cannot.
        threads: that decode; None is one for each processor, 16 at most.
        progress: called in this thread with the number done and the number of all.

    Returns:
        Everything that was found, and a verdict.

    Raises:
        DataError: there is no such path, or no picture in it.
    """
    from convarium.data.verdict import findings

    root = Path(path)
    found, refusal = _found(root)
    entries = [
        Entry(part, label, key, source)
        for part in PARTS
        for label, key, source in sorted(found.parts.get(part, []), key=lambda entry: entry[1])
    ]
    looked = look_at_all([entry.source for entry in entries], threads, progress)
    keys = [entry.key for entry in entries]
    inspection = Inspection(
        root=root,
        entries=entries,
        facts=looked.facts,
        damaged=looked.damaged,
        groups=find_duplicates([fact.digest if fact else None for fact in looked.facts], looked.thumbs),
        census=take_census(keys, looked.facts),
        strays=_strays(root, entries),
        empty=sorted(found.empty),
        refusal=refusal,
    )
    inspection.findings = findings(inspection)
    return inspection


def _found(root: Path) -> tuple[Found, str]:
    """The pictures and why training would refuse them; those of any layout, where the layout is why."""
    try:
        found = find(root)
    except DataError as error:
        if not root.is_dir():
            raise
        try:
            files = list_pictures([root])
        except DataError:
            raise error from None
        every = [("", file.relative_to(root).as_posix(), file) for file in files]
        return Found({"all": list(every)}), str(error)
    try:
        numbered(root, found, None)
    except DataError as error:
        return found, str(error)
    return found, ""


def _strays(root: Path, entries: list[Entry]) -> Strays:
    """What else lies in the folder; of a CSV file and of MNIST's files, nothing can be said."""
    if not root.is_dir() or any(isinstance(entry.source, np.ndarray) for entry in entries[:1]):
        return Strays()
    depth = 1 if {entry.part for entry in entries} == {"all"} else 2
    if not any(entry.label for entry in entries):
        depth = 1 << 30  # without classes, no picture lies too deep
    return find_strays(root, [entry.key for entry in entries], depth)
