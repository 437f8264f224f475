"""Networks of timm and torchvision under the names "timm:NAME" and "torchvision:NAME": found, built and wrapped."""

from __future__ import annotations

import contextlib
import inspect
import math
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convarium.errors import ArgumentError, unknown_name
from convarium.models import timm_results
from convarium.models.registry import Variant
from convarium.models.wrapped import Foreign, with_weights
from convarium.net import EndPoint, meta_call

LIBRARIES = ("timm", "torchvision")

# How a library's network is told its size, where its tensors depend on it.
_SIZES = ("img_size", "image_size", "input_size")


def is_foreign(name: str) -> bool:
    """Whether this names a network of another library."""
    return name.partition(":")[0] in LIBRARIES and ":" in name


def names(library: str) -> list[str]:
    """All classification networks of a library, as "timm:resnet10t".

    Args:
        library: "timm" or "torchvision".
    """
    if library == "timm":
        import timm

        return [f"timm:{name}" for name in timm.list_models()]
    import torchvision

    return [f"torchvision:{name}" for name in torchvision.models.list_models(module=torchvision.models)]


def create(
    name: str,
    *,
    classes: int | None = None,
    in_channels: int | None = None,
    size: int | None = None,
    weights: str | Path | None = None,
    **arguments: Any,
) -> Foreign:
    """Build a network of another library, with fresh weights drawn as that library draws them or with a file's.

    Args:
        name: as "timm:resnet10t" or "torchvision:swin_t".
        classes: number of class scores; the published number where None; 0 for features without a classifier.
        in_channels: channels of the picture; 3 where None. In torchvision's the first convolution is replaced.
        size: side of the input in pixels; the published side where None.
        weights: a file of weights by the library's names; what it lacks for the classes and channels asked for is
            made by the rules of `adapt`, and as many classes as it scores are taken where `classes` is None.
        arguments: the library's own.

    Returns:
        The network in training mode.

    Raises:
        UnknownName: the library has no such network.
        ArgumentError: an argument that this network does not take, or a value that it cannot work with.
        CheckpointError: the weights cannot be read or do not fit.
    """
    own_classes, own_size = _published(name)
    chosen = {
        "classes": own_classes if classes is None else classes,
        "in_channels": 3 if in_channels is None else in_channels,
        "size": own_size if size is None else size,
    }
    for argument, value in chosen.items():
        least = 0 if argument == "classes" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ArgumentError(f"{argument} = {value!r}; it must be a whole number of at least {least}")

    def empty(count: int, channels: int) -> Foreign:
        given = {**chosen, "classes": count, "in_channels": channels, **arguments}
        return build_empty({"name": name, "arguments": given})

    def fresh(count: int, channels: int) -> Foreign:
        return _build(name, **{**chosen, "classes": count, "in_channels": channels, **arguments})

    first = fresh if weights is None else empty
    net = first(chosen["classes"], chosen["in_channels"])
    if chosen["size"] != own_size and not _works(net):
        raise ArgumentError(f"{name} cannot work with pictures of {size} pixels; its own size is {own_size}")
    if weights is None:
        return net
    loaded = with_weights(net, Path(weights), empty, fresh, any_count=classes is None)
    return loaded.to(torch.get_default_device())


def build_empty(architecture: Mapping[str, Any]) -> Foreign:
    """A network without memory, from what `net.architecture` told, to assign loaded tensors to.

    Networks that hold tensors which their files do not (tables of positions, masks) are built with memory instead.

    Args:
        architecture: {"name", "arguments"}.

    Returns:
        The network, on the meta device where that is possible.
    """
    name, arguments = architecture["name"], architecture["arguments"]
    with torch.device("meta"):
        net = _build(name, **arguments)
    stored = net.state_dict().keys()
    tables = [n for n, _ in net.net.named_buffers() if n not in stored]
    loose = [m for m in net.modules() if any(isinstance(v, Tensor) and v.is_meta for v in vars(m).values())]
    if tables or loose:
        with torch.random.fork_rng(devices=[]):
            return _build(name, **arguments)
    return net


