"""What a file of weights is, which network it belongs to, and what keeps it from fitting. Nothing in it is executed."""

from __future__ import annotations

import contextlib
import json
import math
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convarium.errors import ArgumentError, CheckpointError
from convarium.models import alike, registry, torchscript, weights

# A network is tried when its parameters are between these shares of the file's: another number of classes or of
# channels, or a missing classifier, changes much of a small network (MobileNetV2 0.35: three quarters).
_NEAR = (0.4, 5.0)

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Fit:
    """How a file fits one network.

    Args:
        name: of the network.
        publisher: whose names the file carries, as that network's rules know them.
        arguments: classes, channels and size that fit the file best.
        problems: one line a tensor that does not fit; none when all do.
        tensors: how many the network has.
    """

    name: str
    publisher: str
    arguments: dict[str, Any]
    problems: tuple[str, ...]
    tensors: int


@dataclass
class Examination:
    """All that was found out about a file.

    Args:
        path: the file.
        bytes: its size.
        kind: what it is, in words.
        problem: why its tensors cannot be read; empty where they can.
        description: what one of our own files says of itself.
        tensors: how many.
        parameters: numbers in them, without the statistics of norms.
        dtypes: how many tensors of each type.
        classes: number of class scores, as the best fit tells; 0 for features alone; None where nothing fits.
        fits: networks, the best first; several where names and shapes cannot tell them apart.
        norms: what the statistics of batch norm look like.
        notes: what else is worth knowing.
    """

    path: str
    bytes: int
    kind: str
    problem: str = ""
    description: dict[str, Any] = field(default_factory=dict)
    tensors: int = 0
    parameters: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    classes: int | None = None
    fits: list[Fit] = field(default_factory=list)
    norms: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether the tensors can be read and fit some network completely."""
        return any(not fit.problems for fit in self.fits)

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-able, with `usable`."""
        return {**asdict(self), "usable": self.usable}


