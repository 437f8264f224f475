"""Leaves that own a forward: what torch.nn lacks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x/3): +1 and -1 are mapped to themselves (LeCun et al. 1998, appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsample2d(nn.Module):
    """Sum of each kernel x kernel window, times one trained coefficient, plus one trained bias, per channel.

    LeCun et al. 1998, section II.B (layers S2 and S4).

    Args:
        channels: channels in and out.
        kernel_size: side of the window and step, in pixels.
    """

    def __init__(self, channels: int, kernel_size: int = 2) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = kernel_size
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The coefficient at the mean of its window, the bias at zero."""
        nn.init.constant_(self.weight, 1 / self.kernel_size**2)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        window_sum = F.avg_pool2d(x, self.kernel_size) * self.kernel_size**2
        return window_sum * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


class TableConv2d(nn.Module):
    """A convolution in which each output map sees only the input maps that a table names.

    Only the connected kernels are parameters (LeCun et al. 1998, table I).

    Args:
        in_channels: input maps.
        table: for each output map, the input maps that it sees.
        kernel_size: side of the kernel, in pixels.
    """

    def __init__(self, in_channels: int, table: Sequence[Sequence[int]], kernel_size: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = len(table)
        self.kernel_size = kernel_size
        self.table = [tuple(row) for row in table]
        self.outputs = [out for out, row in enumerate(self.table) for _ in row]
        self.inputs = [source for row in self.table for source in row]
        self.weight = nn.Parameter(torch.empty(len(self.inputs), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(self.out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform within 1/sqrt(fan-in), each output map with its own fan-in."""
        for out, row in enumerate(self.table):
            bound = 1 / math.sqrt(len(row) * self.kernel_size**2)
            mine = [i for i, owner in enumerate(self.outputs) if owner == out]
            with torch.no_grad():
                for i in mine:
                    self.weight[i].uniform_(-bound, bound)
                self.bias[out].uniform_(-bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        dense = self.weight.new_zeros(self.out_channels, self.in_channels, self.kernel_size, self.kernel_size)
        rows = torch.tensor(self.outputs, device=x.device)
        columns = torch.tensor(self.inputs, device=x.device)
        dense = dense.index_put((rows, columns), self.weight)
        return F.conv2d(x, dense, self.bias)

    def macs(self, x: tuple[int, ...]) -> int:
        """Multiply-accumulates of the dense convolution that runs, unconnected kernels counted too.

        Args:
            x: shape of the input, (N, in_channels, H, W).

        Returns:
            N rows columns out_channels in_channels kernel_size^2, in units.
        """
        rows, columns = (side - self.kernel_size + 1 for side in x[2:])
        return x[0] * rows * columns * self.out_channels * self.in_channels * self.kernel_size**2

    def extra_repr(self) -> str:
        kernels = f"{len(self.inputs)} kernels of {self.kernel_size}x{self.kernel_size}"
        return f"{self.in_channels}, {self.out_channels}, {kernels}"


class RadialBasis(nn.Module):
    """Minus the squared distance of the input to one fixed vector a class: the nearest class scores highest.

    LeCun et al. 1998, equation 7; the sign is turned so that the outputs are logits.

    Args:
        centres: (classes, features), one vector a class; kept fixed.
    """

    centres: Tensor

    def __init__(self, centres: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.rows = [list(row) for row in centres]
        self.register_buffer("centres", torch.tensor(self.rows))

    def reset_parameters(self) -> None:
        """The vectors as given."""
        with torch.no_grad():
            self.centres.copy_(torch.tensor(self.rows))

    def forward(self, x: Tensor) -> Tensor:
        # (N, 1, D) - (K, D) -> (N, K, D) -> (N, K)
        return -(x.unsqueeze(1) - self.centres).square().sum(-1)

    def macs(self, x: tuple[int, ...]) -> int:
        """None: a distance is no product of a weight, and is not counted, as norms are not."""
        return 0

    def extra_repr(self) -> str:
        return f"{len(self.rows)} classes, {len(self.rows[0])} features"


class PadShortcut(nn.Module):
    """The identity shortcut without parameters: every stride-th pixel, zero channels added on both sides.

    He et al. 2015, section 3.3, option A. The paper does not say where the zeros go.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        stride: step in pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        extra = self.out_channels - self.in_channels
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, extra // 2, extra - extra // 2))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"
