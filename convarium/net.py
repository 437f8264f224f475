"""Net(stem, stages, head): one frame for every network, with the same named end points.

End points, in order: `stem`, `stage0`, `stage1`, ..., `pre_logits` (what the classifier sees), `logits`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convarium.errors import unknown_name
from convarium.joins import Chain, Join


class Stage(Join):
    """Blocks that work at one resolution, after an optional part that reaches it.

    Args:
        blocks: the blocks in turn; each must be a module of its own.
        downsample: runs before the blocks.
    """

    def __init__(self, blocks: Iterable[nn.Module], downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.downsample = nn.Identity() if downsample is None else downsample
        self.blocks = Chain((str(i), block) for i, block in enumerate(blocks))

    def forward(self, x: Tensor) -> Tensor:
        return self.run("blocks", self.run("downsample", x))


class Head(Chain):
    """From the last stage's output to class scores.

    Args:
        classifier: name of the part that turns features into classes; `pre_logits` is its input.
        parts: the parts in turn, each named.
    """

    def __init__(self, classifier: str = "fc", **parts: nn.Module | None) -> None:
        super().__init__(**parts)
        self.classifier = classifier


@dataclass(frozen=True)
class EndPoint:
    """What a named end point gives: channels, and input pixels per output pixel (None where no plane is left)."""

    channels: int
    stride: int | None


class Parted(nn.Module):
    """A network whose inner parts can be asked for by path or end point, and be kept as they are in training."""

    frozen: tuple[str, ...] = ()
    """Parts that do not learn, as they were named."""

    def place(self, point: str) -> tuple[str, bool]:
        """Where an end point lies.

        Args:
            point: its name; any other text is taken for a path.

        Returns:
            Path of a module, "" for the network itself; whether the module's input is meant, not its output.
        """
        return point, False

    def part(self, path: str) -> nn.Module:
        """An inner part by its path, as in "stages.2.blocks.1", or by the end point that it gives, as "stage2".

        Args:
            path: names joined by dots, as in the state dict, or an end point's name.

        Returns:
            The module itself, not a copy.

        Raises:
            UnknownName: there is no such part.
        """
        place, is_input = self.place(path)
        return part_of(self, path if is_input or not place else place)

    def freeze(self, *paths: str) -> Self:
        """Keep parts as they are in training: no gradient, and norms and dropout as in evaluation.

        Args:
            paths: of the parts, as for `part`: "stem", "stages.0" or "stage0"; none thaws everything.

        Returns:
            The network itself.

        Raises:
            UnknownName: there is no such part.
        """
        parts = [self.part(path) for path in paths]
        self.requires_grad_(True)
        for part in parts:
            part.requires_grad_(False)
        self.frozen = paths
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for path in self.frozen:
            self.part(path).eval()
        return self


class Net(Parted, Join):
    """A classifier: stem, stages, head.

    Args:
        stem: from the picture to the first stage's input.
        stages: run in turn; end points `stage0`, `stage1`, ...
        head: from the last stage to class scores.
        in_channels: channels of the input picture.
        classes: number of class scores.
        size: side of the input in pixels that the network was designed for.
    """

    def __init__(
        self,
        stem: nn.Module | None,
        stages: Iterable[nn.Module],
        head: nn.Module,
        *,
        in_channels: int,
        classes: int,
        size: int,
    ) -> None:
        super().__init__()
        self.stem = nn.Identity() if stem is None else stem
        self.stages = Chain((str(i), stage) for i, stage in enumerate(stages))
        self.head = head
        self.in_channels = in_channels
        self.classes = classes
        self.size = size
        self.architecture: dict[str, Any] = {}  # name and arguments, written by the registry

    def forward(self, x: Tensor) -> Tensor:
        """Class scores.

        Args:
            x: pictures, (N, in_channels, H, W), normalised.

        Returns:
            Scores before softmax, (N, classes).
        """
        return self.run("head", self.run("stages", self.run("stem", x)))

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The outputs of all end points, by name, from one pass.

        Args:
            x: pictures, (N, in_channels, H, W), normalised.

        Returns:
            `stem`, `stage0`, ..., `pre_logits`, `logits`, in this order.
        """
        points = self.trunk(x)
        x = list(points.values())[-1]
        if not isinstance(self.head, Head):
            points["pre_logits"] = x
            points["logits"] = self.head(x)
            return points
        for name, part in self.head.named_children():
            if name == self.head.classifier:
                points["pre_logits"] = x
            x = part(x)
        points.setdefault("pre_logits", x)
        points["logits"] = x
        return points

    def trunk(self, x: Tensor) -> dict[str, Tensor]:
        """The outputs of the stem and of each stage, by name; the head is not run.

        Args:
            x: pictures, (N, in_channels, H, W), normalised.

        Returns:
            `stem`, `stage0`, ..., in this order.
        """
        points = {"stem": self.run("stem", x)}
        for name, stage in self.stages.named_children():
            points[f"stage{name}"] = stage(list(points.values())[-1])
        return points

    @property
    def end_points(self) -> dict[str, EndPoint]:
        """Channels and stride of every end point, without running the network on memory.

        A plane's channels are its second axis; those of tokens, (N, T, D), and of vectors the last.
        """
        picture = (1, self.in_channels, self.size, self.size)
        # The stride is how much the input must grow for the output to grow by one: sizes alone would be blurred
        # by borders. 192 has all strides up to 64 that networks use among its divisors.
        wider = (1, self.in_channels, self.size, self.size + 192)
        grown = meta_call(self, "trunk", wider)
        points = {}
        for name, out in meta_call(self, "features", picture).items():
            plane = name in grown and out.ndim == 4
            stride = 192 // (grown[name].shape[-1] - out.shape[-1]) if plane else None
            points[name] = EndPoint(out.shape[1] if out.ndim == 4 else out.shape[-1], stride)
        return points

    def place(self, point: str) -> tuple[str, bool]:
        """Where an end point lies; see `Parted.place`."""
        number = point.removeprefix("stage")
        if number != point and number in dict(self.stages.named_children()):
            return f"stages.{number}", False
        if point == "pre_logits":
            if not isinstance(self.head, Head):
                return "head", True
            inner = self.head.classifier in dict(self.head.named_children())
            return (f"head.{self.head.classifier}", True) if inner else ("", False)
        return ("" if point == "logits" else point), False


