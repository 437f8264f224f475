"""The state of a training run in one file, from which it goes on bit for bit.

Tensors and numbers stand in one .safetensors file, so that a state is whole or absent; no pickle is involved.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from convarium import storage
from convarium.errors import RunError
from convarium.training.optim import Plateau

FORMAT = 1


@dataclass
class Progress:
    """Where training stands.

    Args:
        epoch: epochs finished.
        batch: batches done in the epoch under way.
        step: steps of the optimiser done in all.
        loss: sum of losses over the pictures of the epoch under way.
        correct: right answers in the epoch under way.
        seen: pictures seen in the epoch under way.
        seconds: spent on training and validating, over all sittings.
        epoch_seconds: spent on the epoch under way.
        history: one record an epoch, as in metrics.jsonl.
        plateau: what the schedule remembers.
        best: lowest validation loss so far, its epoch, and epochs since.
        finished: whether no step is left.
        waiting: seconds in which computing stood still for want of pictures, of all epochs' training.
        computing: the other seconds of that.
        preparing: processor seconds of the threads that prepared pictures, where they share it with computing.
        ended: why training ended before the recipe's epochs were done; empty where it did not.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    plateau: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    finished: bool = False
    waiting: float = 0.0
    computing: float = 0.0
    preparing: float = 0.0
    ended: str = ""


@dataclass
class Parts:
    """The objects whose state is kept.

    Args:
        task: network and loss.
        optimizer: of the task's parameters.
        average: averaged weights, where the recipe asks for them.
        plateau: memory of the schedule.
        progress: where training stands.
        best: weights of the best epoch, where training may stop early.
    """

    task: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None
    plateau: Plateau
    progress: Progress
    best: dict[str, Tensor] = field(default_factory=dict)


def save(path: Path, parts: Parts, settings: dict[str, Any]) -> None:
    """Write the state in one step; the state before stays whole until the new one is.

    Args:
        path: the file to replace.
        parts: what to keep.
        settings: what must be the same for the run to go on bit for bit (threads, precision, versions).

    Raises:
        RunError: the disk is full or read-only; the state before is intact.
    """
    parts.progress.plateau = asdict(parts.plateau)
    tensors = {f"task.{name}": t for name, t in parts.task.state_dict().items()}
    if parts.average is not None:
        tensors |= {f"average.{name}": t for name, t in parts.average.state_dict().items()}
    tensors |= {f"best.{name}": t for name, t in parts.best.items()}
    scalars: dict[str, Any] = {}
    for index, entries in parts.optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                scalars[f"{index}.{name}"] = value
    # Copies: safetensors refuses tensors that share memory or are not contiguous.
    plain = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    content = {
        "format": FORMAT,
        "progress": asdict(parts.progress),
        "optimizer": scalars,
        "settings": settings,
    }
    metadata = {"convarium_state": json.dumps(content)}
    storage.write(path, lambda temporary: save_file(plain, temporary, metadata))


def settings(path: Path) -> dict[str, Any]:
    """The settings that a state was written under.

    Raises:
        RunError: no state, or a damaged one.
    """
    return _content(path)["settings"]


def progress(path: Path) -> Progress:
    """Where a kept run stands.

    Raises:
        RunError: no state, or a damaged one.
    """
    return Progress(**_content(path)["progress"])


def _content(path: Path) -> dict[str, Any]:
    try:
        # As numpy: torch would open the file a second time, which another process may just have replaced.
        with safe_open(path, "np") as file:
            content = json.loads(file.metadata()["convarium_state"])
    except FileNotFoundError as error:
        raise RunError(f"no state of training at {path}; there is nothing to resume") from error
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise RunError(f"{path} is not a whole state of training ({error})") from error
    if content.get("format") != FORMAT:
        raise RunError(f"{path} has format {content.get('format')}; this version reads format {FORMAT}")
    return content


def load(path: Path, parts: Parts) -> None:
    """Put everything back as it was when the state was written.

    Args:
        path: the file.
        parts: objects made as at the start of the run; overwritten.

    Raises:
        RunError: no state, a damaged one, or one of another network.
    """
    content = _content(path)
    tensors: dict[str, dict[str, Tensor]] = {"task": {}, "average": {}, "best": {}, "optimizer": {}}
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118 (not a mapping)
            group, name = key.split(".", 1)
            tensors[group][name] = file.get_tensor(key)
    try:
        parts.task.load_state_dict(tensors["task"])
        if parts.average is not None:
            parts.average.load_state_dict(tensors["average"])
    except RuntimeError as error:
        raise RunError(f"{path} belongs to another network: {error}") from error
    parts.best = tensors["best"]
    parts.progress = Progress(**content["progress"])
    parts.plateau = Plateau(**parts.progress.plateau)
    _load_optimizer(parts.optimizer, tensors["optimizer"], content["optimizer"])


def _load_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], scalars: dict[str, Any]
) -> None:
    entries: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **scalars}.items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    # A fused step walks through parameter and moments as they lie in memory: both must lie the same way.
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for name, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    optimizer.state[parameter][name] = torch.empty_like(parameter).copy_(value)
