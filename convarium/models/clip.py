"""CLIP: pictures and texts in one space, learned from pairs of both.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021. New in it: no
classes. A picture's and a text's features are trained to agree where the two belong together, over 400
million pairs; a classifier for any classes is then made of their names (section 3.1), without one labelled
picture.

Two towers, tables 19 and 20. Image: a vision transformer with a norm before its blocks, or a ResNet-D whose
strides are average pools and whose last pool is attention. Text: a transformer of 12 causal blocks; its
feature is taken at the end-of-text token, which has the largest id. Both end in a projection without
classes: `classes` is the width of the common space.

Traps: OpenAI's weights need QuickGELU, and weights trained by others with the same names and shapes often
the exact GELU (`act="gelu"`); norms have eps 1e-5 here, not the 1e-6 of ViT.
Differs from the paper: fresh image transformers are drawn by ViT's usual rule, as the paper gives none. The
head takes its one token before it normalises, which gives the same.
Weights that fit: OpenAI's (MIT) as a state dict, open_clip's for these sizes (each with its own licence).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convarium.errors import ArgumentError
from convarium.joins import Chain
from convarium.models.clip_parts import CONTEXT, QuickGELU, TextTokens, TextTower, residual_tower
from convarium.models.registry import Variant, register
from convarium.models.token_parts import (
    FirstToken,
    PatchTokens,
    TransformerBlock,
    patch_grid,
    stored_positions,
)
from convarium.models.weights import Rule, TwoWay
from convarium.net import EndPoint, Head, Net, Stage, part_of

PAPER = "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021"
ACTS = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


class Clip(nn.Module):
    """An image tower and a text tower that end in one space, and the scale of their agreement.

    It answers as its image tower does where a `Net` is asked: called with pictures it gives their features.

    Args:
        image: pictures to features.
        text: token ids to features of the same width.
    """

    def __init__(self, image: Net, text: TextTower) -> None:
        super().__init__()
        self.image = image
        self.text = text
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.in_channels = image.in_channels
        self.classes = image.classes
        self.size = image.size
        self.architecture: dict[str, object] = {}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A temperature of 0.07 (section 2.5 of the paper); the towers are drawn by themselves."""
        nn.init.constant_(self.logit_scale, math.log(1 / 0.07))

    def encode_image(self, pictures: Tensor) -> Tensor:
        """Features of pictures.

        Args:
            pictures: (N, in_channels, H, W), normalised.

        Returns:
            (N, classes), not normalised.
        """
        return self.image(pictures)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Features of texts.

        Args:
            tokens: ids from the tokenizer, (M, 77).

        Returns:
            (M, classes), not normalised.
        """
        return self.text(tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Features of pictures, as `encode_image`."""
        return self.image(x)

    def scores(self, pictures: Tensor, tokens: Tensor) -> Tensor:
        """How well each picture agrees with each text: cosine of the features, times exp(logit_scale).

        Args:
            pictures: (N, in_channels, H, W), normalised.
            tokens: ids from the tokenizer, (M, 77).

        Returns:
            Scores before softmax over the texts, (N, M).
        """
        image = F.normalize(self.encode_image(pictures), dim=-1)
        text = F.normalize(self.encode_text(tokens), dim=-1)
        return self.logit_scale.exp() * image @ text.T

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The image tower's end points; see `Net.features`."""
        return self.image.features(x)

    @property
    def end_points(self) -> dict[str, EndPoint]:
        """Channels and stride of the image tower's end points."""
        return self.image.end_points

    def part(self, path: str) -> nn.Module:
        """An inner part by its path, as in "image.stages.0.blocks.1".

        Args:
            path: names joined by dots, as in the state dict.

        Returns:
            The module itself, not a copy.

        Raises:
            UnknownName: there is no such part.
        """
        return part_of(self, path)


