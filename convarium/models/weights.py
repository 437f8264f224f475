"""Files of weights into networks: read without executing anything, renamed by rules, fitted strictly.

A publisher's names become ours by an ordered list of rules (pattern, replacement) or (pattern, replacement, value);
the first pattern that matches a whole name decides; a replacement of None drops that tensor by name; a value is a
function of the tensor: a reshape, or else a `TwoWay` that tells its inverse (transpose). Rules for files that number
their layers are made by a function from our network. Which publisher a file comes from is seen from its names.
Position and shape alone never match anything: 97 % of ResNet-50's tensors share their shape with another.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from convarium.errors import CheckpointError, WeightsMismatch
from convarium.models import kinds, torchscript

Replacement = str | Callable[[re.Match[str]], str] | None
Value = Callable[[Tensor], Tensor]
Rule = tuple[str, Replacement] | tuple[str, Replacement, Value]
Rules = Sequence[Rule] | Callable[[nn.Module], Sequence[Rule]]
State = dict[str, Tensor]

KEY = "convarium"
"""Of the entry in a .safetensors file's metadata by which our files describe themselves."""


@dataclass(frozen=True)
class TwoWay:
    """A value rule, or a function that makes rules, with its inverse; called, it turns theirs into ours.

    Args:
        ours: from the publisher's to ours.
        theirs: from ours to the publisher's.
    """

    ours: Callable[[Any], Any]
    theirs: Callable[[Any], Any]

    def __call__(self, given: Any) -> Any:
        return self.ours(given)


# Names under which training scripts store the weights, and prefixes that wrappers leave.
_ENTRIES = ("state_dict", "model", "model_state_dict", "net", "weights")
_PREFIXES = ("module.", "_orig_mod.")


def read(path: Path) -> State:
    """All tensors of a file by name, on the CPU; nothing in the file is executed.

    Args:
        path: .safetensors, or a torch file (.pth, .pt, .th, .bin, .tar).

    Returns:
        The tensors, without the prefixes that parallel or compiled training leaves.

    Raises:
        CheckpointError: no such file, or not a file of weights.
    """
    if not path.is_file():
        raise missing(path)
    kind, problem = kinds.identify(path)
    problem = problem or kinds.misnamed(path, kind)
    if problem:
        raise CheckpointError(f"{path} is {kind}: {problem}")
    if torchscript.is_torchscript(path):
        return torchscript.read(path)
    try:
        with warnings.catch_warnings():  # torch doubts pickles of other protocols; what fails is told below
            warnings.simplefilter("ignore", UserWarning)
            content: Any = (
                load_file(path)
                if kind == kinds.SAFETENSORS
                else torch.load(path, map_location="cpu", weights_only=True)
            )
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} was not opened: {_refused(str(error))}") from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).split("\n")[0] or "it ends too soon"
        raise CheckpointError(f"{path} is {kind} that cannot be read ({reason}); get it anew") from error
    return _tensors(content, path)


def missing(path: Path) -> CheckpointError:
    """The error for a path at which there is no file.

    Args:
        path: what was asked for, perhaps the address of a page.
    """
    address = re.fullmatch(r"(https?|ftp|s3|hf):/+(.+)", path.as_posix())
    if address:
        return CheckpointError(
            f"addresses are not fetched; download {address[1]}://{address[2]} and give the path of the file"
        )
    what = "is a folder, not a file of weights" if path.is_dir() else ""
    return CheckpointError(f"{path} {what}" if what else f"no file of weights at {path}")


def _refused(said: str) -> str:
    """Why torch would not open a pickle, without its advice to open it all the same."""
    named = re.search(r"(?:Unsupported (?:global|class|instance): |GLOBAL )+([\w.]+)", said)
    if not named:
        return "it is damaged, or a pickle that PyTorch did not write; get it anew, best as .safetensors"
    return (
        f"it holds more than tensors ({named[1]}), and opening that would run code; "
        "save its state_dict() as .safetensors where you trust it"
    )


