"""Dividing pictures into parts where some of them must stay together.

Without groups, the held-out pictures are those that `splits.stratified` holds out. Groups are placed first, the
largest first, each into the part where it brings every class closest to its share; then single pictures fill up.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from convarium.data.duplicates import connected
from convarium.data.pictures import Picture, PictureSet, counted, listed
from convarium.data.splits import rank
from convarium.errors import ArgumentError, DataError


def groups_by_name(keys: Sequence[str], pattern: str) -> dict[str, list[int]]:
    """Group pictures by what a regular expression finds in their names.

    Args:
        keys: names below the data's root, with forward slashes.
        pattern: searched in each name; its first group, or all of it where it has none, names the group.

    Returns:
        Name of a group to indices; a picture in which nothing is found is in no group.

    Raises:
        ArgumentError: it is no regular expression, or fits no name.
    """
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise ArgumentError(f"{pattern!r} is no regular expression: {error}") from error
    found: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        match = search(key)
        if match:
            name = match.group(1) if match.re.groups else match.group()
            if name is not None:
                found[name].append(index)
    if not found:
        raise ArgumentError(f"{pattern!r} fits no picture's name; the first one is {keys[0]!r}")
    return dict(found)


def divide(
    pictures: PictureSet,
    shares: Mapping[str, float],
    seed: int = 0,
    together: Iterable[Sequence[int]] = (),
) -> tuple[dict[str, PictureSet], list[str]]:
    """Divide pictures so that every class has its share in every part, and groups stay whole.

    Args:
        pictures: all with labels.
        shares: held-out part to its share, each between 0 and 1, together less than 1; the rest is "train".
        seed: any whole number; the division depends on it and on the pictures' keys only.
        together: indices of pictures that must be in one part; groups that share a picture are one.

    Returns:
        "train" and the held-out parts, each in the order of `pictures`; and a sentence on everything
        that could not be had.

    Raises:
        ArgumentError: the shares are not allowed.
        DataError: a part would be empty.
    """
    if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1 or not shares:
        told = ", ".join(f"{part} {share:g}" for part, share in shares.items()) or "nothing"
        raise ArgumentError(f"the shares are {told}; each must be between 0 and 1, together less than 1")
    work = _Division(pictures, shares, seed, together)
    work.place_groups()
    work.place_singles()
    work.mend()
    parts = {
        part: PictureSet(
            pictures.classes, tuple(p for p, place in _zip(pictures, work.places) if place == part)
        )
        for part in work.targets
    }
    empty = [part for part, held in parts.items() if not len(held)]
    if empty:
        raise DataError(
            f"nothing is left for {' and '.join(empty)}: the pictures are {counted(len(work.units), 'group')} "
            "that must stay whole; add pictures, or give another --by-group"
        )
    return parts, work.notes(parts)


class _Division:
    """Units (groups and single pictures), the classes of each, and where each is put."""

    def __init__(
        self,
        pictures: PictureSet,
        shares: Mapping[str, float],
        seed: int,
        together: Iterable[Sequence[int]],
    ) -> None:
        self.pictures = pictures
        self.labels = [int(picture.label or 0) for picture in pictures.pictures]
        pairs = [(group[0], other) for group in together for other in group[1:]]
        grouped = connected(pairs)
        inside = {index for group in grouped for index in group}
        self.units = [*grouped, *([index] for index in range(len(self.labels)) if index not in inside)]
        self.counts = [Counter(self.labels[index] for index in unit) for unit in self.units]
        keys = [min(pictures.pictures[index].key for index in unit) for unit in self.units]
        self.ranks = [(rank(seed, key), key) for key in keys]
        self.sizes = Counter(self.labels)
        self.targets = self._targets(shares)
        self.have: dict[str, Counter[int]] = {part: Counter() for part in self.targets}
        self.unit_places = [""] * len(self.units)

    def _targets(self, shares: Mapping[str, float]) -> dict[str, Counter[int]]:
        """Part to class to the number of pictures wanted; one at least, as long as there are enough."""
        targets: dict[str, Counter[int]] = {part: Counter() for part in ("train", *shares)}
        for label, size in self.sizes.items():
            left = size - 1  # one stays for training
            for part, share in shares.items():
                targets[part][label] = min(left, max(1, round(share * size)))
                left -= targets[part][label]
            targets["train"][label] = left + 1
        return targets

    @property
    def places(self) -> list[str]:
        """The part of every picture."""
        found = [""] * len(self.labels)
        for unit, part in zip(self.units, self.unit_places, strict=True):
            for index in unit:
                found[index] = part
        return found

    def _put(self, unit: int, part: str) -> None:
        if self.unit_places[unit]:
            self.have[self.unit_places[unit]].subtract(self.counts[unit])
        self.have[part].update(self.counts[unit])
        self.unit_places[unit] = part

    def place_groups(self) -> None:
        """Each group where the squared distance to the targets, in shares of each class, grows least."""
        groups = [unit for unit, members in enumerate(self.units) if len(members) > 1]

        def growth(unit: int, part: str) -> tuple[float, int]:
            have, target = self.have[part], self.targets[part]
            grown = sum(
                count * (2 * (have[label] - target[label]) + count) / self.sizes[label]
                for label, count in self.counts[unit].items()
            )
            return round(grown, 9), sum(have.values()) - sum(target.values())  # of equals, the emptier one

        for unit in sorted(groups, key=lambda unit: (-len(self.units[unit]), self.ranks[unit])):
            self._put(unit, min(self.targets, key=lambda part: growth(unit, part)))

    def place_singles(self) -> None:
        """Single pictures fill up the held-out parts in the order of their ranks; the rest is for training."""
        singles: dict[int, list[int]] = defaultdict(list)
        for unit, members in enumerate(self.units):
            if len(members) == 1:
                singles[self.labels[members[0]]].append(unit)
        for label, units in singles.items():
            waiting = sorted(units, key=lambda unit: self.ranks[unit])
            for part in [*(part for part in self.targets if part != "train"), "train"]:
                need = max(0, self.targets[part][label] - self.have[part][label])
                taken = waiting if part == "train" else waiting[:need]
                waiting = waiting[len(taken) :]
                for unit in taken:
                    self._put(unit, part)

    def mend(self) -> None:
        """Give a class to a part that lacks it, where another part can spare a unit."""
        for label in sorted(self.sizes, key=lambda label: (self.sizes[label], label)):
            for part in self.targets:
                if self.targets[part][label] and not self.have[part][label]:
                    spare = [unit for unit in range(len(self.units)) if self._can_spare(unit, label)]
                    if spare:
                        self._put(
                            min(spare, key=lambda unit: (len(self.units[unit]), self.ranks[unit])), part
                        )

    def _can_spare(self, unit: int, label: int) -> bool:
        have, counts = self.have[self.unit_places[unit]], self.counts[unit]
        return label in counts and all(have[other] > count for other, count in counts.items())

    def notes(self, parts: Mapping[str, PictureSet]) -> list[str]:
        """What could not be had."""
        found = []
        names = self.pictures.classes
        for part, have in self.have.items():
            lacking = [names[label] for label in sorted(self.sizes) if not have[label]]
            if lacking:
                found.append(
                    f"{part} has no picture of {listed(lacking)}: too few pictures, or groups, that can be parted."
                )
        held = {part: sum(target.values()) for part, target in self.targets.items() if part != "train"}
        least = min(held, key=lambda part: held[part])
        large = [unit for unit in self.units if len(unit) > held[least]]
        if large:
            most = max(large, key=len)
            found.append(
                f"{counted(len(large), 'group')} with more pictures than {least} should have "
                f"({held[least]}); the largest, {len(most)} with {self.pictures.pictures[most[0]].key}, is in "
                f"{self.places[most[0]]}."
            )
        for part, number in held.items():
            if abs(len(parts[part]) - number) > 0.25 * number and abs(len(parts[part]) - number) > 1:
                found.append(
                    f"{part} has {counted(len(parts[part]), 'picture')} instead of {number}, so that groups stay whole."
                )
        return found


def _zip(pictures: PictureSet, places: list[str]) -> Iterable[tuple[Picture, str]]:
    return zip(pictures.pictures, places, strict=True)
