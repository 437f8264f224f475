"""Parts of networks over tokens, which ViT and CLIP share. Not a family: it registers nothing.

Shapes: N samples, T tokens, D channels a token; a plane of H x W patches has T = 1 + H W, the class token
first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convarium.errors import ArgumentError
from convarium.joins import Chain, Sum
from convarium.models.parts import DropPath


class SelfAttention(nn.Module):
    """softmax(q k' / sqrt(d)) v in each head, d = D / heads: (N, T, 3D) -> (N, T, D).

    It has no parameters: the projections before and after it are linear layers of their own in the tree.

    Args:
        width: channels of a token, D.
        heads: number of heads, which divides D.
        causal: a token sees only itself and those before it.

    Source: Vaswani et al., Attention Is All You Need, 2017, section 3.2.
    """

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ArgumentError(f"heads = {heads}; it must divide the width, {width}")
        self.width = width
        self.heads = heads
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        # (N, T, 3D) -> (3, N, heads, T, d)
        q, k, v = x.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return mixed.transpose(1, 2).flatten(2)  # (N, heads, T, d) -> (N, T, D)

    def macs(self, x: tuple[int, ...]) -> int:
        """Multiply-accumulates of its two products; a causal mask saves none.

        Args:
            x: shape of the input, (N, T, 3D).

        Returns:
            2 N T^2 D, in units.
        """
        return 2 * x[0] * x[1] ** 2 * self.width

    def extra_repr(self) -> str:
        return f"{self.width}, heads={self.heads}" + (", causal" if self.causal else "")


class PatchTokens(nn.Module):
    """[class token, patches row by row] + positions: (N, D, H, W) -> (N, 1 + H W, D).

    A plane of another size than `grid` gets positions resampled to it.

    Args:
        width: channels of a token, D.
        grid: side of the plane that the positions are trained for, in patches.

    Source: Dosovitskiy et al., An Image Is Worth 16x16 Words, 2020, equation 1.
    """

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.class_token = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(1 + grid**2, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The class token at zero, positions normal with deviation 0.02."""
        nn.init.zeros_(self.class_token)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        positions = resample(self.positions, x.shape[2], x.shape[3])
        first = self.class_token.expand(x.shape[0], 1, -1)
        return torch.cat([first, x.flatten(2).transpose(1, 2)], dim=1) + positions

    def extra_repr(self) -> str:
        return f"{self.class_token.numel()}, grid={self.grid}"


class FirstToken(nn.Module):
    """The first token: (N, T, D) -> (N, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


layer_norm = partial(nn.LayerNorm, eps=1e-6)


class TransformerBlock(Chain):
    """attn: x + proj(attention(qkv(norm(x)))); mlp: x + fc2(act(fc1(norm(x)))), fc1 to four times the width.

    Args:
        width: channels of a token.
        heads: number of attention heads.
        norm: makes a normalisation from the width.
        act: makes the activation.
        causal: a token sees only itself and those before it.
        drop_path: probability of dropping a branch for a sample.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        norm: Callable[[int], nn.Module] = layer_norm,
        act: Callable[[], nn.Module] = nn.GELU,
        causal: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(
            attn=Sum(
                Chain(
                    norm=norm(width),
                    qkv=nn.Linear(width, 3 * width),
                    heads=SelfAttention(width, heads, causal),
                    proj=nn.Linear(width, width),
                    drop=DropPath(drop_path) if drop_path else None,
                )
            ),
            mlp=Sum(
                Chain(
                    norm=norm(width),
                    fc1=nn.Linear(width, 4 * width),
                    act=act(),
                    fc2=nn.Linear(4 * width, width),
                    drop=DropPath(drop_path) if drop_path else None,
                )
            ),
        )


def resample(positions: Tensor, height: int, width: int) -> Tensor:
    """Positions of a square plane for a plane of another size; the class token's stays.

    Args:
        positions: (1 + g^2, D), the class token's first.
        height: of the new plane, in patches.
        width: of the new plane, in patches.

    Returns:
        (1 + height * width, D); the input itself where nothing changes.

    Source: Dosovitskiy et al. 2020, section 3.2; bicubic with antialiasing, as in timm.
    """
    grid = round((positions.shape[0] - 1) ** 0.5)
    if (height, width) == (grid, grid):
        return positions
    # (g^2, D) -> (1, D, g, g) -> (1, D, height, width) -> (height * width, D); in 32 bits.
    plane = positions[1:].float().T.unflatten(1, (grid, grid)).unsqueeze(0)
    plane = F.interpolate(plane, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([positions[:1], plane[0].flatten(1).T.to(positions.dtype)])


def stored_positions(grid: int) -> Callable[[Tensor], Tensor]:
    """A value rule: published positions, with or without a leading axis, for a plane of grid x grid patches.

    Args:
        grid: side of the network's plane, in patches.

    Returns:
        A function from (1 + g^2, D) or (1, 1 + g^2, D) to (1 + grid^2, D).
    """

    def value(positions: Tensor) -> Tensor:
        return resample(positions.flatten(0, -2), grid, grid)

    return value


def patch_grid(size: int, patch: int) -> int:
    """How many patches stand along one side of a picture.

    Args:
        size: side of the picture, in pixels.
        patch: side of a patch, in pixels.

    Returns:
        Their quotient.

    Raises:
        ArgumentError: it is no whole number.
    """
    if size % patch:
        low = size // patch * patch
        near = f"{low} or {low + patch}" if low else f"{patch}"
        raise ArgumentError(f"size = {size}; it must be a multiple of the patch, {patch} pixels: {near}, ...")
    return size // patch


def even_rates(last: float, count: int) -> list[float]:
    """Rates of drop path, growing evenly from 0 at the first block to `last` at the last.

    Args:
        last: the last block's rate.
        count: number of blocks.

    Returns:
        One rate a block; the step is last / (count - 1), where EfficientNet's is last / count.
    """
    return [last * i / max(count - 1, 1) for i in range(count)]
