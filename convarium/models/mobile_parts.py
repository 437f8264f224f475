"""What MobileNets and EfficientNets share: "same" padding, the inverted residual, timm's names for both.

Not a family: it registers nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from convarium.errors import ArgumentError
from convarium.joins import Chain, Join, Sum
from convarium.models.parts import DropPath, divisible
from convarium.models.weights import Rule

PADDINGS = ("torch", "same")


def scaled(channels: int, width: float) -> int:
    """Channels times the width multiplier, as a multiple of 8.

    Raises:
        ArgumentError: the multiplier is not above 0.
    """
    if not width > 0:
        raise ArgumentError(f"width = {width!r}; it must be above 0, and 1 is the published width")
    return divisible(channels * width)


class SameConv2d(nn.Conv2d):
    """A convolution to ceil(size / stride) pixels a side, by TensorFlow's "same" padding.

    The zeros needed are shared between both sides, an odd one goes to the right and below. With a stride of
    2 and an even input, torch's symmetric padding gives outputs of the same size from other pixels: weights
    trained with one fit the other and lose accuracy.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: side of the kernel, in pixels.
        stride: step in pixels.
        groups: groups of channels that do not see each other.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        down, right = (self._missing(x.shape[axis], axis) for axis in (-2, -1))
        x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return super().forward(x)

    def macs(self, x: tuple[int, ...]) -> int:
        """Multiply-accumulates.

        Args:
            x: shape of the input, (N, C, H, W).

        Returns:
            N ceil(H / stride) ceil(W / stride) x elements of the weight, in units.
        """
        rows, columns = (-(-size // step) for size, step in zip(x[2:], self.stride, strict=True))
        return x[0] * rows * columns * self.weight.numel()

    def _missing(self, size: int, axis: int) -> int:
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        return max((-(-size // stride) - 1) * stride + kernel - size, 0)


def conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    padding: str = "torch",
) -> nn.Conv2d:
    """A convolution without bias, to ceil(size / stride) pixels a side.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: side of the kernel, in pixels; odd.
        stride: step in pixels.
        groups: groups of channels that do not see each other.
        padding: "torch", symmetric, or "same", TensorFlow's; they differ where the stride is above 1.

    Returns:
        A plain convolution wherever that computes the same.

    Raises:
        ArgumentError: padding is neither.
    """
    if padding not in PADDINGS:
        raise ArgumentError(f"padding = {padding!r}; it must be 'torch' or 'same'")
    if padding == "same" and stride > 1:
        return SameConv2d(in_channels, out_channels, kernel_size, stride, groups)
    return nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
    )


def unit(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    *,
    act: Callable[..., nn.Module],
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    padding: str = "torch",
) -> dict[str, nn.Module]:
    """kxk /stride, norm, act, as parts called conv, norm, act for a stem or a head.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: side of the kernel, in pixels.
        stride: step in pixels.
        act: makes an activation, given inplace=True.
        norm: makes a norm, given its channels.
        padding: "torch" or "same".
    """
    return {
        "conv": conv(in_channels, out_channels, kernel_size, stride, padding=padding),
        "norm": norm(out_channels),
        "act": act(inplace=True),
    }


class Inverted(Chain):
    """1x1 to expanded, BN, act; kxk depthwise /stride, BN, act; [gate]; 1x1, BN; [drop path].

    The first 1x1 is left out where expanded equals in_channels. No activation follows the last norm: the
    narrow end stays linear (Sandler et al., MobileNetV2, 2018, section 3.2).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expanded: int,
        kernel_size: int,
        stride: int,
        *,
        act: Callable[..., nn.Module],
        norm: Callable[[int], nn.Module],
        gate: nn.Module | None,
        padding: str,
        drop_path: float,
    ) -> None:
        widens = expanded != in_channels
        super().__init__(
            expand=conv(in_channels, expanded, 1) if widens else None,
            norm1=norm(expanded) if widens else None,
            act1=act(inplace=True) if widens else None,
            depthwise=conv(expanded, expanded, kernel_size, stride, expanded, padding),
            norm2=norm(expanded),
            act2=act(inplace=True),
            se=gate,
            project=conv(expanded, out_channels, 1),
            norm3=norm(out_channels),
            drop=DropPath(drop_path) if drop_path else None,
        )


def inverted_residual(
    in_channels: int,
    out_channels: int,
    expanded: int,
    kernel_size: int,
    stride: int,
    *,
    act: Callable[..., nn.Module],
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    gate: nn.Module | None = None,
    padding: str = "torch",
    drop_path: float = 0.0,
) -> Join:
    """Inverted + x where the shape stays, else Inverted alone; its path is `body` in both.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        expanded: channels between.
        kernel_size: side of the depthwise kernel, in pixels.
        stride: step in pixels.
        act: makes an activation, given inplace=True.
        norm: makes a norm, given its channels.
        gate: a squeeze-excitation of the expanded channels.
        padding: "torch" or "same".
        drop_path: rate of dropping the body for a sample; nothing is dropped where there is no way around.

    Source: Sandler et al., MobileNetV2, 2018, figure 4d.
    """
    same = stride == 1 and in_channels == out_channels
    body = Inverted(
        in_channels,
        out_channels,
        expanded,
        kernel_size,
        stride,
        act=act,
        norm=norm,
        gate=gate,
        padding=padding,
        drop_path=drop_path if same else 0.0,
    )
    return Sum(body) if same else Chain(body=body)


def initialise(path: str, module: nn.Module) -> bool:
    """Convolutions normal, variance 2 / fan-out; linears with deviation 0.01; biases 0 (torchvision)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
    else:
        return False
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return True


def bodies(net: nn.Module) -> Iterator[tuple[str, Inverted]]:
    """All inverted residuals of a network with their paths, "stages.2.blocks.1.body", in their order."""
    return ((path, part) for path, part in net.named_modules() if isinstance(part, Inverted))


def rename_by(table: Mapping[str, str]) -> list[Rule]:
    """Rules from a table of modules.

    Args:
        table: a publisher's paths of modules to ours; their tensors have the same names in both.

    Returns:
        Rules for `weights.rename`; names that are not in the table stay as they are.
    """
    return [(r"(.+)\.(\w+)", lambda match: f"{table.get(match[1], match[1])}.{match[2]}")]


# timm's parts of a block with and without the first 1x1; the same name means another part in each.
TIMM_WIDENED = {
    "conv_pw": "expand",
    "bn1": "norm1",
    "conv_dw": "depthwise",
    "bn2": "norm2",
    "conv_pwl": "project",
    "bn3": "norm3",
}
TIMM_DIRECT = {"conv_dw": "depthwise", "bn1": "norm2", "conv_pw": "project", "bn2": "norm3"}
TIMM_GATE = {"se.conv_reduce": "se.gate.fc1", "se.conv_expand": "se.gate.fc2"}
TIMM_ENDS = {
    "conv_stem": "stem.conv",
    "bn1": "stem.norm",
    "conv_head": "head.conv",
    "bn2": "head.norm",
    "classifier": "head.fc",
}


def timm_rules(net: nn.Module) -> list[Rule]:
    """timm's names of MobileNetV2 and EfficientNet to ours.

    Args:
        net: the network that the names are for.

    Returns:
        Rules for `weights.rename`.
    """
    table = dict(TIMM_ENDS)
    for path, body in bodies(net):
        _, stage, _, block, _ = path.split(".")
        parts = (TIMM_WIDENED if "expand" in body._modules else TIMM_DIRECT) | TIMM_GATE
        table |= {f"blocks.{stage}.{block}.{theirs}": f"{path}.{ours}" for theirs, ours in parts.items()}
    return rename_by(table)


def torchvision_parts(body: Inverted, theirs: str, ours: str) -> dict[str, str]:
    """torchvision's numbered parts of a MobileNetV3 or EfficientNet block to ours.

    Args:
        body: our block.
        theirs: path of their block, as in "features.4.block".
        ours: path of our block.

    Returns:
        Their paths of modules to ours.
    """
    units = {
        "expand": {"0": "expand", "1": "norm1"},
        "depthwise": {"0": "depthwise", "1": "norm2"},
        "se": {"fc1": "se.gate.fc1", "fc2": "se.gate.fc2"},
        "project": {"0": "project", "1": "norm3"},
    }
    present = [names for part, names in units.items() if part in body._modules]
    return {f"{theirs}.{i}.{t}": f"{ours}.{o}" for i, names in enumerate(present) for t, o in names.items()}