def examine(path: str | Path, model: str | None = None) -> Examination:
    """Look into a file of weights.

    Args:
        path: any file.
        model: the only network to compare with; the nearest of all where None.

    Returns:
        What was found; a damaged file has a `problem`.

    Raises:
        CheckpointError: there is no such file.
        UnknownName: no such network.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no file at {path}")
    if model is not None:
        registry.variant(model)
    kind, problem = identify(path)
    found = Examination(str(path), path.stat().st_size, kind, problem)
    if problem:
        return found
    try:
        state = torchscript.read(path) if torchscript.is_torchscript(path) else weights.read(_named(path))
    except CheckpointError as error:
        found.problem = str(error)
        return found
    found.tensors = len(state)
    found.parameters = sum(t.numel() for n, t in state.items() if not n.endswith(_STATISTICS))
    for tensor in state.values():
        name = str(tensor.dtype).removeprefix("torch.")
        found.dtypes[name] = found.dtypes.get(name, 0) + 1
    found.description = weights.description(path)
    found.norms = _norms(state)
    found.notes += _oddities(state)
    architecture = found.description.get("architecture") or {}
    names = [model] if model else _candidates(found.parameters, architecture.get("name"))
    found.fits = _fits(names, state, architecture if architecture.get("name") in names else {})
    if model is None:  # what shares less than half of its tensors with the file is another network
        found.fits = [fit for fit in found.fits if len(fit.problems) < fit.tensors / 2][:3]
    if found.fits:
        found.classes = found.fits[0].arguments["classes"]
    perfect = [fit.name for fit in found.fits if not fit.problems]
    if architecture.get("name") in perfect:
        found.fits = [fit for fit in found.fits if fit.name == architecture["name"]]
    elif len(perfect) > 1:
        found.notes.append(_undecided(perfect))
    return found


def identify(path: Path) -> tuple[str, str]:
    """What kind of file this is, from its bytes, whatever its name.

    Args:
        path: the file.

    Returns:
        The kind in words, and what keeps it from being read; "" where nothing does.
    """
    with path.open("rb") as file:
        start = file.read(512)
    size = path.stat().st_size
    if not start:
        return "an empty file", "it holds nothing; get it anew"
    if start.startswith(b"version https://git-lfs"):
        return (
            "a Git LFS pointer",
            "the weights themselves were not fetched; run `git lfs pull` where it came from",
        )
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page", "a server sent a page in place of the weights; fetch it again"
    if start.startswith(b"PK"):
        return _zip(path)
    header = struct.unpack("<Q", start[:8])[0] if len(start) >= 9 else 0
    if 2 <= header < 100_000_000 and start[8:9] == b"{":
        return "a .safetensors file", _safetensors(path, header, size)
    if start.startswith(b"\x89HDF"):
        return "an HDF5 file, as Keras writes", "tensors of Keras are not read; convert them to .safetensors"
    if start.startswith(b"\x80") and b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19" in start[:20]:
        return "a PyTorch file of the old form (before 1.6)", ""
    if start.startswith(b"\x80"):
        return "a Python pickle", ""
    return (
        "a file of unknown kind",
        "it begins like no file of weights; .safetensors and PyTorch's files are read",
    )


def _zip(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a PyTorch file (or another zip)", "its end is missing: it was cut; get it anew"
    if any("/code/" in name for name in names):
        return "a TorchScript archive (read without running its code)", ""
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch file", ""
    if any(name.endswith(".npy") for name in names):
        return "a NumPy archive", "tensors of JAX or NumPy are not read; convert them to .safetensors"
    return "a zip archive", "it holds no weights that PyTorch wrote; unpack it first"


def _safetensors(path: Path, header: int, size: int) -> str:
    if 8 + header > size:
        return f"it was cut within its table of contents, at {size:,} bytes; get it anew"
    try:
        entries = _header(path)
        end = (
            8
            + header
            + max((e["data_offsets"][1] for n, e in entries.items() if n != "__metadata__"), default=0)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its table of contents cannot be read; get it anew"
    return f"it was cut: it should have {end:,} bytes and has {size:,}; get it anew" if end > size else ""


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))


def _undecided(names: Sequence[str]) -> str:
    """What can be said of a file that fits several networks."""
    both = " and ".join(names)
    if len({alike.function(name) for name in names}) == 1:
        return f"{both} are one network under several names"
    rows = [registry.variant(name) for name in names]
    offered = " and ".join(f"{row.name} ({row.paper})" for row in rows if row.reference)
    return (
        f"it fits {both} equally: they have the same names and shapes but compute different things, and only who "
        "trained it can tell which it is" + (f"; the publishers' weights are of {offered}" if offered else "")
    )


def _candidates(parameters: int, told: str | None) -> list[str]:
    """Networks of about this many parameters, the nearest first, and the one that the file itself tells of."""
    distances = {
        name: abs(math.log(registry.variant(name).parameters / max(parameters, 1)))
        for name in registry.names()
        if _NEAR[0] < registry.variant(name).parameters / max(parameters, 1) < _NEAR[1]
    }
    near = sorted(distances, key=distances.__getitem__)
    return list(dict.fromkeys([*([told] if told in registry.names() else []), *near]))


def _fits(names: Iterable[str], state: Mapping[str, Tensor], told: Mapping[str, Any]) -> list[Fit]:
    """Networks that the file fits, or else the nearest."""
    fits: list[Fit] = []
    counts: set[int] = set()  # parameters of the networks that fit: only others of as many can fit as well
    for name in names:
        row = registry.variant(name)
        if not counts or row.parameters in counts:
            fit = _fit(name, state, told)
            fits.append(fit)
            if not fit.problems:
                counts.add(row.parameters)
    # The publisher's own counterpart first, for names that several networks of ours answer to.
    fits.sort(
        key=lambda f: (len(f.problems), not str(registry.variant(f.name).reference).startswith(f.publisher))
    )
    return [fit for fit in fits if not fit.problems] or fits


def _fit(name: str, state: Mapping[str, Tensor], told: Mapping[str, Any]) -> Fit:
    """The best reading of a file as this network, over its publishers and with the file's classes and channels."""
    row = registry.variant(name)
    own = {"classes": row.classes, "in_channels": row.in_channels, "size": row.size}
    arguments = {**own, **(told.get("arguments", {}) if told.get("name") == name else {})}
    net: nn.Module = registry.build_empty({"name": name, "arguments": arguments})
    wanted = net.state_dict()
    read: list[tuple[int, str, weights.State]] = []
    for publisher, rules in {"convarium": (), **row.rules}.items():
        try:
            renamed = weights.rename(state, rules(net) if callable(rules) else rules)
        except CheckpointError:  # two tensors of one name: by these rules it is not this network
            continue
        read.append((len(wanted.keys() ^ renamed.keys()), publisher, renamed))
    _, publisher, renamed = min(read, key=lambda r: r[0])
    shape = _shape(net, renamed)
    if "classes" not in shape:  # features without a classifier
        shape["classes"] = 0
    if shape.items() - arguments.items():
        with contextlib.suppress(ArgumentError):  # not every network can be had so; then its own shape it is
            net = registry.build_empty({"name": name, "arguments": arguments | shape})
            arguments |= shape
    problems = tuple(weights.differences(net, renamed))
    return Fit(name, publisher, arguments, problems, len(net.state_dict()))


