"""What an inspection means: findings in sentences, the weightiest first, each with what to do."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator

from convarium.data.census import LONG, SMALL
from convarium.data.duplicates import Group
from convarium.data.inspection import Finding, Inspection
from convarium.data.pictures import counted, listed

UNBALANCED = 10.0
"""From here on, the ratio of the largest to the smallest class is a warning; from 3 on, a note."""

FEW = 10
"""Fewer training pictures than this in a class are a warning."""

MANY = 0.01
"""Duplicates within one part and class are a warning where they are more than this share, else a note."""

TELLING = 0.9
"""A kind of file is a shortcut where at least this share of a class has it, and at most 1 - this elsewhere."""

_SHOWN = 12


def findings(seen: Inspection) -> list[Finding]:
    """All findings on a data set: what stops training, then warnings, then notes.

    Args:
        seen: the inspection, its own findings still empty.
    """
    found = [*_stops(seen), *_leaks(seen), *_damage(seen), *_classes(seen), *_kinds(seen), *_strays(seen)]
    weight = {"stop": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda finding: weight[finding.weight])


def _stops(seen: Inspection) -> Iterator[Finding]:
    if seen.refusal:
        yield Finding("stop", "refused", f"Training refuses this data: {seen.refusal}.")
        return
    if seen.parts and "train" not in seen.parts and "all" not in seen.parts:
        text = f"There is nothing to train on, only {' and '.join(seen.parts)}."
        yield Finding("stop", "no-training-part", text, "Add a folder train/, or move the class folders up.")
    readable = Counter(entry.part for index, entry in enumerate(seen.entries) if index not in seen.damaged)
    for part, count in seen.parts.items():
        if not readable[part]:
            text = f"Not one of the {counted(count, 'picture')} of {part} can be read."
            yield Finding("stop", "all-damaged", text, "Get the files anew.")
    spoilt = [
        name
        for name, counts in seen.counts.items()
        if not counts[seen.ruling] and any(e.label == name and e.part == seen.ruling for e in seen.entries)
    ]
    if spoilt and readable[seen.ruling]:
        text = f"All training pictures of {listed(spoilt)} are damaged."
        yield Finding("stop", "class-damaged", text, "Mend them, or remove the folder of the class.")


def _leaks(seen: Inspection) -> Iterator[Finding]:
    """Duplicates: across classes, across parts, and within."""
    divide = "`convarium split DATA --anew -o split.csv` keeps all copies of a picture in one part."
    words = {"identical": "byte for byte the same", "near": "nearly the same", "chain": "alike, in chains"}
    told: set[int] = set()
    for kind in ("identical", "near"):
        groups = [g for g in seen.groups if g.kind == kind and seen.across_classes(g)]
        if groups:
            which = {index for group in groups for index in group.members}
            amount = f"{counted(len(which), 'picture')} in {counted(len(groups), 'group')}"
            text = f"Of different classes, but {words[kind]}: {amount}."
            advice = "Look at them and decide on one class each; a network can only learn one."
            yield Finding("warning", f"conflict-{kind}", text, advice, _names(seen, groups))
    for kind in ("identical", "near"):
        groups = [g for g in seen.groups if g.kind == kind and seen.across_parts(g)]
        parts = [_leaked(seen, groups, part, told) for part in seen.parts if part != seen.ruling]
        if any(parts):
            text = f"Held-out pictures that training sees, {words[kind]}: {'; '.join(filter(None, parts))}."
            better = "the accuracy looks better than it is."
            advice = f"Where they are copies, {better}" if kind == "near" else better.capitalize()
            advice = f"{advice} {divide}"
            yield Finding("warning", f"leak-{kind}", text, advice, _names(seen, groups))
    for kind in ("identical", "near", "chain"):
        groups = [g for g in seen.groups if g.kind == kind and (kind == "chain" or not seen.across_parts(g))]
        extra = sum(len(group.members) for group in groups) - len(groups)
        if extra:
            whole = sum(len(group.members) for group in groups)
            where = "" if kind == "chain" or len(seen.parts) == 1 else " within one part"
            text = f"{words[kind].capitalize()}{where}: {counted(whole, 'picture')} in {counted(len(groups), 'group')}."
            split = "all" in seen.parts
            heavy = extra > MANY * len(seen.entries) and kind != "chain" and not seen.refusal
            advice = ""
            if kind == "chain":
                advice = "Each is like its neighbour only; frames of films are best divided with `split --by-group`."
            elif split and not seen.refusal:
                advice = "A division at random would put copies on both sides; `convarium split` does not."
            weight = "warning" if heavy else "note"
            yield Finding(weight, f"duplicates-{kind}", text, advice, _names(seen, groups))


def _leaked(seen: Inspection, groups: list[Group], part: str, told: set[int]) -> str:
    """How many pictures of one part have a copy in an earlier one; each is told once."""
    order = list(seen.parts)
    which: dict[str, set[int]] = defaultdict(set)
    for group in groups:
        first = min((seen.entries[index].part for index in group.members), key=order.index)
        if order.index(first) < order.index(part):
            which[first] |= {i for i in group.members if seen.entries[i].part == part} - told
    told.update(*which.values())
    total = seen.parts[part]
    return ", ".join(
        f"{len(indices):,} of {total:,} in {part} ({100 * len(indices) / total:.2g} %) are also in {first}"
        for first, indices in which.items()
        if indices
    )


def _damage(seen: Inspection) -> Iterator[Finding]:
    if seen.damaged:
        share = 100 * len(seen.damaged) / len(seen.entries)
        text = f"Damaged, not to be read to the last pixel: {counted(len(seen.damaged), 'file')} ({share:.2g} %)."
        names = tuple(seen.entries[index].key for index in list(seen.damaged)[:_SHOWN])
        yield Finding(
            "warning", "damaged", text, "Training leaves them out; get them anew to keep them.", names
        )
    if seen.census.blank:
        text = f"Of a single colour, or nearly: {counted(len(seen.census.blank), 'picture')}."
        names = tuple(seen.census.blank[:_SHOWN])
        yield Finding("warning", "blank", text, "Look at them; remove those that are placeholders.", names)


def _classes(seen: Inspection) -> Iterator[Finding]:
    counts = seen.counts
    if "" in counts:
        return
    known = {name for name, count in counts.items() if count[seen.ruling]}
    for part in seen.parts:
        if part == seen.ruling:
            continue
        only = [name for name, count in counts.items() if count[part] and name not in known]
        if only:
            number = sum(counts[name][part] for name in only)
            text = f"Classes in {part} that {seen.ruling} does not have: {listed(only)} "
            text += f"({counted(number, 'picture')}, to be left out)."
            yield Finding("warning", "class-only-held-out", text, "Check the spelling of the folders' names.")
        lacking = [name for name in sorted(known) if not counts[name][part]]
        if lacking:
            text = f"Classes without a picture in {part}: {listed(lacking)}."
            yield Finding("warning", "class-not-held-out", text, "Nothing will be measured on them.")
    if seen.empty:
        text = f"Class folders without pictures: {listed(seen.empty)}."
        yield Finding("warning", "empty-class", text, "They are no classes; remove them or fill them.")
    yield from _names_alike(list(counts))
    few = {name: counts[name][seen.ruling] for name in known if counts[name][seen.ruling] < FEW}
    if few:
        names = [f"{name} {few[name]}" for name in sorted(few, key=lambda name: (few[name], name))]
        text = f"Fewer than {FEW} pictures of {counted(len(few), 'class')}: {listed(names)}."
        yield Finding("warning", "few-pictures", text, "Add pictures, or leave the class out.")
    ratio = seen.imbalance or 1.0
    if ratio >= 3:
        sizes = sorted((counts[name][seen.ruling], name) for name in known)
        text = f"The largest class ({sizes[-1][1]}, {sizes[-1][0]:,}) has {ratio:.1f} times the pictures "
        text += f"of the smallest ({sizes[0][1]}, {sizes[0][0]:,})."
        advice = "Judge by the recall of each class, not by accuracy alone."
        yield Finding("warning" if ratio >= UNBALANCED else "note", "imbalance", text, advice)


def _names_alike(names: list[str]) -> Iterator[Finding]:
    """Classes whose names differ only in capitals, blanks or the form of their letters."""
    forms: dict[str, list[str]] = defaultdict(list)
    for name in names:
        plain = unicodedata.normalize("NFKC", name).casefold()
        forms["".join(plain.replace("_", " ").replace("-", " ").split())].append(name)
    for alike in forms.values():
        if len(alike) > 1:
            text = f"Classes whose names are nearly the same: {', '.join(map(repr, alike))}."
            yield Finding(
                "warning", "names-alike", text, "Put their pictures together, if they are one class."
            )


def _kinds(seen: Inspection) -> Iterator[Finding]:
    census = seen.census
    yield from _shortcuts(seen)
    if census.extreme:
        text = f"{LONG:g} times longer than wide or more, or the reverse: {counted(len(census.extreme), 'picture')}."
        advice = "A square crop loses most of them; `--fit pad` keeps them whole."
        yield Finding("note", "extreme-aspect", text, advice, tuple(census.extreme[:_SHOWN]))
    if census.tiny:
        text = f"With a side below {SMALL} pixels: {counted(len(census.tiny), 'picture')}."
        yield Finding("note", "tiny", text, "", tuple(census.tiny[:_SHOWN]))
    if census.orientations:
        number = sum(census.orientations.values())
        text = f"Stored turned or mirrored, as EXIF data say: {counted(number, 'picture')}."
        yield Finding("note", "turned", text, "Convarium sets them upright; some other programs do not.")
    deep = sum(count for bits, count in census.bits.items() if bits > 8)
    if deep:
        text = f"With more than 8 bits a channel: {counted(deep, 'picture')}."
        yield Finding("note", "deep", text, "They are scaled to 8 bits, not cut off; docs/data.md says how.")
    grey = sum(count for mode, count in census.modes.items() if mode in ("L", "1", "LA", "I", "I;16", "F"))
    if 0 < grey < sum(census.modes.values()):
        text = f"Grey, the others in colour: {counted(grey, 'picture')}."
        yield Finding("note", "mixed-colour", text, "Grey is repeated on three channels.")
    if census.clear:
        text = f"With transparency: {counted(census.clear, 'picture')}."
        yield Finding("note", "transparent", text, "Laid over white.")
    if census.frames:
        text = f"With several frames: {counted(census.frames, 'picture')}."
        yield Finding("note", "frames", text, "The first frame is used.")
    if census.endings:
        number = sum(map(len, census.endings.values()))
        kinds = [f"{kind} named {ending}" for ending, kind in census.endings]
        names = tuple(key for keys in census.endings.values() for key in keys)[:_SHOWN]
        text = (
            f"With an ending that does not fit the content: {counted(number, 'picture')} ({listed(kinds)})."
        )
        yield Finding("note", "wrong-ending", text, "Convarium goes by the content.", names)


def _shortcuts(seen: Inspection) -> Iterator[Finding]:
    """Kinds of files that tell a class from the others, so that a network may learn the kind."""
    kinds: dict[str, dict[str, Counter[str]]] = {"format": {}, "colour mode": {}, "size": {}}
    whole: Counter[str] = Counter()
    for entry, fact in zip(seen.entries, seen.facts, strict=True):
        if fact is None or not entry.label or entry.part != seen.ruling:
            continue
        whole[entry.label] += 1
        values = {"format": fact.format, "colour mode": fact.mode, "size": f"{fact.width}x{fact.height}"}
        for what, value in values.items():
            kinds[what].setdefault(value, Counter())[entry.label] += 1
    total = sum(whole.values())
    for what, values_ in kinds.items():
        told = []
        for value, classes in values_.items():
            for name, count in classes.items():
                rest, elsewhere = total - whole[name], sum(classes.values()) - count
                enough = whole[name] >= FEW and rest >= FEW
                if enough and count >= TELLING * whole[name] and elsewhere <= (1 - TELLING) * rest:
                    share = 100 * count / whole[name]
                    told.append(f"{name} ({share:.0f} % {value}, elsewhere {100 * elsewhere / rest:.0f} %)")
        if told:
            text = f"Classes that the {what} of the file alone gives away: {listed(sorted(told))}."
            advice = "A network may learn how the files were made instead of what they show."
            yield Finding("warning", "shortcut", text, advice)


def _strays(seen: Inspection) -> Iterator[Finding]:
    strays = seen.strays
    rows = (
        ("loose", strays.loose, "Outside of the class folders, and not used", "picture"),
        ("unread", strays.unread, "Of formats that Convarium does not read", "file"),
        ("broken", strays.broken, "Links to nowhere, and what is neither file nor folder", "entry"),
        ("others", strays.others, "No pictures by their ending", "file"),
        ("system", strays.system, "Hidden, or left behind by a system", "entry"),
        ("links", strays.links, "Links", "entry"),
        ("nested", strays.nested, "Deeper than their class folder, and counted for the class", "picture"),
    )
    advice = {
        "loose": "Put them into the folders of their classes.",
        "unread": "Convert them to JPEG or PNG.",
        "broken": "Mend or remove them.",
    }
    for code, names, what, noun in rows:
        if names:
            amount = counted(len(names), noun)
            text = f"{what}: {amount} ({listed(names, 3)})."
            weight = "warning" if code in advice else "note"
            yield Finding(weight, f"stray-{code}", text, advice.get(code, ""), tuple(names[:_SHOWN]))


def _names(seen: Inspection, groups: list[Group]) -> tuple[str, ...]:
    return tuple(seen.entries[index].key for group in groups for index in group.members)[:_SHOWN]