def _tensors(content: Any, path: Path) -> State:
    for entry in _ENTRIES:
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not named tensors; save its state_dict()"
        )
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f"{path} holds no tensors")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def description(path: Path) -> dict[str, Any]:
    """What one of our own files says of itself; nothing for others, and for files that cannot be read.

    Args:
        path: any file.

    Returns:
        With "architecture" as {"name", "arguments"}, and more where it was a classifier.
    """
    try:
        with safe_open(path, "pt") as file:
            return dict(json.loads((file.metadata() or {})[KEY]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return {}


def made(rules: Rules, net: nn.Module) -> Sequence[Rule]:
    """Rules as a list: those that follow from a network are made for it."""
    return rules(net) if callable(rules) else rules


def rename(state: Mapping[str, Tensor], rules: Sequence[Rule]) -> State:
    """Publisher's names and layouts to ours.

    Args:
        state: tensors by the publisher's names.
        rules: ordered; a name that no pattern matches stays as it is, and will be refused by `fit`.

    Returns:
        Tensors by our names.

    Raises:
        WeightsMismatch: two tensors would get one name.
    """
    renamed: State = {}
    for name, tensor in state.items():
        new, value = renamed_as(name, rules)
        if new is None:
            continue
        if new in renamed:
            raise WeightsMismatch(f"two tensors would both be called {new}, one of them {name}")
        renamed[new] = value(tensor) if value else tensor
    return renamed


def renamed_as(name: str, rules: Sequence[Rule]) -> tuple[str | None, Value | None]:
    """Our name for one of a publisher's, and the value rule; None where it is dropped by name."""
    for pattern, replacement, *value in rules:
        match = re.fullmatch(pattern, name)
        if match:
            if replacement is None:
                return None, None
            new = match.expand(replacement) if isinstance(replacement, str) else replacement(match)
            return new, value[0] if value else None
    return name, None


def differences(net: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """What keeps a state from fitting, one line a tensor; none when it fits.

    The counters of batch norm may be absent: they do not act on anything with a fixed momentum.
    """
    wanted = net.state_dict()
    missing = [n for n in wanted if n not in state and not n.endswith("num_batches_tracked")]
    lines = [f"- missing    {name} {tuple(wanted[name].shape)}" for name in missing]
    for name, value in state.items():
        if name not in wanted:
            lines.append(f"+ unexpected {name} {tuple(value.shape)}")
        elif wanted[name].shape != value.shape:
            lines.append(
                f"! shape      {name}: file {tuple(value.shape)}, network {tuple(wanted[name].shape)}"
            )
    return lines


def fit(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Assign tensors to a network, every one or none.

    Args:
        net: the network, possibly on the meta device.
        state: tensors by our names.

    Raises:
        WeightsMismatch: any tensor is missing, unexpected or of another shape; the message lists both sides.
    """
    lines = differences(net, state)
    if lines:
        shown = lines[:20] + ([f"... and {len(lines) - 20} more"] if len(lines) > 20 else [])
        raise WeightsMismatch(f"{len(lines)} tensors do not fit:\n" + "\n".join(shown))
    wanted = net.state_dict()
    complete = {name: state[name] if name in state else torch.zeros((), dtype=torch.int64) for name in wanted}
    complete = {n: v.to(wanted[n].dtype) if v.is_floating_point() else v for n, v in complete.items()}
    net.load_state_dict(complete, assign=True)
    for parameter in net.parameters():
        parameter.requires_grad_(parameter.is_floating_point())


def load(
    net: nn.Module,
    path: Path,
    rules: Mapping[str, Rules],
    adapt: Callable[[State], State] = lambda state: state,
) -> str:
    """Read a file and fit it by the rules of whichever publisher its names are from.

    Args:
        net: the network, possibly on the meta device.
        path: the file.
        rules: by publisher; our own names need none.
        adapt: changes what a network of other classes or channels than the file's needs, under our names.

    Returns:
        The publisher, "convarium" for our own names.

    Raises:
        CheckpointError: not a readable file of weights.
        WeightsMismatch: it fits by no publisher's rules; the nearest one's differences are listed.
    """
    state = read(path)
    tried: list[tuple[int, str, State]] = []
    for publisher, ordered in {"convarium": (), **rules}.items():
        renamed = adapt(rename(state, made(ordered, net)))
        problems = len(differences(net, renamed))
        if problems == 0:
            fit(net, renamed)
            return publisher
        tried.append((problems, publisher, renamed))
    _, nearest, renamed = min(tried, key=lambda t: t[0])
    try:
        fit(net, renamed)
    except WeightsMismatch as error:
        raise WeightsMismatch(f"{path} does not fit; read with the names of {nearest}, {error}") from None
    raise CheckpointError(f"{path} does not fit")  # not reached: the nearest had differences
