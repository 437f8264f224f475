"""Trained weights that others have published: what exists, told by the publishers' own metadata.

    torchvision:IMAGENET1K_V2           a member of the network's weights enum in torchvision.models
    timm:resnet50.a1_in1k               a network and a tag in timm's table of pretrained configurations
    openai:ViT-B-32                     CLIP as OpenAI trained it
    open_clip:ViT-B-32:laion400m_e32    CLIP as others trained it, where open_clip is installed

Nothing is listed here by hand but how a publisher calls a network whose name is not ours. Only weights are listed
whose names can be renamed to ours and whose network computes what ours does.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import Any

from convarium.errors import (
    ArgumentError,
    MissingExtra,
    UnknownName,
    WeightsMismatch,
    unknown_name,
)
from convarium.models import alike, foreign, timm_results
from convarium.models.registry import variant

PUBLISHERS = ("torchvision", "timm", "openai", "open_clip")

# A checksum's beginning, where a publisher writes it into the file's name: torch.hub's custom.
_HASHED = re.compile(r"-([0-9a-f]{8,})\.")

# CLIP's towers: OpenAI's and open_clip's name, and timm's for the same hub entry.
CLIP_NAMES = {
    "clip_rn50": ("RN50", "resnet50_clip"),
    "clip_rn101": ("RN101", "resnet101_clip"),
    "clip_vit_b_32": ("ViT-B-32", "vit_base_patch32_clip_224"),
    "clip_vit_b_16": ("ViT-B-16", "vit_base_patch16_clip_224"),
    "clip_vit_l_14": ("ViT-L-14", "vit_large_patch14_clip_224"),
}

# What these networks of torchvision's do to their input once they are given weights.
_RENORMALISED = ("googlenet", "inception_v3")


@dataclass(frozen=True)
class Published:
    """One set of trained weights, as its publisher describes it.

    Args:
        publisher: one of `PUBLISHERS`.
        model: the publisher's name of the network.
        tag: the publisher's name of this set of weights.
        reference: what `create(..., weights=)` is given to get them.
        files: names of the file, the preferred one first (others for hub entries that have no such file).
        url: where the file lies; empty where it is in the hub.
        hub: entry of the Hugging Face hub, as "timm/resnet50.a1_in1k"; empty where there is an address.
        sha256: the checksum's beginning, as far as the publisher tells it; the hub tells its own on download.
        bytes: size of the file, as exact as the publisher tells it; None where it does not.
        parameters: of the publisher's network; None where not told.
        top1: accuracy on ImageNet-1k in per cent; None where the publisher does not tell it.
        top5: as top1, among the first five.
        classes: number of class scores; 0 where the weights end before the classifier.
        size: side of the input in pixels.
        resize: shorter side before the crop, in pixels.
        fit: "crop", "squash" or "border" (kept whole within a frame), as in timm's `crop_mode`.
        interpolation: filter of the resizing.
        mean: per channel, of values 0..1.
        std: per channel, of values 0..1.
        licence: in the publisher's words; empty where none is stated with the weights.
        about: where they come from: a page or a paper.
        arguments: what our network must be built with to compute the same.
    """

    publisher: str
    model: str
    tag: str
    reference: str
    files: tuple[str, ...]
    url: str = ""
    hub: str = ""
    sha256: str = ""
    bytes: int | None = None
    parameters: int | None = None
    top1: float | None = None
    top5: float | None = None
    classes: int = 1000
    size: int = 224
    resize: int = 256
    fit: str = "crop"
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    licence: str = ""
    about: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)


def is_reference(text: object) -> bool:
    """Whether this asks for published weights, as "timm:..." does, and is no path of a file."""
    return isinstance(text, str) and text.partition(":")[0] in PUBLISHERS and ":" in text


def available(name: str) -> list[Published]:
    """All published weights that fit a network.

    Args:
        name: one of ours, or "timm:NAME" or "torchvision:NAME" for a network of theirs.

    Returns:
        Each publisher's in its own order, possibly none.

    Raises:
        UnknownName: no such network.
    """
    if foreign.is_foreign(name):
        library, _, theirs = name.partition(":")
        if name not in foreign.names(library):
            raise unknown_name("network", name, foreign.names(library), f"(names as in {library})")
        return list(_torchvision(theirs) if library == "torchvision" else _timm(theirs))
    if name in CLIP_NAMES:
        return list(_clip(name))
    found: list[Published] = []
    for library, listed in (("torchvision", _torchvision), ("timm", _timm)):
        if model := alike.counterpart(name, library):
            found += listed(model)
    return found


def find(name: str, reference: str) -> Published:
    """One set of published weights.

    Args:
        name: the network, as in `available`.
        reference: as `Published.reference` states it; for timm the tag alone will do, as in "timm:a1_in1k",
            and "torchvision:DEFAULT" is the set that torchvision holds for the best.

    Returns:
        Its record.

    Raises:
        UnknownName: there is none of that reference for this network; near ones are suggested.
        MissingExtra: open_clip lists them, and is not installed.
        WeightsMismatch: it is another network's of the same names and shapes.
    """
    known = available(name)
    publisher, _, tag = reference.partition(":")
    if publisher == "torchvision" and tag == "DEFAULT":
        tag = next((_default(p.model) for p in known if p.publisher == publisher), tag)
    for published in known:
        if reference == published.reference or (publisher, tag) == (published.publisher, published.tag):
            return published
    for other in alike.mistakable(name):
        if any(reference in (p.reference, f"{p.publisher}:{p.tag}") for p in available(other)):
            raise WeightsMismatch(
                f"{reference!r} are weights of {other} ({variant(other).paper}); {name} has the same names and "
                "shapes but computes something else, so they would be wrong in it; "
                f"use create({other!r}, weights={reference!r})"
            )
    if publisher == "open_clip" and name in CLIP_NAMES and find_spec("open_clip") is None:
        raise MissingExtra(
            f"{reference!r} is looked up in open_clip, which is not installed; install it: pip install open_clip_torch"
        )
    if not known:
        raise UnknownName(
            f"no published weights are known for {name}, so not {reference!r} either; "
            "give the path of a file, or train it"
        )
    raise unknown_name(
        f"set of weights for {name}",
        reference,
        (published.reference for published in known),
        f"(`convarium weights {name}` shows all)",
    )


def preprocessing(published: Published, size: int | None = None) -> dict[str, Any]:
    """How pictures are prepared for these weights, with the fields of `convarium.data`'s Preprocessing.

    torchvision states the shorter side before the crop. timm states the share of it that is kept: the shorter side
    is floor(size / crop_pct), as timm's own evaluation computes it.

    Args:
        published: the weights.
        size: side of the input in pixels where another is wanted; the share that is kept stays the same.

    Returns:
        "size", "mode", "fit", "resize", "filter", "mean", "std", "orient".

    Raises:
        ArgumentError: these pictures are prepared in a way that has no such description.
    """
    side = size or published.size
    resize = max(side, math.floor(published.resize * side / published.size))
    if published.fit == "border" or (published.fit == "squash" and resize != side):
        raise ArgumentError(
            f"{published.reference} frames its pictures ({published.fit!r}, {resize} to {side} pixels), which cannot "
            "be stated as a preprocessing; give one of your own"
        )
    return {
        "size": side,
        "mode": "RGB",
        "fit": published.fit,
        "resize": resize if published.fit == "crop" else None,
        "filter": published.interpolation,
        "mean": list(published.mean),
        "std": list(published.std),
        "orient": True,
    }


@cache
def class_names(published: Published) -> tuple[str, ...]:
    """Names of the classes in the order of the scores.

    ImageNet's thousand have the names that torchvision gives them, whoever published the weights, so that two
    classifiers can be compared by name; of larger sets timm's words are taken, and WordNet's number is added where
    two classes share a word.

    Args:
        published: the weights.

    Returns:
        One name a class; none where the publisher does not tell them.
    """
    if published.classes == 1000:
        from torchvision.models import get_model_weights

        return tuple(get_model_weights("resnet18").DEFAULT.meta["categories"])
    if published.publisher != "timm":
        return ()
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": published.classes})
    if subset is None:
        return ()
    info = ImageNetInfo(subset)
    words = [words.split(",")[0] for words in info.label_descriptions()]
    times = Counter(words)
    return tuple(
        f"{word} ({number})" if times[word] > 1 else word
        for word, number in zip(words, info.label_names(), strict=True)
    )


def _default(model: str) -> str:
    from torchvision.models import get_model_weights

    return get_model_weights(model).DEFAULT.name


def _torchvision(model: str) -> Iterator[Published]:
    import torchvision

    if model not in torchvision.models.list_models(module=torchvision.models):
        return
    for weights in torchvision.models.get_model_weights(model):
        meta, prepare = weights.meta, weights.transforms()
        if not meta["categories"]:  # vgg16's IMAGENET1K_FEATURES, whose classifier is not a number
            continue
        metrics = meta.get("_metrics", {}).get("ImageNet-1K", {})
        file = weights.url.rpartition("/")[2]
        hashed = _HASHED.search(file)
        yield Published(
            publisher="torchvision",
            model=model,
            tag=weights.name,
            reference=f"torchvision:{weights.name}",
            files=(file,),
            url=weights.url,
            sha256=hashed[1] if hashed else "",
            bytes=round(meta["_file_size"] * 2**20) if "_file_size" in meta else None,  # given in MiB
            parameters=meta.get("num_params"),
            top1=metrics.get("acc@1"),
            top5=metrics.get("acc@5"),
            classes=len(meta["categories"]),
            size=prepare.crop_size[0],
            resize=prepare.resize_size[0],
            interpolation=prepare.interpolation.value,
            mean=tuple(prepare.mean),
            std=tuple(prepare.std),
            licence=meta.get("license", ""),
            about=meta.get("recipe", ""),
            arguments={"transform_input": True} if model in _RENORMALISED else {},
        )


def _timm(model: str) -> Iterator[Published]:
    import timm
    from timm.models import get_arch_pretrained_cfgs

    if not timm.is_model(model):
        return
    configuration: Any
    for configuration in get_arch_pretrained_cfgs(model).values():
        # Files of another kind than tensors by name are only named, and those with a class more are not ours.
        own = not configuration.custom_load or (configuration.hf_hub_id and configuration.custom_load != "hf")
        if configuration.has_weights and own and not configuration.label_offset:
            yield of_timm(model, configuration)


def of_timm(model: str, c: Any) -> Published:
    hub, url = c.hf_hub_id or "", "" if c.hf_hub_id else c.url
    file = url.rpartition("/")[2]
    hashed = _HASHED.search(file)
    papers = (c.paper_ids,) if isinstance(c.paper_ids, str) else c.paper_ids or ()
    top1, top5 = timm_results.accuracy(f"{model}.{c.tag}", c.input_size[-1]) or (None, None)
    return Published(
        publisher="timm",
        model=model,
        tag=c.tag,
        reference=f"timm:{model}.{c.tag}",
        files=(c.hf_hub_filename or "model.safetensors", "pytorch_model.bin") if hub else (file,),
        url=url,
        hub=hub,
        sha256=hashed[1] if hashed else "",
        top1=top1,
        top5=top5,
        classes=c.num_classes,
        size=c.input_size[-1],
        resize=math.floor(c.input_size[-1] / c.crop_pct),
        fit={"center": "crop"}.get(c.crop_mode, c.crop_mode),
        interpolation=c.interpolation,
        mean=tuple(c.mean),
        std=tuple(c.std),
        licence=c.license or "",
        about=c.origin_url or ", ".join(papers),
    )


def _clip(name: str) -> Iterator[Published]:
    from timm.models import get_pretrained_cfg
    from timm.models._hub import HF_OPEN_CLIP_SAFE_WEIGHTS_NAME as BOTH_TOWERS

    theirs, in_timm = CLIP_NAMES[name]
    c: Any = get_pretrained_cfg(f"{in_timm}.openai")
    files = (BOTH_TOWERS, "open_clip_pytorch_model.bin")
    shared: dict[str, Any] = {"model": theirs, "files": files, "classes": 0, "interpolation": "bicubic"}
    yield Published(
        publisher="openai",
        tag=theirs,
        reference=f"openai:{theirs}",
        hub=c.hf_hub_id,
        size=c.input_size[-1],
        resize=c.input_size[-1],
        mean=tuple(c.mean),
        std=tuple(c.std),
        about="https://github.com/openai/CLIP",  # timm's licence field is its own default there, not OpenAI's
        **shared,
    )
    try:
        from open_clip.pretrained import get_pretrained_cfg as configuration
        from open_clip.pretrained import list_pretrained_tags_by_model as tags
    except ImportError:  # an optional library; what it lists is then unknown
        return
    for tag in tags(theirs):
        told = configuration(theirs, tag)
        hub, _, file = told.get("hf_hub", "").rpartition("/")
        if tag != "openai" and hub:
            yield Published(
                publisher="open_clip",
                tag=f"{theirs}:{tag}",
                reference=f"open_clip:{theirs}:{tag}",
                hub=hub,
                size=c.input_size[-1],
                resize=c.input_size[-1],
                fit={"shortest": "crop"}.get(told["resize_mode"], told["resize_mode"]),
                mean=tuple(told["mean"]),
                std=tuple(told["std"]),
                arguments={} if told.get("quick_gelu") else {"act": "gelu"},
                **(shared | ({"files": (file,)} if file else {})),
            )