def _shape(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, int]:
    """Classes and channels of the file, where its classifier or first convolution are told by name."""
    found = {}
    wanted = net.state_dict()
    heads = [n for n, t in wanted.items() if t.ndim >= 2 and t.shape[0] == net.classes and n in state]
    if heads and state[heads[-1]].ndim >= 2:
        found["classes"] = state[heads[-1]].shape[0]
    stems = [n for n, t in wanted.items() if t.ndim == 4 and t.shape[1] == net.in_channels and n in state]
    if stems and state[stems[0]].ndim == 4:
        found["in_channels"] = state[stems[0]].shape[1]
    return {key: value for key, value in found.items() if value > 0}


def _norms(state: Mapping[str, Tensor]) -> str:
    """Whether the statistics of batch norm are those of a trained network."""
    variances = {n.removesuffix(".running_var"): t for n, t in state.items() if n.endswith("running_var")}
    if not variances:
        return ""
    means = {name: state.get(f"{name}.running_mean", torch.zeros(1)) for name in variances}
    wrong = [n for n, v in variances.items() if not (v.isfinite().all() and means[n].isfinite().all())]
    if wrong:
        return (
            f"{len(wrong)} of {len(variances)} batch norms hold values that are no numbers, first {wrong[0]}"
        )
    negative = [n for n, v in variances.items() if (v < 0).any()]
    if negative:
        return f"{len(negative)} of {len(variances)} batch norms have negative variances, first {negative[0]}"
    untouched = [n for n, v in variances.items() if (means[n] == 0).all() and (v - 1).abs().max() < 2e-3]
    if len(untouched) == len(variances):
        weight = [state[f"{n}.weight"] for n in variances if f"{n}.weight" in state]
        bias = [state[f"{n}.bias"] for n in variances if f"{n}.bias" in state]
        if all((w - 1).abs().max() < 2e-3 for w in weight) and any((b != 0).any() for b in bias):
            return f"all {len(variances)} batch norms are identities with a bias: they were folded into convolutions"
        return f"all {len(variances)} batch norms have mean 0 and variance 1: it was never trained, or it was folded"
    if untouched:
        return f"{len(untouched)} of {len(variances)} batch norms have mean 0 and variance 1, first {untouched[0]}"
    return f"the statistics of all {len(variances)} batch norms look trained"


def _oddities(state: Mapping[str, Tensor]) -> list[str]:
    floats = {n: t for n, t in state.items() if t.is_floating_point() and t.numel()}
    wrong = [n for n, t in floats.items() if not n.endswith(_STATISTICS) and not t.isfinite().all()]
    notes = [f"{len(wrong)} tensors hold values that are no numbers, first {wrong[0]}"] if wrong else []
    if any(t.dtype in (torch.float16, torch.bfloat16) for t in floats.values()):
        notes.append("numbers of half precision: they are widened when loaded")
    return notes


def _named(path: Path) -> Path:
    """The file itself; refuses .safetensors under another name, which is read by its name."""
    safetensors = identify(path)[0].startswith("a .safetensors")
    if safetensors != (path.suffix == ".safetensors"):
        right = path.with_suffix(".safetensors" if safetensors else ".pth").name
        raise CheckpointError(f"its name does not say what it is; rename it to {right}")
    return path
