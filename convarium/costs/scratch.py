"""What the CPU's kernels hold beside their results, for a moment: known operator by operator.

A convolution by oneDNN copies its input, its weights and its result into layouts of its own; the copies come from the
same allocator as tensors, but no tensor shows them. Which kernel torch takes is asked of torch itself. The sizes
were read off the allocator's own record on x86-64 with AVX-512 and AMX, PyTorch 2.15, one thread (`convarium memory
NAME --measure` repeats it); buffers that belong to a thread rather than to a tensor are left out.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

KNOWN = platform.machine().lower() in ("x86_64", "amd64")
"""Whether these figures hold for this machine's kind of processor."""

BLOCK = 16
"""Channels that oneDNN lays side by side: planes are filled up to a multiple of it."""


def scratch(func: Any, args: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Bytes that an operator holds beside its results when it holds the most.

    Args:
        func: the operator.
        args: what it is called with.
        outputs: its results.

    Returns:
        0 where nothing is known.
    """
    if func is aten.convolution.default:
        return max(0, _convolution(outputs[0], *args) - nbytes(outputs[0]))
    if func is aten.convolution_backward.default:
        return max(0, _convolution_backward(*args) - sum(nbytes(t) for t in outputs if t is not None))
    if func is aten.native_batch_norm_backward.default:
        return nbytes(outputs[0]) if outputs[0] is not None else 0
    if func is aten._native_multi_head_attention.default:
        return 5 * nbytes(args[0])  # queries, keys and values twice, where the result is counted already
    return 0


def update(learnt: Sequence[Tensor]) -> int:
    """Bytes that a fused step of an optimiser holds: it lays weights with channels innermost out anew, one by one."""
    return max((nbytes(t) for t in learnt if not t.is_contiguous()), default=0)


def nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor's elements."""
    return tensor.numel() * tensor.element_size()


def _convolution(
    y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> int:
    """The most that a convolution holds beyond what was there before it."""
    if not _by_onednn(x, weight, stride, padding, dilation, transposed, output_padding, groups):
        return nbytes(y)
    if _channels_last(x, weight):
        return nbytes(y) + nbytes(weight)
    in_blocks = (
        x.shape[1] >= BLOCK or max(weight.shape[2:]) == 1
    )  # planes of few channels are read as they lie
    own_x, own_y, own_weight = (
        _filled(x) if in_blocks else 0,
        _filled(y),
        _filled_weight(weight, groups, in_blocks),
    )
    copies = 2 if x.dtype == torch.bfloat16 and groups == 1 else 1  # by way of channels last
    return max(own_x + own_weight + own_y, own_y + copies * nbytes(y))


def _convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    mask: list[bool],
) -> int:
    """The same for both gradients: first that of the input, then that of the weights."""
    to_x, to_weight = nbytes(x) if mask[0] else 0, nbytes(weight) if mask[1] else 0
    if not _by_onednn(x, weight, stride, padding, dilation, transposed, output_padding, groups):
        return to_x + to_weight
    if _channels_last(x, weight):
        own = to_weight
        if groups == x.shape[1] and max(weight.shape[2:]) > 3:
            # No kernel of its own: each channel is a group, filled up to 16 x 16; sums are held in float32.
            own = to_weight * BLOCK * BLOCK * (3 if x.dtype == torch.bfloat16 else 1)
        return to_x + max(nbytes(weight), own + 2 * to_weight)
    in_blocks = x.shape[1] > 3
    own_grad, own_x = _filled(grad), _filled(x)
    most = 0
    if mask[0]:
        copies = 2 if groups == 1 and (max(stride) > 1 or x.dtype == torch.bfloat16) else 1
        most = max(own_grad + _filled_weight(weight, groups, True) + own_x, own_x + copies * to_x)
    if mask[1]:
        read = own_x // 2 if x.shape[1] <= BLOCK // 2 and max(weight.shape[2:]) > 1 else own_x  # half blocks
        copied = own_grad + (read if in_blocks else 0) if groups == 1 else 0
        own_weight = _filled_weight(weight, groups, in_blocks)
        most = max(most, to_x + copied + own_weight, to_x + own_weight + nbytes(weight))
    return most


def _by_onednn(x: Tensor, weight: Tensor, *how: Any) -> bool:
    """Whether torch gives this convolution to oneDNN."""
    stride, padding, dilation, transposed, output_padding, groups = how
    backend = torch._C._select_conv_backend(
        x, weight, None, stride, padding, dilation, transposed, output_padding, groups
    )
    return bool(backend == torch._C._ConvBackend.Mkldnn)  # type: ignore[attr-defined]


def _channels_last(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution runs with channels innermost: as soon as the input or the weights lie so."""
    return any(
        t.ndim == 4 and t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous()
        for t in (x, weight)
    )


def _filled(x: Tensor) -> int:
    """Bytes of a tensor (N, C, ...) whose channels are filled up to whole blocks."""
    return nbytes(x) // max(1, x.shape[1]) * _up(x.shape[1])


def _filled_weight(weight: Tensor, groups: int, in_blocks: bool) -> int:
    """Bytes of weights (O, I, ...) with outputs, and inputs where they are read in blocks, filled up."""
    outputs, inputs = weight.shape[:2]
    one = nbytes(weight) // max(1, outputs * inputs)
    return one * _up(outputs) * (_up(inputs) if in_blocks and groups == 1 else inputs)


def _up(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK
