"""Foreign weights into a file that describes itself: network, class names and preprocessing beside the tensors."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from convarium.classifier import Classifier
from convarium.data.pictures import class_name
from convarium.data.preprocessing import Preprocessing, from_fields
from convarium.errors import ArgumentError, CheckpointError, DataError
from convarium.models import adapt, download, front, published
from convarium.models import weights as weight_files
from convarium.models.foreign import is_foreign
from convarium.models.registry import Variant
from convarium.net import Net

COLUMNS = ("class_name", "name", "wnid")
"""Columns of a CSV file that class names are taken from, the first that is there."""

_OWN = {
    "classes": "the file decides it, and the names are given as classes",
    "in_channels": 'say it with the preprocessing\'s mode, "L" or "RGB" (--channels)',
    "size": "say it with the preprocessing's size (--size)",
    "weights": "they are given already",
}


def pack(
    weights: str | Path,
    model: str,
    *,
    classes: Sequence[str] | str | Path | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Classifier:
    """Make a classifier of trained weights that do not say what they are for.

    Args:
        weights: a file of weights, or published ones by name, as "torchvision:IMAGENET1K_V1".
        model: name of the network, as for `create`.
        classes: names in the order of the scores, or what `read_classes` takes; the publisher's, or "0", "1", ...
            where None. A name that comes twice gets its number, as "crane (517)".
        preprocessing: how pictures are prepared, or only the fields that differ from the publisher's; for a file:
            from the network's own size without a mean.
        arguments: the network's own, as {"padding": "same"}.

    Returns:
        The classifier; `about["origin"]` says where it is from, `about["notes"]` what had to be assumed.

    Raises:
        ArgumentError: names, preprocessing or arguments that do not fit.
        CheckpointError: the weights cannot be read, end before a classifier or do not fit.
        UnknownName: no such network or published weights.
    """
    for name in _OWN.keys() & (arguments or {}).keys():
        raise ArgumentError(f"{name} is no argument to set on the network here: {_OWN[name]}")
    row = front.variant(model)
    known = published.find(model, str(weights)) if published.is_reference(weights) else None
    told = preprocessing.to_dict() if isinstance(preprocessing, Preprocessing) else dict(preprocessing or {})
    side = told.get("size") or (known.size if known else row.size)
    given = {**(known.arguments if known else {}), **(arguments or {})}
    with torch.device("meta"):  # so that a wrong argument is told before anything is fetched
        net = front.create(model, size=side, **given)
    path = front.file(model, weights) if known is None else download.fetch(known)
    count, channels = _counted(net, path, row)
    if "mode" in told:
        channels = {"L": 1, "RGB": 3}.get(told["mode"], channels)
    elif channels not in (1, 3):
        raise ArgumentError(f"{path} takes {channels} channels; pictures have 1 (grey) or 3 (colour)")
    notes: list[str] = []
    prepared = _preprocessing(told, known, side, channels, notes)
    names = _names(classes, known, count, path, notes)
    built = front.create(
        model, classes=count, in_channels=channels, size=prepared.size, weights=path, **given
    )
    origin: dict[str, Any] = {"weights": path.name}
    if known:
        facts = {"licence": known.licence, "about": known.about, "top1": known.top1, "top5": known.top5}
        origin = {"weights": known.reference, **{key: value for key, value in facts.items() if value}}
    return Classifier(built, names, prepared, {"origin": origin, "notes": notes})


def read_classes(source: str | Path, column: str | None = None) -> list[str]:
    """Class names from a file or from a list in one word.

    Args:
        source: a CSV file (with `class_index`, ordered by it), a text file with one name a line, both in UTF-8, or
            names with commas between them, as "daisy,rose,tulip".
        column: of the CSV file; the first of `COLUMNS` that it has where None.

    Returns:
        The names, in the order of the scores.

    Raises:
        DataError: the file cannot be read, or lacks the column.
        ArgumentError: it is no file and no list.
    """
    path = Path(source)
    if not path.is_file():
        if "," in str(source) and path.suffix.lower() not in (".csv", ".txt"):
            return [name.strip() for name in str(source).split(",")]
        raise ArgumentError(
            f"no file of class names at {source}; give a text file with one a line, a CSV file, "
            "or the names themselves with commas between them"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    if path.suffix.lower() == ".csv":
        return _of_table(path, text, column)
    if column:
        raise ArgumentError(f"{path} is no .csv file, so it has no column {column!r}; leave --column out")
    lines = [line.strip() for line in text.splitlines()]
    return lines[: max((number for number, line in enumerate(lines, 1) if line), default=0)]


def unique(names: Sequence[str]) -> list[str]:
    """The names, with the number added to each that comes more than once: "crane (134)" and "crane (517)"."""
    times = Counter(names)
    return [f"{name} ({index})" if times[name] > 1 else name for index, name in enumerate(names)]


def _of_table(path: Path, text: str, column: str | None) -> list[str]:
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    try:
        rows = [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) if row
        ]
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file ({error})") from error
    header = [name.strip().casefold() for name in rows[0]] if rows else []
    wanted = next((name for name in ([column.casefold()] if column else COLUMNS) if name in header), None)
    if wanted is None:
        raise DataError(
            f"{path} has no column {column or ' or '.join(COLUMNS)}; its first line has: {', '.join(header)[:200]}"
        )
    entries = [dict(zip(header, row, strict=False)) for row in rows[1:]]
    names = [entry.get(wanted, "").strip() for entry in entries]
    if "class_index" not in header:
        return names
    numbers = [entry.get("class_index", "").strip() for entry in entries]
    if sorted(numbers) != sorted(map(str, range(len(numbers)))):
        raise DataError(f"the column class_index of {path} must hold each of 0 to {len(numbers) - 1} once")
    ordered = dict(zip(map(int, numbers), names, strict=True))
    return [ordered[index] for index in range(len(names))]


def _counted(net: torch.nn.Module, path: Path, row: Variant) -> tuple[int, int]:
    """Classes and channels of a file, from the shapes of its classifier and of its first convolution."""
    state = weight_files.read(path)
    wanted = net.state_dict()
    readings = [
        weight_files.rename(state, rules(net) if callable(rules) else rules)
        for rules in ((), *row.rules.values())
    ]
    nearest = min(readings, key=lambda renamed: len(wanted.keys() ^ renamed.keys()))
    if is_foreign(row.name):
        heads = [f"{net.classifier}."] if net.classifier else []
    else:  # CLIP is no Net: its classes are the width of a common space
        heads = [f"{part}." for part in adapt.classifiers(net)] if isinstance(net, Net) else []
    if not heads:
        raise ArgumentError(f"{row.name} gives no class scores, so no classifier can be made of it")
    shapes = {
        name: nearest[name].shape
        for name in wanted
        if name in nearest and name.startswith(heads[0]) and nearest[name].ndim
    }
    missing = [name for name in wanted if name not in nearest and not name.endswith("num_batches_tracked")]
    if not shapes and missing and all(name.startswith(tuple(heads)) for name in missing):
        raise CheckpointError(
            f"{path} ends before the classifier: it gives features, not scores of classes; train a classifier on them"
        )
    stem = next((n for n, t in wanted.items() if t.ndim == 4 and t.shape[1] == row.in_channels), "")
    channels = nearest[stem].shape[1] if stem in nearest and nearest[stem].ndim == 4 else row.in_channels
    return next((shape[0] for shape in shapes.values()), row.classes), channels


def _preprocessing(
    told: dict[str, Any], known: published.Published | None, side: int, channels: int, notes: list[str]
) -> Preprocessing:
    """What was told, over what the publisher states, over the plainest."""
    base: dict[str, Any] = {"size": side, "mode": "RGB" if channels == 3 else "L"}
    if known and not {"fit", "size", "mean", "std"} <= told.keys():
        base |= published.preprocessing(known, told.get("size"))
        if told.get("fit", base["fit"]) != "crop":
            del base["resize"]
    elif not {"mean", "std"} & told.keys():
        notes.append(
            "no mean and std were told: the network gets values of 0 to 1; wrong ones cost accuracy without a word"
        )
    for name in {"mean", "std"} & told.keys():  # one number stands for every channel
        if isinstance(told[name], Sequence) and len(told[name]) == 1:
            told = {**told, name: list(told[name]) * channels}
    return from_fields(Preprocessing, {**base, **told})


def _names(
    classes: Sequence[str] | str | Path | None,
    known: published.Published | None,
    count: int,
    path: Path,
    notes: list[str],
) -> list[str]:
    if isinstance(classes, str | Path):
        classes = read_classes(classes)
    if classes is None and known:
        classes = published.class_names(known) or None
    if classes is None:
        notes.append(f'no class names were told: they are called "0" to "{count - 1}"')
        classes = [str(index) for index in range(count)]
    if len(classes) != count:
        raise ArgumentError(
            f"{path} scores {count} classes, but {len(classes)} names were given; give as many"
        )
    names = [class_name(name, "the list of classes") for name in classes]
    if "" in names:
        raise ArgumentError(f"the name of class {names.index('')} is empty; give it one")
    doubled = unique(names)
    if doubled != names:
        changed = [new for old, new in zip(names, doubled, strict=True) if old != new]
        some = ", ".join(changed[:6]) + (", ..." if len(changed) > 6 else "")
        notes.append(f"{len(changed)} classes share their names and got their numbers: {some}")
    return doubled
