"""What a run begins with: the data in its parts, and trained weights with the preprocessing that they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convarium import storage
from convarium.classifier import described
from convarium.data.folders import Data, read_data
from convarium.data.preprocessing import Preprocessing, from_fields
from convarium.data.splits import folds, lonely, stratified
from convarium.errors import ArgumentError, DataError
from convarium.models import download, front, published
from convarium.models.foreign import is_foreign
from convarium.models.registry import options
from convarium.training.recipes import Recipe

CUSTOM = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
"""Of ImageNet's training pictures, as nearly all weights since 2015 expect them (torchvision's documentation)."""


@dataclass(frozen=True)
class Start:
    """Trained weights as a run uses them.

    Args:
        weights: published ones by name, or the path of a file; None for none.
        sha256: of the file; None for published ones, whose checksum the download compares.
        size: side of the network's input in pixels; the network's own where None.
        preprocessing: fields of `Preprocessing` that the weights ask for; None without weights.
        arguments: what the network must be built with.
        notes: what had to be assumed.
    """

    weights: str | None = None
    sha256: str | None = None
    size: int | None = None
    preprocessing: dict[str, Any] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def weights_of(
    model: str,
    weights: str | Path | None,
    size: int | None,
    channels: int,
    fit: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    deep: bool = False,
) -> Start:
    """Find trained weights, and how pictures are prepared for them.

    Args:
        model: name of the network.
        weights: published ones by name, or a file; None for none.
        size: side of the input in pixels; that of the weights where None.
        channels: 1 or 3; with `deep` any number.
        fit: as the user wants it; as the weights ask for where None.
        mean: per channel, where the weights do not tell.
        std: likewise.
        deep: whether pictures keep more than 8 bits.

    Returns:
        The weights, fetched where they are published ones.

    Raises:
        ArgumentError: a mean without weights, or one that the weights contradict.
        CheckpointError: the weights cannot be had.
    """
    if weights is None:
        if mean or std:
            raise ArgumentError(
                "--mean and --std are for trained weights; without them both are computed from the training pictures"
            )
        return Start(size=size)
    notes: list[str] = []
    arguments: dict[str, Any] = {}
    sha256: str | None = None
    if published.is_reference(weights):
        known = published.find(model, str(weights))
        download.fetch(known)
        fields = published.preprocessing(known, size)
        arguments = dict(known.arguments)
        told, where = known.reference, "states"
    else:
        path = front.file(model, weights)
        sha256, told, where = storage.sha256(path), str(path.absolute()), "says"
        content = described(path)
        side = size or (content["preprocessing"]["size"] if content else front.variant(model).size)
        if content:
            fields = {**content["preprocessing"], "size": side}
            if side != content["preprocessing"]["size"]:
                resize = content["preprocessing"].get("resize")
                fields["resize"] = resize and round(resize * side / content["preprocessing"]["size"])
            own = content["architecture"]["arguments"]
            arguments = {n: v for n, v in own.items() if n not in ("classes", "in_channels", "size")}
        else:
            fields = {"size": side, "resize": round(side * 256 / 224) if side >= 64 else None, **CUSTOM}
            if not (mean and std):
                notes.append(
                    f"{path.name} does not say how its pictures were prepared: ImageNet's mean and standard deviation "
                    "are taken by custom; give --mean and --std where it was trained with others"
                )
    spread = deep and len(fields["mean"]) != channels  # then no weights tell of these bands
    if spread:
        fields |= {n: [sum(fields[n]) / len(fields[n])] * channels for n in ("mean", "std")}
    if spread and not (mean and std):
        notes.append(
            f"the weights do not know pictures of {channels} bands: the average of their mean, and of their standard "
            "deviation, is taken for each; give --mean and --std where you know better"
        )
    for name, asked in (("mean", mean), ("std", std)):
        if asked:
            said = (published.is_reference(weights) or content) and not spread
            if said and list(asked) != list(fields[name]):
                raise ArgumentError(
                    f"--{name} {list(asked)}: {told} {where} {list(fields[name])}; leave it out, or wrong pictures "
                    "reach the network"
                )
            fields[name] = list(asked) * (channels if len(asked) == 1 else 1)
    if channels == 1 and len(fields["mean"]) == 3:
        fields |= {n: [sum(fields[n]) / 3] for n in ("mean", "std")}
    fields["mode"] = "F" if deep else "L" if channels == 1 else "RGB"
    fields["bands"] = channels if deep else None
    if deep and fields.get("filter") == "lanczos":
        fields["filter"] = "bicubic"
        notes.append(
            "the weights were trained with the filter lanczos, which there is not for pictures that keep all bits: "
            "bicubic is taken"
        )
    if fit and fit != fields.get("fit", "crop"):
        fields |= {"fit": fit, "resize": None if fit != "crop" else round(fields["size"] * 256 / 224)}
    return Start(
        weights=told,
        sha256=sha256,
        size=fields["size"],
        preprocessing=from_fields(Preprocessing, fields).to_dict(),
        arguments=arguments,
        notes=notes,
    )


def regularised(model: str, recipe: Recipe) -> dict[str, Any]:
    """What a recipe asks of the network itself, where its family can do it.

    Args:
        model: name of the network.
        recipe: its stochastic depth and dropout; 0 leaves the network's own.

    Returns:
        Arguments for `create`.
    """
    asked = {"drop_path": recipe.stochastic_depth, "dropout": recipe.dropout}
    asked = {name: value for name, value in asked.items() if value}
    if not asked:
        return {}
    own = {"drop_path_rate", "drop_rate"} if is_foreign(model) else set(options(model))
    names = {"drop_path": "drop_path_rate", "dropout": "drop_rate"} if is_foreign(model) else {}
    if model.startswith("torchvision:"):
        return {}
    return {names.get(n, n): v for n, v in asked.items() if names.get(n, n) in own}


def read(
    data: Path,
    val: Path | None,
    fraction: float,
    seed: int,
    fold: tuple[int, int] | None = None,
    deep: bool = False,
) -> Data:
    """The data with parts "train" and "val", and "test" where it has one beside a validation part.

    Args:
        data: as for `train`.
        val: other data to validate on.
        fraction: share of each class that is held out where the data has no parts of its own.
        seed: of what is held out.
        fold: (which, of how many) is held out instead.
        deep: arrays (.npy) are pictures, too.

    Raises:
        DataError: there is nothing to train on, or it cannot be divided so.
    """
    found = read_data(data, deep=deep)
    parts = found.parts
    if fold is not None:
        if val is not None or set(parts) - {"all", "train"}:
            raise ArgumentError(
                f"{data} has parts of its own ({', '.join(parts)}), so it is not divided into folds; give one "
                "folder of class folders"
            )
        whole = parts.get("all") or parts["train"]
        held = folds(whole, fold[1], seed)[fold[0]]
        keys = {picture.key for picture in held.pictures}
        rest = tuple(picture for picture in whole.pictures if picture.key not in keys)
        parts = {"train": type(whole)(whole.classes, rest), "val": held}
    elif val is not None:
        other = read_data(val, classes=found.classes, deep=deep)
        name = next(p for p in ("val", "test", "all", "train") if p in other.parts)
        parts = {"train": parts.get("train") or parts["all"], "val": other.parts[name]}
        found.notes += other.notes
    elif "all" in parts:
        found.notes += lonely(parts["all"])
        parts = dict(zip(("train", "val"), stratified(parts["all"], fraction, seed), strict=True))
    elif "train" not in parts:
        raise DataError(f"{data} has no pictures to train on; it has {', '.join(parts)}")
    elif "val" not in parts and "test" in parts:
        # Nothing is selected by it unless early stopping is asked for, which the report then says.
        parts = {"train": parts["train"], "val": parts["test"]}
    elif "val" not in parts:
        found.notes += lonely(parts["train"])
        parts = dict(zip(("train", "val"), stratified(parts["train"], fraction, seed), strict=True))
    return Data(found.root, found.classes, parts, found.notes)
