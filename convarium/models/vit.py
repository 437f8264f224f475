"""Vision transformers: a picture is a sequence of patches.

Dosovitskiy et al., "An Image Is Worth 16x16 Words: Transformers for Image Recognition at Scale", 2020. New
in it: no convolution but the cutting into patches; every patch attends to every other from the first layer
on. Less is built in than in a convolutional net, so on ImageNet alone it stays behind one of its size, and
with 300 million pictures it overtakes (figures 3 and 4).

Base and Large are table 1 of the paper; Tiny and Small were added by Touvron et al. (DeiT, 2021, table 1)
and Steiner et al. ("How to train your ViT?", 2021). Normalisation has eps 1e-6, not PyTorch's 1e-5.

Differs from the paper: no dropout; the head is the single linear layer of fine-tuning, without the hidden
layer of pre-training; drop path as an option, its rate growing evenly from the first block to the last. The
head takes the class token before it normalises, which gives the same and skips all other tokens. A picture
whose side is not a multiple of the patch loses its last rows and columns; `size` itself must be one.
Weights that fit: torchvision's (BSD-3-Clause; those called SWAG CC BY-NC 4.0) and timm's (Apache-2.0), of
any input size: positions are resampled.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from convarium.joins import Chain
from convarium.models.parts import fraction
from convarium.models.registry import Variant, register
from convarium.models.timm_results import SOURCE as TIMM_RESULTS
from convarium.models.token_parts import (
    FirstToken,
    PatchTokens,
    TransformerBlock,
    even_rates,
    layer_norm,
    patch_grid,
    stored_positions,
)
from convarium.models.weights import Rule
from convarium.net import Head, Net, Stage

PAPER = "Dosovitskiy et al., An Image Is Worth 16x16 Words, 2020"
SMALLER = "Steiner et al., How to train your ViT?, 2021"


def vit(
    *,
    classes: int,
    in_channels: int,
    size: int,
    patch: int,
    width: int,
    depth: int,
    heads: int,
    drop_path: float = 0.0,
) -> Net:
    """Patches, class token, positions; transformer blocks; class token, LN, linear.

    Args:
        classes: number of class scores.
        in_channels: channels of the picture.
        size: side of the picture in pixels, a multiple of the patch.
        patch: side of a patch, in pixels.
        width: channels of a token.
        depth: number of blocks.
        heads: attention heads of a block.
        drop_path: probability of dropping the last block's branches for a sample.

    Returns:
        The network; its stage works on tokens, (N, 1 + patches, width).
    """
    rates = even_rates(fraction("drop_path", drop_path), depth)
    stem = Chain(
        patches=nn.Conv2d(in_channels, width, patch, stride=patch),
        tokens=PatchTokens(width, patch_grid(size, patch)),
    )
    blocks = [TransformerBlock(width, heads, drop_path=rate) for rate in rates]
    head = Head(token=FirstToken(), norm=layer_norm(width), fc=nn.Linear(width, classes))
    return Net(stem, [Stage(blocks)], head, in_channels=in_channels, classes=classes, size=size)


def initialise(path: str, module: nn.Module) -> bool:
    """As torchvision: patches truncated normal, variance 1 / fan-in; linears by Xavier; classifier zero."""
    name = path.rsplit(".", 1)[-1]
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=math.sqrt(1 / module.weight[0].numel()))
    elif isinstance(module, nn.Linear) and name == "fc":
        nn.init.zeros_(module.weight)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
    else:
        return False
    if name in ("fc1", "fc2"):
        nn.init.normal_(module.bias, std=1e-6)  # type: ignore[arg-type]
    else:
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return True


def _first_token(value: Tensor) -> Tensor:
    return value.flatten()  # (1, 1, D) -> (D,)


def _positions(net: nn.Module, published: str) -> Rule:
    return (published, "stem.tokens.positions", stored_positions(net.get_submodule("stem.tokens").grid))  # type: ignore[arg-type]


def own(net: nn.Module) -> list[Rule]:
    """Our names at another input size: positions are resampled."""
    return [_positions(net, r"stem\.tokens\.positions")]


def torchvision(net: nn.Module) -> list[Rule]:
    """Names of torchvision; `linear_1` and `linear_2` are those of its files from before its 0.13."""
    block = r"encoder\.layers\.encoder_layer_(\d+)\."
    return [
        _positions(net, r"encoder\.pos_embedding"),
        (r"class_token", "stem.tokens.class_token", _first_token),
        (r"conv_proj\.(\w+)", r"stem.patches.\1"),
        (block + r"ln_1\.(\w+)", r"stages.0.blocks.\1.attn.body.norm.\2"),
        (block + r"self_attention\.in_proj_(\w+)", r"stages.0.blocks.\1.attn.body.qkv.\2"),
        (block + r"self_attention\.out_proj\.(\w+)", r"stages.0.blocks.\1.attn.body.proj.\2"),
        (block + r"ln_2\.(\w+)", r"stages.0.blocks.\1.mlp.body.norm.\2"),
        (block + r"mlp\.(?:0|linear_1)\.(\w+)", r"stages.0.blocks.\1.mlp.body.fc1.\2"),
        (block + r"mlp\.(?:3|linear_2)\.(\w+)", r"stages.0.blocks.\1.mlp.body.fc2.\2"),
        (r"encoder\.ln\.(\w+)", r"head.norm.\1"),
        (r"heads\.head\.(\w+)", r"head.fc.\1"),
    ]


def timm(net: nn.Module) -> list[Rule]:
    """Names of timm, and of DeiT's files."""
    return [
        _positions(net, r"pos_embed"),
        (r"cls_token", "stem.tokens.class_token", _first_token),
        (r"patch_embed\.proj\.(\w+)", r"stem.patches.\1"),
        (r"blocks\.(\d+)\.norm1\.(\w+)", r"stages.0.blocks.\1.attn.body.norm.\2"),
        (r"blocks\.(\d+)\.attn\.(qkv|proj)\.(\w+)", r"stages.0.blocks.\1.attn.body.\2.\3"),
        (r"blocks\.(\d+)\.norm2\.(\w+)", r"stages.0.blocks.\1.mlp.body.norm.\2"),
        (r"blocks\.(\d+)\.mlp\.(fc[12])\.(\w+)", r"stages.0.blocks.\1.mlp.body.\2.\3"),
        (r"norm\.(\w+)", r"head.norm.\1"),
        (r"head\.(\w+)", r"head.fc.\1"),
    ]