def variant(name: str) -> Variant:
    """A row for a network of another library, with what the library tells of it.

    Args:
        name: as "timm:resnet10t".

    Returns:
        The row; its year is 0, for no library tells it, and its paper is what the library refers to.

    Raises:
        UnknownName: the library has no such network.
    """
    classes, size = _published(name)
    architecture = {"name": name, "arguments": {"classes": classes, "in_channels": 3, "size": size}}
    library, _, theirs = name.partition(":")
    paper, top1, macs, source = f"as in {library}", None, None, ""
    if library == "timm":
        configuration = _configuration(theirs)
        papers = configuration.paper_ids or ()
        paper = ", ".join([paper, *([papers] if isinstance(papers, str) else papers)])
        measured = timm_results.results().get((f"{theirs}.{configuration.tag}", size))
        if measured:
            top1, macs = measured.top1, measured.macs
            source = f"{timm_results.SOURCE}: {configuration.tag}"
    else:
        meta = _best(theirs).meta
        top1, macs = meta["_metrics"]["ImageNet-1K"]["acc@1"], meta["_ops"] * 1e9
        source = f"torchvision's weights {_best(theirs).name}, metadata"
    return Variant(
        name=name,
        family=library,
        build=lambda **arguments: _build(name, **arguments),  # type: ignore[arg-type]
        year=0,
        paper=paper,
        parameters=sum(p.numel() for p in build_empty(architecture).parameters()),
        size=size,
        classes=classes,
        macs=macs,
        top1=top1,
        source=source,
        reference=name,
        rules={library: ()},
    )


def _published(name: str) -> tuple[int, int]:
    """Classes and input side of the published network."""
    library, _, theirs = name.partition(":")
    if library not in LIBRARIES:
        raise unknown_name("library of networks", library, LIBRARIES)
    if name not in names(library):
        raise unknown_name("network", name, names(library), f"(names as in {library})")
    if library == "torchvision":
        weights = _best(theirs)
        return len(weights.meta["categories"]), weights.transforms().crop_size[0]
    configuration = _configuration(theirs)
    # Some are published without a classifier; they get ImageNet's number until another is asked for.
    return configuration.num_classes or 1000, configuration.input_size[-1]


def _configuration(name: str) -> Any:
    from timm.models import get_pretrained_cfg
    from timm.models._pretrained import PretrainedCfg

    return get_pretrained_cfg(name) or PretrainedCfg()


def _best(name: str) -> Any:
    from torchvision.models import get_model_weights

    return get_model_weights(name).DEFAULT


def _build(name: str, *, classes: int, in_channels: int, size: int, **arguments: Any) -> Foreign:
    library, _, theirs = name.partition(":")
    make = _of_timm if library == "timm" else _of_torchvision
    try:
        with warnings.catch_warnings():  # the libraries doubt some of their own older parts
            warnings.simplefilter("ignore")
            net = make(theirs, classes, in_channels, size, arguments)
    except TypeError as error:
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if not refused:
            raise
        if refused[1] in _SIZES and refused[1] not in arguments:
            raise ArgumentError(f"{name} works at its own size only, not {size} pixels") from error
        raise ArgumentError(
            f"{name} takes no argument {refused[1]!r}; it takes "
            + ", ".join(["classes", "in_channels", "size", "weights", *options(name)])
        ) from error
    except (ValueError, AssertionError, RuntimeError) as error:
        raise ArgumentError(
            f"{name} cannot be built with classes = {classes}, in_channels = {in_channels}, size = {size}"
            + "".join(f", {key} = {value!r}" for key, value in arguments.items())
            + f": {error}"
        ) from error
    classifier = _classifier(net, classes or 1)
    if not classes and classifier and library == "torchvision":
        net.set_submodule(classifier, nn.Identity())
    given = {"classes": classes, "in_channels": in_channels, "size": size, **arguments}
    return Foreign(net, name, given, classifier, _stages(net))


