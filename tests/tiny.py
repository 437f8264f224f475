"""One network of each family, made small by its own options, for tests of what every network must bear."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from convarium.models import create, googlenet, inception_v2, inception_v3, mobilenet_v1, mobilenet_v2
from convarium.net import Net
from tests.reference import randomise

# family: name, side in pixels, options
TINY: dict[str, tuple[str, int, dict[str, Any]]] = {
    "lenet": ("lenet5_1998", 32, {}),
    "linear": ("linear", 28, {}),
    "alexnet": ("alexnet_2012", 67, {"widths": (8, 8, 8, 8, 8), "hidden": 16}),
    "nin": ("nin", 32, {"widths": ((8, 8, 8), (8, 8, 8), (8, 8))}),
    "vgg": ("vgg11_bn", 32, {"widths": (8, 8, 8, 8, 8), "hidden": 16}),
    "googlenet": ("googlenet_2014", 64, {"aux": False}),
    "inception_v2": ("se_inception_v2", 32, {}),
    "inception_v3": ("inception_v3", 75, {"aux": False}),
    "resnet": ("resnext50_32x4d", 64, {"depths": (1, 1, 1, 1), "shortcut": "D", "stem": "3x3"}),
    "squeezenet": ("squeezenet1_1", 64, {}),
    "preact": ("resnet164_v2", 16, {"depth": 11}),
    "densenet": ("densenet_bc_100_12", 16, {"depth": 10, "growth": 4, "recompute": True}),
    "mobilenet_v1": ("mobilenet_v1_025", 32, {"padding": "same"}),
    "senet": ("seresnet50", 64, {"depths": (1, 1, 1, 1)}),
    "mobilenet_v2": ("mobilenetv2_035", 32, {}),
    "mobilenet_v3": (
        "mobilenet_v3_small",
        64,
        {"stages": (((3, 16, 16, True, False, 2),), ((5, 96, 40, True, True, 2),)), "hidden": 16},
    ),
    "fixup": ("resnet110_fixup", 16, {"depth": 8}),
    "efficientnet": ("tf_efficientnet_b0", 64, {"width": 0.25, "depth": 0.1, "drop_path": 0.0}),
    "vit": ("vit_tiny_16", 32, {"width": 24, "depth": 2}),
    "clip": ("clip_rn50", 64, {"depths": (1, 1, 1, 1), "width": 16, "text_width": 64, "text_depth": 1}),
    "convnext": ("convnextv2_atto", 64, {"depths": (1, 1, 1, 1), "widths": (8, 8, 16, 16)}),
}

# Where no option says how many modules there are: the family's plan, cut short.
SHORT = {
    "googlenet": (googlenet, (("3a",), ("4a",), ("5b",))),
    "inception_v2": (inception_v2, ((None, "3a"), ("3c",), ("4e",))),
    "inception_v3": (inception_v3, ((None, "5b"), ("6a",), ("7a",))),
    "mobilenet_v1": (mobilenet_v1, ((64, 1, 1), (128, 2, 2))),
    "mobilenet_v2": (mobilenet_v2, ((1, 16, 1, 1), (6, 24, 2, 2))),
}


def tiny(family: str, classes: int = 5) -> Net:
    """The small network of a family, every tensor drawn, so that nothing is zero or an identity."""
    name, size, options = TINY[family]
    chapter, plan = SHORT.get(family, (mobilenet_v1, mobilenet_v1.STAGES))
    with patch.object(chapter, "STAGES", plan):
        return randomise(create(name, classes=classes, size=size, **options))