# name: patch, width, depth, heads, parameters, GMACs and top-1 of timm's augreg_in21k_ft_in1k or torchvision's
# IMAGENET1K_V1, reference
VARIANTS = {
    "vit_tiny_16": (16, 192, 12, 3, 5_717_416, 1.26, 75.452, "timm:vit_tiny_patch16_224"),
    "vit_small_16": (16, 384, 12, 6, 22_050_664, 4.61, 81.402, "timm:vit_small_patch16_224"),
    "vit_small_32": (32, 384, 12, 6, 22_878_952, 1.15, 76.01, "timm:vit_small_patch32_224"),
    "vit_b_16": (16, 768, 12, 12, 86_567_656, 17.564, 81.072, "torchvision:vit_b_16"),
    "vit_b_32": (32, 768, 12, 12, 88_224_232, 4.409, 75.912, "torchvision:vit_b_32"),
    "vit_l_16": (16, 1024, 24, 16, 304_326_632, 61.555, 79.662, "torchvision:vit_l_16"),
    "vit_l_32": (32, 1024, 24, 16, 306_535_400, 15.378, 76.972, "torchvision:vit_l_32"),
}

register(
    *(
        Variant(
            name=name,
            family="vit",
            build=vit,
            year=2021 if reference.startswith("timm") else 2020,
            paper=SMALLER if reference.startswith("timm") else f"{PAPER}, table 1",
            parameters=parameters,
            size=224,
            arguments={"patch": patch, "width": width, "depth": depth, "heads": heads},
            macs=gmacs * 1e9,
            top1=top1,
            source=f"{TIMM_RESULTS}: augreg_in21k_ft_in1k"
            if reference.startswith("timm")
            else "torchvision's ViT weights IMAGENET1K_V1, metadata",
            reference=reference,
            initialise=initialise,
            rules={"convarium": own, "torchvision": torchvision, "timm": timm},
        )
        for name, (patch, width, depth, heads, parameters, gmacs, top1, reference) in VARIANTS.items()
    )
)