def options(name: str) -> dict[str, Any]:
    """The library's arguments that a network takes beside ours, with the defaults of its class."""
    classes, size = _published(name)
    with torch.device("meta"):
        net = _build(name, classes=classes, in_channels=3, size=size)
    hidden = {"self", "num_classes", "in_chans", "args", "kwargs", "device", "dtype", *_SIZES}
    parameters = inspect.signature(type(net.net).__init__).parameters
    return {n: p.default for n, p in parameters.items() if n not in hidden}


def _of_timm(name: str, classes: int, in_channels: int, size: int, arguments: Mapping[str, Any]) -> nn.Module:
    import timm

    configuration = _configuration(name)
    fixed = configuration.fixed_input_size and size != configuration.input_size[-1]
    sizes: dict[str, Any] = {"img_size": size} if fixed else {}
    return timm.create_model(
        name, pretrained=False, num_classes=classes, in_chans=in_channels, **sizes, **arguments
    )


def _of_torchvision(
    name: str, classes: int, in_channels: int, size: int, arguments: Mapping[str, Any]
) -> nn.Module:
    import torchvision

    taken = inspect.signature(_class_of(name)).parameters
    given: dict[str, Any] = {"num_classes": classes or 1}  # without classes the classifier is taken off later
    if "image_size" in taken:
        given["image_size"] = size
    elif "input_size" in taken:
        given["input_size"] = (size, size)
    if not classes and "aux_logits" in taken:
        given["aux_logits"] = False
    if "init_weights" in taken and name in ("googlenet", "inception_v3"):
        given["init_weights"] = not torch.empty(0).is_meta  # a choice that they ask for
    build = partial(torchvision.models.get_model, name, weights=None, **{**given, **arguments})
    try:
        net = build()
    except (
        NotImplementedError
    ):  # without memory: RegNet works out its widths by tensors, whose values it reads
        with torch.device("cpu"):
            net = build().to("meta")
    if in_channels != 3:
        path, first = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
        settings = ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        net.set_submodule(
            path,
            nn.Conv2d(in_channels, bias=first.bias is not None, **{s: getattr(first, s) for s in settings}),
        )
    return net


def _class_of(name: str) -> type[nn.Module]:
    """The class that a builder of torchvision returns, from its annotation."""
    import torchvision

    builder = torchvision.models.get_model_builder(name)
    found = inspect.signature(inspect.unwrap(builder)).return_annotation
    return getattr(sys.modules[builder.__module__], found) if isinstance(found, str) else found


def _classifier(net: nn.Module, classes: int) -> str:
    """Path of the last part that gives as many outputs as there are classes."""
    told = getattr(net, "get_classifier", lambda: None)()
    found = ""
    for path, module in net.named_modules():
        if module is told and path:
            return path
        if isinstance(module, nn.Linear | nn.Conv2d) and classes == module.weight.shape[0]:
            found = path
    return "" if told is not None and not isinstance(told, nn.Module) else found


def _stages(net: nn.Module) -> dict[str, EndPoint]:
    """What timm's network tells of its stages; nothing for others."""
    parts = dict(net.named_modules())
    told: Iterator[Any] = iter(getattr(net, "feature_info", None) or ())
    with contextlib.suppress(KeyError, TypeError):  # some tell in another form: then nothing is known
        found = {entry["module"]: EndPoint(entry["num_chs"], entry["reduction"]) for entry in told}
        return found if all(path in parts for path in found) else {}
    return {}


def _works(net: Foreign) -> bool:
    """Whether a picture of the network's size goes through, tried without memory."""
    try:
        out = meta_call(net, "forward", (2, net.in_channels, net.size, net.size))
    except (RuntimeError, AssertionError, ValueError):
        return False
    return out.shape[0] == 2 and (not net.classes or math.prod(out.shape) == 2 * net.classes)
