"""Parts of CLIP's towers: its activation, the text tower, and the residual image tower. Not a family.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, section 2.4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convarium.errors import ArgumentError
from convarium.joins import Chain, Sum
from convarium.models.token_parts import resample
from convarium.net import EndPoint, Head, Net, Stage

CONTEXT = 77
VOCABULARY = 49_408


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), an approximation of GELU (Hendrycks and Gimpel, 2016, section 2)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class TextTokens(nn.Module):
    """Embedding of each id + its position: (N, T) -> (N, T, D).

    Args:
        width: channels of a token, D.
        vocabulary: number of ids.
        context: number of positions; a text may be shorter.
    """

    def __init__(self, width: int, vocabulary: int = VOCABULARY, context: int = CONTEXT) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.empty(vocabulary, width))
        self.positions = nn.Parameter(torch.empty(context, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Words normal with deviation 0.02, positions with 0.01 (OpenAI's code)."""
        nn.init.normal_(self.words, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    def forward(self, tokens: Tensor) -> Tensor:
        self._refuse(tokens)
        return F.embedding(tokens, self.words) + self.positions[: tokens.shape[1]]

    def _refuse(self, tokens: Tensor) -> None:
        """Raises ArgumentError where these are no ids: an accelerator would only abort."""
        ids, places = self.words.shape[0], self.positions.shape[0]
        if not isinstance(tokens, Tensor) or tokens.dtype not in (torch.int64, torch.int32):
            got = tokens.dtype if isinstance(tokens, Tensor) else type(tokens).__name__
            raise ArgumentError(f"got {got}; texts must be token ids, int64, as the Tokenizer gives them")
        if tokens.ndim != 2 or tokens.shape[1] > places:
            raise ArgumentError(
                f"got ids of shape {tuple(tokens.shape)}; they must be (texts, tokens), at most {places} tokens"
            )
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
        if tokens.is_meta or traced or not tokens.numel():
            return  # without values to look at
        least, most = int(tokens.min()), int(tokens.max())
        if least < 0 or most >= ids:
            wrong = least if least < 0 else most
            raise ArgumentError(f"{wrong} is no token id; they go from 0 to {ids - 1}")

    def extra_repr(self) -> str:
        return f"{len(self.words)} words, {len(self.positions)} positions, {self.words.shape[1]}"


class AttentionPool(nn.Module):
    """What the mean pixel attends to among itself and all pixels, positions added: (N, C, H, W) -> (N, C).

    Args:
        width: channels, C.
        heads: attention heads, which divide C.
        grid: side of the plane that the positions are trained for; another size gets them resampled.

    Source: Radford et al. 2021, section 2.4.
    """

    def __init__(self, width: int, heads: int, grid: int) -> None:
        super().__init__()
        self.heads = heads
        self.grid = grid
        self.positions = nn.Parameter(torch.empty(1 + grid**2, width))
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Positions normal with variance 1 / C (OpenAI's code); the projections are drawn by themselves."""
        nn.init.normal_(self.positions, std=self.positions.shape[1] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        positions = resample(self.positions, x.shape[2], x.shape[3])
        pixels = x.flatten(2).transpose(1, 2)  # (N, C, H, W) -> (N, HW, C)
        tokens = torch.cat([pixels.mean(1, keepdim=True), pixels], dim=1) + positions
        # (N, T, C) -> (N, heads, T, d); the mean pixel alone asks.
        q, k, v = (
            linear(part).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, part in ((self.q, tokens[:, :1]), (self.k, tokens), (self.v, tokens))
        )
        return F.scaled_dot_product_attention(q, k, v).flatten(1)  # (N, heads, 1, d) -> (N, C)

    def macs(self, x: tuple[int, ...]) -> int:
        """Multiply-accumulates of its two products; the three projections count for themselves.

        Args:
            x: shape of the input, (N, C, H, W).

        Returns:
            2 N (1 + H W) C, in units.
        """
        return 2 * x[0] * (1 + x[2] * x[3]) * x[1]

    def extra_repr(self) -> str:
        return f"{self.positions.shape[1]}, heads={self.heads}, grid={self.grid}"


class Bottleneck(Sum):
    """1x1, BN, ReLU, 3x3, BN, ReLU, average pool /stride, 1x1 to 4 x width, BN; + shortcut; ReLU."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        around = None
        if stride > 1 or in_channels != 4 * width:
            around = Chain(
                pool=nn.AvgPool2d(stride) if stride > 1 else None,
                conv=nn.Conv2d(in_channels, 4 * width, 1, bias=False),
                norm=nn.BatchNorm2d(4 * width),
            )
        super().__init__(
            body=Chain(
                conv1=nn.Conv2d(in_channels, width, 1, bias=False),
                norm1=nn.BatchNorm2d(width),
                act1=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(width, width, 3, padding=1, bias=False),
                norm2=nn.BatchNorm2d(width),
                act2=nn.ReLU(inplace=True),
                pool=nn.AvgPool2d(stride) if stride > 1 else None,
                conv3=nn.Conv2d(width, 4 * width, 1, bias=False),
                norm3=nn.BatchNorm2d(4 * width),
            ),
            shortcut=around,
            act=nn.ReLU(inplace=True),
        )


class TextTower(Net):
    """A net over token ids, (N, T) -> (N, classes): its head sees the end-of-text token alone."""

    def forward(self, x: Tensor) -> Tensor:
        """Features of texts.

        Args:
            x: token ids, (N, T), whole numbers.

        Returns:
            (N, classes), not normalised.
        """
        return self.run("head", at_end(self.run("stages", self.run("stem", x)), x))

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The outputs of all end points, by name, from one pass.

        Args:
            x: token ids, (N, T), whole numbers.

        Returns:
            `stem` and `stage0`, (N, T, D); `pre_logits`, (N, D); `logits`, (N, classes).
        """
        points = self.trunk(x)
        points["pre_logits"] = self.head.get_submodule("norm")(at_end(points["stage0"], x))
        points["logits"] = self.head.get_submodule("fc")(points["pre_logits"])
        return points

    @property
    def end_points(self) -> dict[str, EndPoint]:
        """Channels of every end point; a text has no plane and so no stride."""
        width = self.head.get_submodule("fc").in_features
        inner = {name: EndPoint(width, None) for name in ("stem", "stage0", "pre_logits")}  # type: ignore[arg-type]
        return {**inner, "logits": EndPoint(self.classes, None)}


def at_end(x: Tensor, tokens: Tensor) -> Tensor:
    """Of each text the end-of-text token, which has the largest id: (N, T, D) -> (N, D)."""
    return x[torch.arange(len(x), device=x.device), tokens.argmax(-1)]


def residual_tower(
    depths: Sequence[int], width: int, grid: int, *, classes: int, in_channels: int, size: int
) -> Net:
    """Three 3x3, the first /2, average pool /2; four stages of bottlenecks; attention pool, linear."""
    half = width // 2
    stem = Chain(
        conv1=nn.Conv2d(in_channels, half, 3, stride=2, padding=1, bias=False),
        norm1=nn.BatchNorm2d(half),
        act1=nn.ReLU(inplace=True),
        conv2=nn.Conv2d(half, half, 3, padding=1, bias=False),
        norm2=nn.BatchNorm2d(half),
        act2=nn.ReLU(inplace=True),
        conv3=nn.Conv2d(half, width, 3, padding=1, bias=False),
        norm3=nn.BatchNorm2d(width),
        act3=nn.ReLU(inplace=True),
        pool=nn.AvgPool2d(2),
    )
    stages, channels = [], width
    for index, depth in enumerate(depths):
        inner = width * 2**index
        blocks = []
        for position in range(depth):
            blocks.append(Bottleneck(channels, inner, 2 if index and not position else 1))
            channels = 4 * inner
        stages.append(Stage(blocks))
    head = Head(pool=AttentionPool(channels, channels // 64, grid), fc=nn.Linear(channels, classes))
    return Net(stem, stages, head, classes=classes, in_channels=in_channels, size=size)
