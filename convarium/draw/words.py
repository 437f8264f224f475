"""What a leaf is, in the few words that papers use in their figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

Shape = tuple[int, ...]

NORMS = {
    "BatchNorm2d": "BN",
    "BatchNorm1d": "BN",
    "BatchNormAct2d": "BN, act",
    "LayerNorm": "LN",
    "LayerNorm2d": "LN",
    "PlaneLayerNorm": "LN",
    "GroupNorm": "GN",
    "LocalResponseNorm": "LRN",
    "ResponseNorm": "LRN",
    "GlobalResponseNorm": "GRN",
}
ACTS = {
    "Hardswish": "h-swish",
    "Hardsigmoid": "h-sigmoid",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "ScaledTanh": "tanh",
    "SiLU": "SiLU",
    "QuickGELU": "QuickGELU",
    "Softmax": "softmax",
}
MINOR = {
    "Dropout": "dropout",
    "DropPath": "drop path",
    "StochasticDepth": "drop path",
    "LayerScale": "layer scale",
    "Scale": "scale",
    "Bias": "bias",
    "Renormalise": "renormalise",
}
"""Leaves that are named beside another one."""

SILENT = {"Identity", "Flatten", "Unflatten", "ChannelsLast", "ChannelsFirst", "Permute"}
"""Leaves that compute nothing: they are not named."""

SPECIAL = {
    "SelfAttention": "self-attention",
    "MultiheadAttention": "self-attention",
    "PatchTokens": "class token, positions",
    "TextTokens": "words, positions",
    "FirstToken": "first token",
    "PadShortcut": "pad with zeros",
    "GrowShortcut": "pad with zeros",
    "AttentionPool": "attention pool",
    "RadialBasis": "radial basis",
    "Subsample2d": "subsample",
}


@dataclass(frozen=True)
class Words:
    """A leaf in words.

    Args:
        role: "weights", "pool", "norm", "act", "minor", "silent", "identity" or "other".
        text: as in "3×3 conv, 64, /2".
        alike: equal for leaves that do the same and put out as many channels.
        form: equal for leaves of one sort, whatever their numbers, norm and activation.
    """

    role: str
    text: str
    alike: tuple[Any, ...]
    form: tuple[Any, ...]


def words(module: nn.Module, given: Shape | None, shape: Shape | None) -> Words:
    """A leaf in words.

    Args:
        module: a leaf of any library.
        given: shape of its input without the batch, where it is known.
        shape: shape of its output, where it is known.

    Returns:
        Its role and its words.
    """
    kind = type(module).__name__
    if isinstance(module, nn.Identity) or not _is_leaf_of_work(module, kind):
        role = "identity" if isinstance(module, nn.Identity | nn.Sequential | nn.ModuleList) else "silent"
        return Words(role, "", (role,), (role,))
    for known, role in ((NORMS, "norm"), (ACTS, "act"), (MINOR, "minor")):
        if kind in known:
            return Words(role, known[kind], (kind,), (role,))
    if "Norm" in kind:
        return Words("norm", kind, (kind,), ("norm",))
    if type(module).__module__.endswith("activation") and not any(True for _ in module.parameters()):
        return Words("act", kind, (kind,), ("act",))
    describe = _describer(module, kind)
    return describe(module, kind, shape)


def _is_leaf_of_work(module: nn.Module, kind: str) -> bool:
    return kind not in SILENT and not (isinstance(module, nn.Sequential | nn.ModuleList))


def _describer(module: nn.Module, kind: str) -> Callable[[nn.Module, str, Shape | None], Words]:
    if "Pool" in kind and kind not in SPECIAL or kind == "Subsample2d":
        return _pool
    if hasattr(module, "out_channels") and hasattr(module, "kernel_size"):
        return _convolution
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return _linear
    return _other


def _convolution(module: Any, kind: str, shape: Shape | None) -> Words:
    kernel, stride = by(module.kernel_size), by(getattr(module, "stride", 1))
    groups = getattr(module, "groups", 1)
    depthwise = groups > 1 and groups == module.in_channels
    text = f"{kernel} {'depthwise' if depthwise else 'conv'}, {module.out_channels}"
    if _ones(stride) is False:
        text += f", /{stride.partition('×')[0] if _square(stride) else stride}"
    dilation = by(getattr(module, "dilation", 1))
    if _ones(dilation) is False:
        text += f", dilation {dilation.partition('×')[0]}"
    if groups > 1 and not depthwise:
        text += f", {groups} groups"
    if hasattr(module, "table"):
        text += ", by table"
    sort = "depthwise" if depthwise else "grouped" if groups > 1 else "conv"
    wide = "" if sort == "depthwise" else "1×1" if _ones(kernel) else "k×k"
    return Words("weights", text, ("conv", text, groups if sort == "grouped" else 1), (sort, wide))


def _linear(module: Any, kind: str, shape: Shape | None) -> Words:
    text = f"linear, {module.out_features}"
    return Words("weights", text, ("linear", text), ("linear",))


def _pool(module: Any, kind: str, shape: Shape | None) -> Words:
    sort = "max pool" if "Max" in kind else "average pool"
    if kind == "Subsample2d":
        sort = "subsample"
    if hasattr(module, "output_size"):
        size = by(module.output_size)
        text = f"global {sort}" if _ones(size) else f"{sort} to {size}"
    elif hasattr(module, "kernel_size"):
        stride = by(getattr(module, "stride", None) or module.kernel_size)
        text = f"{by(module.kernel_size)} {sort}"
        if _ones(stride) is False:
            text += f", /{stride.partition('×')[0] if _square(stride) else stride}"
    else:
        text = kind
    return Words("pool", text, ("pool", text), ("pool", sort))


def _other(module: Any, kind: str, shape: Shape | None) -> Words:
    text = SPECIAL.get(kind, kind)
    heads = getattr(module, "heads", getattr(module, "num_heads", None))
    if isinstance(heads, int):
        text += f", {heads} heads"
    if getattr(module, "causal", False) is True:
        text += ", causal"
    if getattr(module, "stride", 1) not in (1, (1, 1)):
        text += f", /{module.stride}"
    if kind == "RadialBasis" and shape:
        text += f", {shape[-1]}"
    weighs = "attention" in text or any(True for _ in module.parameters())
    return Words("weights" if weighs else "other", text, (kind, text), (kind,))


def by(setting: Any) -> str:
    """3 and (3, 5) as 3×3 and 3×5; of a volume 3×3×3."""
    numbers = list(setting) if isinstance(setting, tuple | list) else [setting, setting]
    return "×".join(str(n) for n in numbers)


def _ones(setting: str) -> bool:
    return set(setting.split("×")) == {"1"}


def _square(setting: str) -> bool:
    return len(set(setting.split("×"))) == 1


def amount(number: float) -> str:
    """A count in few signs: 999, 25.6 k, 1.23 M, 4.09 G."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:
            value = number / size
            digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
            return f"{value:.{digits}f} {unit}"
    return f"{number:.0f}"


def form(shape: Shape | None) -> str:
    """A shape with times signs; empty where it is not known."""
    return "×".join(map(str, shape)) if shape else ""
