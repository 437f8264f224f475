"""A network of another library in the dress of ours: wrapped, not copied.

A `Foreign` answers where this project's tools ask a `Net`: `classes`, `in_channels`, `size`, `architecture`,
`features`, `end_points`, `part`, `freeze`, `head`. Its paths and the names of its tensors stay the library's own, so
that the library's files fit as they are. End points are what the library itself tells: timm's `feature_info` names the
parts where the resolution changes (`stage0`, `stage1`, ...); of torchvision's networks only the last plane is known
(`stage0`). `pre_logits` is what the classifier is given, `logits` what the network gives.

Files of weights are made to fit by the rules of `adapt`. No name tells which tensors of a foreign network depend on
its classes or channels: they are those whose shape changes when it is built without memory for one class, or one
channel, more. What the library itself does to older files of its own and to positions is done by its own function.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from convarium.errors import ArgumentError, WeightsMismatch
from convarium.models import adapt, weights
from convarium.models.weights import Rule, State
from convarium.net import EndPoint, Parted, meta_call, part_of

# Names in torchvision's own older files, which its builders still read.
_OLDER: tuple[Rule, ...] = (
    (r"(.*denselayer\d+\.(?:norm|conv))\.([12]\..+)", r"\1\2"),
    (r"(encoder\.layers\..+\.mlp)\.linear_1\.(\w+)", r"\1.0.\2"),
    (r"(encoder\.layers\..+\.mlp)\.linear_2\.(\w+)", r"\1.3.\2"),
)

# Classifiers on the way, which a network can be built without.
_AUXILIARY = re.compile(r"(?:aux\d|AuxLogits)\.")

Make = Callable[[int, int], "Foreign"]


class Foreign(Parted):
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
        net._load_from_state_dict = partial(_of_present_version, net)  # type: ignore[method-assign]
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
        planes, given, logits = self._seen(x)
        library: Any = self.net
        if not self.classifier and hasattr(library, "forward_head"):  # timm's nets of two classifiers
            given = [library.forward_head(library.forward_features(x), pre_logits=True)]
        points = {f"stage{i}": plane for i, plane in enumerate(planes.values())}
        return {**points, "pre_logits": given[-1] if given else logits, "logits": logits}

    def _seen(self, x: Tensor) -> tuple[dict[str, Tensor], list[Tensor], Tensor]:
        """The planes by the path of the part that gives them, what the classifier is given, and the scores."""
        planes: dict[str, Tensor] = {}
        given: list[Tensor] = []

        # Copies are kept: what runs next may work in place, as activations do.
        def keep(path: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if not isinstance(output, Tensor):
                    return
                if not self._stages:  # only the last plane is known
                    if output.ndim <= 2 or output[0, 0].numel() <= 1:
                        return
                    planes.clear()
                planes[path] = output.clone()

            return hook

        with contextlib.ExitStack() as hooks:
            for path in self._stages or _parts_in_turn(self.net):
                hooks.callback(self.net.get_submodule(path).register_forward_hook(keep(path)).remove)
            if self.classifier:
                hook = self.head.register_forward_pre_hook(lambda m, inputs: given.append(inputs[0].clone()))
                hooks.callback(hook.remove)
            logits = self(x)
        return planes, given, logits

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

    def place(self, point: str) -> tuple[str, bool]:
        """Where an end point lies, or a part by the library's path; see `Parted.place`."""
        if point in dict(self.net.named_modules()):
            return f"net.{point}".rstrip("."), False
        number = point.removeprefix("stage")
        if number != point and number.isdigit():
            picture = (1, self.in_channels, self.size, self.size)
            paths = list(self._stages or meta_call(self, "_seen", picture)[0])
            if int(number) < len(paths):
                return f"net.{paths[int(number)]}", False
        if point == "pre_logits" and self.classifier:
            return f"net.{self.classifier}", True
        return ("" if point == "logits" else point), False

    def part(self, path: str) -> nn.Module:
        """An inner part by the library's path, as in "layer1.0", or by the end point that it gives, as "stage0".

        Raises:
            UnknownName: there is no such part.
        """
        place, is_input = self.place(path)
        found = not is_input and f"{place}.".startswith("net.")
        return part_of(self.net, place.removeprefix("net").removeprefix(".") if found else path)


