"""A network of another library in the dress of ours: wrapped, not copied.

A `Foreign` answers where this project's tools ask a `Net`: `classes`, `in_channels`, `size`, `architecture`,
`features`, `end_points`, `part`, `head`. Its paths and the names of its tensors stay the library's own, so that the
library's files fit as they are. End points are what the library itself tells: timm's `feature_info` names the parts
where the resolution changes (`stage0`, `stage1`, ...); of torchvision's networks only the last plane is known
(`stage0`). `pre_logits` is what the classifier is given, `logits` what the network gives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from convarium.errors import ArgumentError, unknown_name
from convarium.net import EndPoint, meta_call


class Foreign(nn.Module):
    """A network of another library.

    Its state dict has the library's names, without the `net.` that stands before them in `named_parameters`.

    Args:
        net: the library's network.
        name: as "timm:resnet10t".
        arguments: from which it can be built again.
        classifier: path in the library's network of what turns features into scores; "" where there is none.
        stages: channels and stride of inner end points, by path in the library's network.
    """

    def __init__(
        self,
        net: nn.Module,
        name: str,
        arguments: Mapping[str, Any],
        classifier: str,
        stages: Mapping[str, EndPoint],
    ) -> None:
        super().__init__()
        self.net = net
        self.architecture: dict[str, Any] = {"name": name, "arguments": dict(arguments)}
        self.classes: int = arguments["classes"]
        self.in_channels: int = arguments["in_channels"]
        self.size: int = arguments["size"]
        self.classifier = classifier
        self._stages = dict(stages)
        self.register_state_dict_post_hook(_leave_prefix)
        self.register_load_state_dict_pre_hook(_give_prefix)

    def __setattr__(self, name: str, value: Any) -> None:
        # A module would be registered as one more child; a property's setter is not asked.
        if name == "head":
            if not self.classifier:
                raise ArgumentError(f"{self.architecture['name']} has no classifier that could be replaced")
            self.net.set_submodule(self.classifier, value)
        else:
            super().__setattr__(name, value)

    @property
    def head(self) -> nn.Module:
        """The classifier; it can be replaced by assigning another module."""
        return self.net.get_submodule(self.classifier) if self.classifier else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Class scores; those of auxiliary classifiers are left out.

        Args:
            x: pictures, (N, in_channels, H, W), normalised.

        Returns:
            Scores before softmax, (N, classes).
        """
        out = self.net(x)
        return out if isinstance(out, Tensor) else out[0]

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The outputs of all end points, by name, from one pass.

        Args:
            x: pictures, (N, in_channels, H, W), normalised.

        Returns:
            `stage0`, ..., `pre_logits`, `logits`, in this order.
        """
        seen: dict[str, Tensor] = {}
        with contextlib.ExitStack() as hooks:
            for path in self._stages or _parts_in_turn(self.net):
                hook = self.net.get_submodule(path).register_forward_hook(_keep(seen, path))
                hooks.callback(hook.remove)
            if self.classifier:
                given = self.head.register_forward_pre_hook(lambda m, a: seen.__setitem__("pre_logits", a[0]))
                hooks.callback(given.remove)
            logits = self(x)
        library: Any = self.net
        if not self.classifier and hasattr(library, "forward_head"):  # timm's nets of two classifiers
            seen["pre_logits"] = library.forward_head(library.forward_features(x), pre_logits=True)
        pre_logits = seen.pop("pre_logits", logits)
        planes = list(seen.values())
        if not self._stages:
            planes = [out for out in planes if out.ndim > 2 and out[0, 0].numel() > 1][-1:]
        points = {f"stage{i}": plane for i, plane in enumerate(planes)}
        return {**points, "pre_logits": pre_logits, "logits": logits}

    @property
    def end_points(self) -> dict[str, EndPoint]:
        """Channels and stride of every end point, without running the network on memory."""
        told = list(self._stages.values())
        points = {}
        found = meta_call(self, "features", (1, self.in_channels, self.size, self.size))
        for name, out in found.items():
            if told and name.startswith("stage"):
                points[name] = told[int(name.removeprefix("stage"))]
            elif out.ndim == 4:
                points[name] = EndPoint(out.shape[1], self._stride(name, out.shape[-1]))
            else:
                points[name] = EndPoint(out.shape[-1], None)
        return points

    def _stride(self, point: str, side: int) -> int:
        """As `Net.end_points` finds it, by a wider picture; by the sizes where the network takes no other."""
        try:
            wider = meta_call(self, "features", (1, self.in_channels, self.size, self.size + 192))
            return 192 // (wider[point].shape[-1] - side)
        except (RuntimeError, AssertionError, ValueError, ZeroDivisionError):
            return round(self.size / side)

    def part(self, path: str) -> nn.Module:
        """An inner part by the library's path, as in "layer1.0".

        Raises:
            UnknownName: there is no such part.
        """
        parts = dict(self.net.named_modules())
        if path not in parts:
            raise unknown_name("part", path, (p for p in parts if p))
        return parts[path]


def _leave_prefix(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}net.")]:
        state[prefix + name.removeprefix(f"{prefix}net.")] = state.pop(name)


def _give_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}net.{name.removeprefix(prefix)}"] = state.pop(name)


def _parts_in_turn(net: nn.Module) -> Iterator[str]:
    """Paths of the outermost parts that are called; pools to a fixed size would hide the last plane."""
    for name, child in net.named_children():
        if isinstance(child, nn.ModuleList):
            yield from (f"{name}.{i}" for i in range(len(child)))
        elif not isinstance(child, nn.AdaptiveAvgPool2d):
            yield name


def _keep(seen: dict[str, Tensor], path: str) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            seen[path] = output

    return hook