def last_part(net: Parted) -> nn.Module:
    """The part that is given `pre_logits`: the classifier, or the head where nothing is known of it.

    Args:
        net: ours, or a wrapped one.
    """
    place, is_input = net.place("pre_logits")
    return (
        net.get_submodule(place) if is_input else net.get_submodule("head" if hasattr(net, "stages") else "")
    )


def part_of(module: nn.Module, path: str) -> nn.Module:
    """An inner part of any module by its path; see `Parted.part`."""
    parts = dict(module.named_modules())
    if path not in parts:
        raise unknown_name("part", path, (p for p in parts if p))
    return parts[path]


class _Call(nn.Module):
    """A method of a module as a module, for `functional_call`."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module = module
        self.method = method

    def forward(self, *inputs: Tensor) -> Any:
        return getattr(self.module, self.method)(*inputs)


def meta_call(module: nn.Module, method: str, *shapes: tuple[int, ...]) -> Any:
    """Call a method on tensors without data: shapes come out, no weight is read and no memory taken.

    Args:
        module: any module; left as it was.
        method: "forward" or another method that takes tensors.
        shapes: shapes of the inputs.

    Returns:
        Whatever the method returns, with its tensors on the meta device.
    """
    tensors = dict([*module.named_parameters(), *module.named_buffers()])
    on_meta = {f"module.{name}": t.detach().to("meta") for name, t in tensors.items() if not t.is_meta}
    inputs = tuple(torch.empty(shape, device="meta") for shape in shapes)
    training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), _ByShape():
            return torch.func.functional_call(_Call(module, method), on_meta, inputs)
    finally:
        for m, mode in training.items():
            m.training = mode


# What gives the shape that it is given.
_ACTIVATIONS = {F.relu, F.relu6, F.hardtanh, F.hardsigmoid, F.hardswish, F.silu, F.gelu}
_SUMS = {Tensor.add, Tensor.mul, Tensor.__add__, Tensor.__mul__}


class _ByShape(TorchFunctionMode):
    """Shapes of norms, activations and sums are seen at once: torch works them out in Python, 1 to 5 ms each."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _ACTIVATIONS:
            return args[0]
        if func in _SUMS:
            kept = isinstance(args[1], Tensor) and args[0].shape == args[1].shape
        elif func is F.batch_norm:
            kept = args[1] is not None and args[1].shape == args[0].shape[1:2]
        else:
            kept = func is F.layer_norm and tuple(args[1]) == args[0].shape[-len(args[1]) :]
        return torch.empty_like(args[0]) if kept else func(*args, **(kwargs or {}))