def clip(
    *,
    classes: int,
    in_channels: int,
    size: int,
    depths: int | Sequence[int],
    width: int,
    text_width: int,
    patch: int = 32,
    text_depth: int = 12,
    act: str = "quick_gelu",
) -> Clip:
    """An image tower, a text tower, and their scale.

    Args:
        classes: width of the common space.
        in_channels: channels of the picture.
        size: side of the picture in pixels, a multiple of the patch (32 for the residual towers).
        depths: blocks of the image transformer, or of each stage of the residual tower.
        width: channels of the image transformer, or of the residual tower's first stage before expansion.
        text_width: channels of the text transformer.
        patch: side of a patch in pixels, or the stride of the residual tower.
        text_depth: blocks of the text transformer.
        act: activation of the transformers: "quick_gelu" as OpenAI, or "gelu".

    Returns:
        The two towers.

    Raises:
        ArgumentError: an activation that is neither, or a size that the patch does not divide.
    """
    if act not in ACTS:
        raise ArgumentError(f"act = {act!r}; it must be 'quick_gelu' (OpenAI's weights) or 'gelu'")
    block = partial(TransformerBlock, norm=nn.LayerNorm, act=ACTS[act])
    shape = {"classes": classes, "in_channels": in_channels, "size": size}
    grid = patch_grid(size, patch)
    if isinstance(depths, int):
        stem = Chain(
            patches=nn.Conv2d(in_channels, width, patch, stride=patch, bias=False),
            tokens=PatchTokens(width, grid),
            norm=nn.LayerNorm(width),
        )
        blocks = [block(width, width // 64) for _ in range(depths)]
        head = Head(token=FirstToken(), norm=nn.LayerNorm(width), fc=nn.Linear(width, classes, bias=False))
        image = Net(stem, [Stage(blocks)], head, **shape)
    else:
        image = residual_tower(depths, width, grid, **shape)
    text = TextTower(
        TextTokens(text_width),
        [Stage([block(text_width, text_width // 64, causal=True) for _ in range(text_depth)])],
        Head(norm=nn.LayerNorm(text_width), fc=nn.Linear(text_width, classes, bias=False)),
        in_channels=1,
        classes=classes,
        size=CONTEXT,
    )
    return Clip(image, text)


def initialise(path: str, module: nn.Module) -> bool:
    """OpenAI's code for the text tower, the pool and the projections; ViT's for the image transformer."""
    name = path.rsplit(".", 1)[-1]
    if isinstance(module, PatchTokens):
        for tokens in (module.class_token, module.positions):
            nn.init.normal_(tokens, std=tokens.shape[-1] ** -0.5)
    elif isinstance(module, nn.BatchNorm2d) and name == "norm3" and ".blocks." in path:
        module.reset_parameters()
        nn.init.zeros_(module.weight)  # each block starts as its shortcut
    elif isinstance(module, nn.Linear):
        width = module.out_features if name == "fc2" else module.in_features
        if name in ("qkv", "fc1", "fc2", "proj") and path.startswith("image"):
            nn.init.xavier_uniform_(module.weight)
        else:
            # What ends a branch is divided by the root of the number of branches; OpenAI counts 12 blocks.
            ends = 24**-0.5 if name in ("proj", "fc2") else 2**-0.5 if name == "fc1" else 1
            nn.init.normal_(module.weight, std=ends * width**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    else:
        return False
    return True


def _transpose(value: Tensor) -> Tensor:
    return value.T.contiguous()  # (width, classes) <-> (classes, width)


_TRANSPOSED = TwoWay(_transpose, _transpose)

_BLOCK_PARTS = {
    "ln_1.": "attn.body.norm.",
    "attn.in_proj_": "attn.body.qkv.",
    "attn.out_proj.": "attn.body.proj.",
    "ln_2.": "mlp.body.norm.",
    "mlp.c_fc.": "mlp.body.fc1.",
    "mlp.c_proj.": "mlp.body.fc2.",
}
_BLOCK = r"transformer\.resblocks\.(\d+)\.(" + "|".join(re.escape(part) for part in _BLOCK_PARTS) + r")(\w+)"


def _block(tower: str) -> Callable[[re.Match[str]], str]:
    return lambda m: f"{tower}.stages.0.blocks.{m[1]}.{_BLOCK_PARTS[m[2]]}{m[3]}"


def openai(net: nn.Module) -> list[Rule]:
    """Names of OpenAI's state dict and of open_clip's, whose newer form puts the text tower under `text.`."""
    image = net.get_submodule("image")
    residual = "pool" in dict(image.get_submodule("head").named_children())
    positions = stored_positions(image.get_submodule("head.pool" if residual else "stem.tokens").grid)  # type: ignore[arg-type]
    towers: list[Rule] = [
        (r"input_resolution|context_length|vocab_size", None),  # sizes, stored as tensors
        (r"visual\." + _BLOCK, _block("image")),
        (r"(?:text\.)?" + _BLOCK, _block("text")),
        (r"(?:text\.)?token_embedding\.weight", "text.stem.words"),
        (r"(?:text\.)?positional_embedding", "text.stem.positions"),
        (r"(?:text\.)?ln_final\.(\w+)", r"text.head.norm.\1"),
        (r"(?:text\.)?text_projection", "text.head.fc.weight", _TRANSPOSED),
    ]
    if not residual:
        return [
            *towers,
            (r"visual\.conv1\.(\w+)", r"image.stem.patches.\1"),
            (r"visual\.class_embedding", "image.stem.tokens.class_token"),
            (r"visual\.positional_embedding", "image.stem.tokens.positions", positions),
            (r"visual\.ln_pre\.(\w+)", r"image.stem.norm.\1"),
            (r"visual\.ln_post\.(\w+)", r"image.head.norm.\1"),
            (r"visual\.proj", "image.head.fc.weight", _TRANSPOSED),
        ]

    def place(m: re.Match[str]) -> str:
        return f"image.stages.{int(m[1]) - 1}.blocks.{m[2]}"

    block = r"visual\.layer(\d)\.(\d+)\."
    return [
        *towers,
        (r"visual\.(conv\d)\.(\w+)", r"image.stem.\1.\2"),
        (r"visual\.bn(\d)\.(\w+)", r"image.stem.norm\1.\2"),
        (block + r"(conv\d)\.(\w+)", lambda m: f"{place(m)}.body.{m[3]}.{m[4]}"),
        (block + r"bn(\d)\.(\w+)", lambda m: f"{place(m)}.body.norm{m[3]}.{m[4]}"),
        (block + r"downsample\.0\.(\w+)", lambda m: f"{place(m)}.shortcut.conv.{m[3]}"),
        (block + r"downsample\.1\.(\w+)", lambda m: f"{place(m)}.shortcut.norm.{m[3]}"),
        (r"visual\.attnpool\.positional_embedding", "image.head.pool.positions", positions),
        (r"visual\.attnpool\.([qkv])_proj\.(\w+)", r"image.head.pool.\1.\2"),
        (r"visual\.attnpool\.c_proj\.(\w+)", r"image.head.fc.\1"),
    ]


def to_openai(net: nn.Module) -> list[Rule]:
    """Our names to those of OpenAI's state dict, which open_clip reads too; no library here could list them."""
    residual = "pool" in dict(net.get_submodule("image.head").named_children())
    theirs = {ours: part for part, ours in _BLOCK_PARTS.items()}
    block = r"stages\.0\.blocks\.(\d+)\.(" + "|".join(map(re.escape, theirs)) + r")(\w+)"
    text: list[Rule] = [
        (rf"text\.{block}", lambda m: f"transformer.resblocks.{m[1]}.{theirs[m[2]]}{m[3]}"),
        (r"text\.stem\.words", "token_embedding.weight"),
        (r"text\.stem\.positions", "positional_embedding"),
        (r"text\.head\.norm\.(\w+)", r"ln_final.\1"),
        (r"text\.head\.fc\.weight", "text_projection", _TRANSPOSED),
    ]
    if not residual:
        return [
            *text,
            (rf"image\.{block}", lambda m: f"visual.transformer.resblocks.{m[1]}.{theirs[m[2]]}{m[3]}"),
            (r"image\.stem\.patches\.(\w+)", r"visual.conv1.\1"),
            (r"image\.stem\.tokens\.class_token", "visual.class_embedding"),
            (r"image\.stem\.tokens\.positions", "visual.positional_embedding"),
            (r"image\.stem\.norm\.(\w+)", r"visual.ln_pre.\1"),
            (r"image\.head\.norm\.(\w+)", r"visual.ln_post.\1"),
            (r"image\.head\.fc\.weight", "visual.proj", _TRANSPOSED),
        ]

    def layer(m: re.Match[str]) -> str:
        return f"visual.layer{int(m[1]) + 1}.{m[2]}"

    place = r"image\.stages\.(\d)\.blocks\.(\d+)\."
    return [
        *text,
        (r"image\.stem\.(conv\d)\.(\w+)", r"visual.\1.\2"),
        (r"image\.stem\.norm(\d)\.(\w+)", r"visual.bn\1.\2"),
        (place + r"body\.(conv\d)\.(\w+)", lambda m: f"{layer(m)}.{m[3]}.{m[4]}"),
        (place + r"body\.norm(\d)\.(\w+)", lambda m: f"{layer(m)}.bn{m[3]}.{m[4]}"),
        (place + r"shortcut\.conv\.(\w+)", lambda m: f"{layer(m)}.downsample.0.{m[3]}"),
        (place + r"shortcut\.norm\.(\w+)", lambda m: f"{layer(m)}.downsample.1.{m[3]}"),
        (r"image\.head\.pool\.positions", "visual.attnpool.positional_embedding"),
        (r"image\.head\.pool\.([qkv])\.(\w+)", r"visual.attnpool.\1_proj.\2"),
        (r"image\.head\.fc\.(\w+)", r"visual.attnpool.c_proj.\1"),
    ]


# name: classes, depths, width, patch, text width, parameters, zero-shot top-1 on ImageNet
VARIANTS = {
    "clip_rn50": (1024, (3, 4, 6, 3), 64, 32, 512, 102_007_137, 59.82),
    "clip_rn101": (512, (3, 4, 23, 3), 64, 32, 512, 119_688_033, 62.28),
    "clip_vit_b_32": (512, 12, 768, 32, 512, 151_277_313, 63.32),
    "clip_vit_b_16": (512, 12, 768, 16, 512, 149_620_737, 68.34),
    "clip_vit_l_14": (768, 24, 1024, 14, 768, 427_616_513, 75.54),
}

register(
    *(
        Variant(
            name=name,
            family="clip",
            build=clip,  # type: ignore[arg-type]  # answers as a Net does
            year=2021,
            paper=f"{PAPER}, tables 19 and 20",
            parameters=parameters,
            size=224,
            classes=classes,
            arguments={"depths": depths, "width": width, "patch": patch, "text_width": text_width},
            top1=top1,
            source="mlfoundations/open_clip, docs/openclip_results.csv: OpenAI's weights on ImageNet, zero-shot",
            initialise=initialise,
            rules={"openai": TwoWay(openai, to_openai)},
        )
        for name, (classes, depths, width, patch, text_width, parameters, top1) in VARIANTS.items()
    )
)
