"""Receptive fields by gradient: which input pixels change one unit of a plane. Knows nothing of convarium.costs.

A network is made linear and positive while it runs: convolutions have kernels of ones over the sum of their channels,
maxima become means over the same windows, activations and norms do nothing. Then the gradient of a unit is above zero
exactly where a path leads to it, in 64 bits even for hundreds of layers. All channels are one, so that pictures may be
large; a long and thin picture measures one side at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convarium.joins import Gate
from convarium.models.convnext import GlobalResponseNorm


class Interval(NamedTuple):
    """Along one side: pixels seen, pixels from one unit's to the next one's, first pixel of unit 0."""

    size: int
    stride: int
    start: int


def _nothing(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return x


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    ones = torch.ones(1, 1, *weight.shape[2:], dtype=x.dtype) / weight.shape[2:].numel()
    return F.conv2d(x.mean(1, keepdim=True), ones, None, stride, padding, dilation)


def _linear(x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    return x.mean(-1, keepdim=True)


def _max_pool(
    x: Tensor,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    assert dilation in (1, (1, 1))
    return F.avg_pool2d(x, kernel, stride, padding, ceil_mode)


RULES = {
    F.conv2d: _conv,
    F.linear: _linear,
    torch.max_pool2d: _max_pool,
    F.max_pool2d: _max_pool,
    **dict.fromkeys([F.batch_norm, F.layer_norm, F.group_norm, F.local_response_norm, F.dropout], _nothing),
    **dict.fromkeys(
        [F.relu, F.relu6, F.gelu, F.silu, F.hardswish, F.hardsigmoid, F.hardtanh, F.mish], _nothing
    ),
    **dict.fromkeys(
        [F.leaky_relu, torch.sigmoid, torch.tanh, torch.relu, torch.relu_, Tensor.sigmoid], _nothing
    ),
    **dict.fromkeys([Tensor.sigmoid_, Tensor.tanh, Tensor.relu, torch.clamp, Tensor.clamp], _nothing),
}


class _Linearised(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return RULES.get(func, func)(*args, **(kwargs or {}))


class _Reached(Exception):
    """The plane that was asked for is there; what follows need not run."""


def _plane(net: nn.Module, path: str, x: Tensor) -> Tensor:
    found: list[Tensor] = []

    def stop(module: nn.Module, args: Any, out: Tensor) -> None:
        found.append(out)
        raise _Reached

    handle = net.get_submodule(path).register_forward_hook(stop)
    try:
        with _Linearised(), contextlib.suppress(_Reached):
            net(x)
    finally:
        handle.remove()
    return found[0]


@contextlib.contextmanager
def gates_off(net: nn.Module) -> Iterator[None]:
    """While inside, what gates and response norms multiply their input with is left out."""
    gates = [m for m in net.modules() if isinstance(m, (Gate, GlobalResponseNorm))]
    handles = [m.register_forward_hook(lambda module, args, out: args[0]) for m in gates]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def prepare(net: nn.Module) -> nn.Module:
    """A network on memory whose factors are one, in evaluation mode; its large tensors are never read."""
    net.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in [*net.parameters(), *net.buffers()]:
            if tensor.ndim <= 1:
                tensor.fill_(1)
    return net.eval()


def measured(
    net: nn.Module, path: str, axis: int, channels: int = 3, least: int = 64, start: int = 128
) -> Interval:
    """The field of a plane's units along one side.

    Args:
        net: from `prepare`.
        path: of the part whose output is the plane, (N, C, H, W).
        axis: 0 for rows, 1 for columns.
        channels: of the picture.
        least: the smallest side that the network takes, in pixels.
        start: the first length to try; it is doubled until no border is touched.
    """
    length = start
    while True:
        size = (length, least) if axis == 0 else (least, length)
        x = torch.ones(1, channels, *size, dtype=torch.float64, requires_grad=True)
        plane = _plane(net, path, x)
        units = plane.shape[2 + axis]
        pair = [_support(plane, x, axis, unit) for unit in (units // 2 - 1, units // 2)] if units > 2 else []
        if pair and pair[0][0] > 0 and pair[1][1] < length - 1:
            (first, last), (next_first, _) = pair
            stride = next_first - first
            return Interval(last - first + 1, stride, first - (units // 2 - 1) * stride)
        length *= 2
        assert length <= 2**15, f"the field of {path} touches every border"


def _support(plane: Tensor, x: Tensor, axis: int, unit: int) -> tuple[int, int]:
    """First and last pixel along the side whose gradient is above zero."""
    line = plane.select(2 + axis, unit).sum()
    (gradient,) = torch.autograd.grad(line, x, retain_graph=True)
    seen = gradient.sum((0, 1, 3 - axis)).nonzero()
    return int(seen.min()), int(seen.max())
