"""What torch's operators (aten) cost: multiply-accumulates from their arguments alone.

Counted are convolutions, linear layers, matrix products and attention products: one multiply-add is one, no bias, no
norm. What does none of it is known by name or by torch's own mark (`pointwise`, views); any other operator is named by
the caller as unknown. Nothing here looks at a module.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


# ------------------------------------------------------------------------------------------------ MACs


def _convolution(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    transposed: bool = False,
    *rest: Any,
) -> int:
    """Every output (of a transposed one: input) element meets one kernel: weight (C_out, C_in / groups, kH, kW)."""
    return (x if transposed else out).numel() * math.prod(weight.shape[1:])


def _convolved(out: Tensor, x: Tensor, weight: Tensor, *rest: Any, **named: Any) -> int:
    return _convolution(out, x, weight)


def _linear(out: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    return out.numel() * weight.shape[-1]


def _product(out: Tensor, a: Tensor, b: Tensor, *rest: Any) -> int:
    return out.numel() * a.shape[-1]


def _added_product(out: Tensor, bias: Tensor, a: Tensor, b: Tensor, **named: Any) -> int:
    return out.numel() * a.shape[-1]


def _added_products(out: Tensor, bias: Tensor, a: Tensor, b: Tensor, **named: Any) -> int:
    return out.numel() * a.shape[0] * a.shape[-1]


def _attention(out: Any, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **named: Any) -> int:
    """Queries with keys, and weights with values; a causal mask saves none."""
    return math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


MACS: dict[str, Callable[..., int]] = {
    "convolution": _convolution,
    "_convolution": _convolution,
    "conv1d": _convolved,
    "conv2d": _convolved,
    "conv3d": _convolved,
    "linear": _linear,
    "mm": _product,
    "bmm": _product,
    "matmul": _product,
    "mv": _product,
    "dot": lambda out, a, b: a.numel(),
    "vdot": lambda out, a, b: a.numel(),
    "addmm": _added_product,
    "addmv": _added_product,
    "baddbmm": _added_product,
    "addbmm": _added_products,
    "scaled_dot_product_attention": _attention,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
}
"""Multiply-accumulates by operator: of its output and its arguments."""


FREE = _names(
    """
    alias as_strided detach expand permute select slice split split_with_sizes squeeze t transpose unbind
    unfold unsqueeze view _unsafe_view _reshape_alias diagonal lift_fresh lift_fresh_copy view_as_real
    view_as_complex chunk flatten reshape movedim swapaxes narrow unflatten contiguous to _to_copy copy
    clone resize set cat stack repeat tile roll flip rot90 tril triu pixel_shuffle pixel_unshuffle
    channel_shuffle constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
    replication_pad2d replication_pad3d pad im2col col2im index index_select index_put _unsafe_index
    _unsafe_index_put gather scatter scatter_add scatter_reduce index_add index_copy index_fill masked_fill
    masked_select masked_scatter take where embedding one_hot select_scatter slice_scatter diagonal_scatter
    nonzero bucketize searchsorted empty empty_like empty_strided new_empty new_empty_strided new_zeros
    new_ones new_full zeros zeros_like ones ones_like full full_like scalar_tensor arange linspace logspace
    eye tril_indices triu_indices meshgrid fill zero rand rand_like randn randn_like randint randint_like
    randperm bernoulli uniform normal exponential random native_dropout dropout feature_dropout
    alpha_dropout mean sum prod amax amin max min aminmax argmax argmin any all var std var_mean std_mean
    logsumexp norm linalg_vector_norm cumsum cumprod cummax cummin logcumsumexp count_nonzero median topk
    sort argsort unique kthvalue mode histc batch_norm native_batch_norm _native_batch_norm_legit
    _native_batch_norm_legit_no_training _batch_norm_with_update cudnn_batch_norm layer_norm
    native_layer_norm group_norm native_group_norm instance_norm rms_norm _fused_rms_norm
    local_response_norm renorm _softmax _log_softmax _safe_softmax softmax log_softmax glu prelu
    _prelu_kernel rrelu_with_noise avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d
    max_pool2d_with_indices max_pool3d_with_indices adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d
    max_unpool2d lp_pool2d fractional_max_pool2d upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d
    upsample_bicubic2d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler_2d
    affine_grid_generator equal is_same_size item _local_scalar_dense _assert_async sym_size result_type
    complex polar real imag
    """
)
"""Operators without multiply-accumulates by our rule that torch does not mark as pointwise."""


ELEMENTWISE = _names(
    """
    hardswish prelu _prelu_kernel log_sigmoid
    """
)
"""Operators on single elements that torch does not mark as such."""

TRUTHS = _names(
    """
    eq ne lt le gt ge logical_and logical_or logical_not logical_xor isnan isinf isfinite isneginf isposinf
    signbit bitwise_and bitwise_or bitwise_not bitwise_xor
    """
)
"""Those that give true and false: their outputs are left to torch."""


def pair(value: Any, length: int = 2) -> tuple[int, ...]:
    """An argument that is one number for all sides, or one a side."""
    if isinstance(value, int):
        return (value,) * length
    return tuple(value) if len(value) == length else tuple(value) * length