def with_weights(net: Foreign, path: Path, empty: Make, fresh: Make, *, any_count: bool) -> Foreign:
    """A network of another library with a file's weights.

    Args:
        net: the network without memory.
        path: the file.
        empty: builds it without memory for (classes, in_channels).
        fresh: as `empty`, with weights as the library draws them.
        any_count: no number of classes was asked for, so that the file's is taken.

    Returns:
        The network, another one where the file scores another number of classes.

    Raises:
        CheckpointError: not a readable file of weights.
        WeightsMismatch: it does not fit; both sides are listed.
    """
    name, asked, said = net.architecture["name"], net.classes, list[str]()
    readings = list(_readings(net, weights.read(path)))
    for state in readings:
        if not weights.differences(net, state):
            weights.fit(net, state)
            return net
    whole = empty(max(asked, 1), net.in_channels)
    heads = _changed(whole, empty(asked + 2, net.in_channels) if asked else net)
    stems = _changed(net, empty(asked, net.in_channels + 1))
    if any_count:
        wanted = {n: t for n, t in net.state_dict().items() if n in heads}
        counts = {adapt.counted(state, wanted, asked) for state in readings} - {asked}
        if len(counts) == 1:
            net = empty(counts.pop(), net.in_channels)
            said.append(f"{net.classes} classes as in the file, not {asked}")
        heads = set()
    tried = [_made_to_fit(net, state, heads, stems) for state in readings]
    fitting, missing, words = min(tried, key=lambda t: len(weights.differences(net, t[0])) - len(t[1]))
    if missing:
        drawn = fresh(net.classes, net.in_channels).state_dict()
        fitting |= {n: drawn[n] for n in missing}
    try:
        weights.fit(net, fitting)
    except WeightsMismatch as error:
        raise WeightsMismatch(f"{path} does not fit {name}: {error}") from None
    adapt.tell(name, path, said + words)
    return net


def _made_to_fit(
    net: Foreign, state: State, heads: Iterable[str], stems: Iterable[str]
) -> tuple[State, list[str], list[str]]:
    """The file's tensors for this network; names of those to be drawn fresh; both in words."""
    wanted, words = net.state_dict(), []
    kept = {n: t for n, t in state.items() if n in wanted or n not in heads}
    for name in stems:
        given, expected = kept.get(name), wanted[name]
        if given is not None and adapt.same_but(1, given, expected) and expected.shape[1] == net.in_channels:
            words.append(adapt.channels_changed(name.rpartition(".")[0], given.shape[1], net.in_channels))
            kept[name] = adapt.dealt_out(given, net.in_channels)
    missing = [n for n in wanted if n in heads and (n not in kept or adapt.same_but(0, kept[n], wanted[n]))]
    if missing:
        parts = dict.fromkeys(n.rpartition(".")[0] for n in missing)
        words.append(adapt.drawn_fresh(parts, [kept[n].shape[0] for n in missing if n in kept]))
    return kept, missing, words


def _changed(net: nn.Module, other: nn.Module) -> set[str]:
    """Names of the tensors that another network lacks or has in another shape."""
    theirs = other.state_dict()
    return {n for n, t in net.state_dict().items() if n not in theirs or t.shape != theirs[n].shape}


def _readings(net: Foreign, state: State) -> Iterator[State]:
    """The file as it is, then as the library's own functions for its files make it."""
    if not any(_AUXILIARY.match(name) for name in net.state_dict()):
        state = {name: tensor for name, tensor in state.items() if not _AUXILIARY.match(name)}
    library, _, name = str(net.architecture["name"]).partition(":")
    if library == "torchvision":
        state = weights.rename(state, _OLDER)
        yield state
        if "encoder.pos_embedding" in state and hasattr(net.net, "patch_size"):
            from torchvision.models.vision_transformer import interpolate_embeddings

            with contextlib.suppress(ValueError):
                yield dict(interpolate_embeddings(net.size, net.net.patch_size, OrderedDict(state)))
        return
    yield state
    from timm.models import model_entrypoint

    family = vars(sys.modules[model_entrypoint(name).__module__])
    for key, function in family.items():
        if "filter" in key and callable(function):
            with contextlib.suppress(Exception):  # made for other files than this one
                made = function(dict(state), net.net)
                yield {n: t for n, t in made.items() if isinstance(t, Tensor)}


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


def _of_present_version(
    net: nn.Module, state: Any, prefix: str, metadata: dict[str, Any], *rest: Any
) -> None:
    """Load as its class does; a plain dictionary is taken to be of the library's present version.

    Without it torchvision's MNASNet refuses any state.
    """
    type(net)._load_from_state_dict(net, state, prefix, {"version": net._version, **metadata}, *rest)
