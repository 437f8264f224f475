"""How to train: frozen settings, named after what they are for or where they were published."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from convarium.errors import ArgumentError, unknown_name

AUGMENTS = ("auto", "none", "light", "photo", "randaugment", "autoaugment")
"""Names that `augment` may have; all but "auto" are the names of `data.augment.SETS`."""


@dataclass(frozen=True)
class Recipe:
    """Everything about training but the network, the pictures and the seed.

    Args:
        epochs: passes over the training pictures; over their kept features where only the classifier learns.
        batch: pictures a pass through the network; 0 for the largest that fits into memory.
        accumulate: batches whose gradients are summed for one step.
        optimizer: "sgd" (momentum), "rmsprop" (momentum, decay 0.9) or "adamw".
        lr: highest learning rate.
        momentum: of SGD and RMSProp.
        epsilon: of RMSProp, added to the root.
        nesterov: whether SGD looks ahead.
        weight_decay: pull towards zero; of AdamW decoupled.
        decay_all: whether norms and biases are decayed too, as the older papers did.
        layer_decay: what the rate of each unit further from the classifier is multiplied by again (see `optim.units`).
        schedule: "cosine" to zero, "plateau" (times 0.1 when validation stops improving), "exponential" (times `fall`
            every so many epochs), or "constant".
        fall: factor of the exponential schedule.
        every: epochs from one fall to the next; may be a fraction.
        warmup: epochs of linear growth from zero; may be a fraction.
        plateau: epochs without a better validation error before the rate falls.
        norms: statistics that batch norms go by in training: those of each "batch", or those that were "kept" with the
            weights.
        head: passes over kept features in which only the classifier learns, before the epochs in which all learns.
        backbone: whether all learns; False trains the classifier alone, on kept features.
        views: versions of each picture whose features are kept: the plain one, and augmented ones beside it.
        augment: what pictures are changed by, one of `AUGMENTS`; "auto" goes by the pictures.
        mixup: alpha of Mixup; 0 for none.
        cutmix: alpha of CutMix; 0 for none; where both are on, one is drawn for each step.
        label_smoothing: share of the target spread over all classes.
        balance: against unequal classes: "none", "loss" (each picture weighs the less, the more of its class there
            are), or "sampling" (classes come equally often).
        stochastic_depth: rate at which the last block is left out, where the network has that option; 0 leaves the
            network's own.
        dropout: rate before the classifier, where the network has that option; 0 leaves the network's own.
        auxiliary: weight of each auxiliary classifier's loss, where the network has some.
        clip: greatest norm of the gradient; 0 for none.
        ema: decay a step of the averaged weights that are validated and kept; 0 for none. It begins lower.
        patience: epochs without a better validation loss before training stops and the best weights are kept; 0
            for never, which keeps the last.
    """

    epochs: int = 30
    batch: int = 64
    accumulate: int = 1
    optimizer: str = "adamw"
    lr: float = 2e-3
    momentum: float = 0.9
    epsilon: float = 1.0
    nesterov: bool = False
    weight_decay: float = 0.02
    decay_all: bool = False
    layer_decay: float = 1.0
    schedule: str = "cosine"
    fall: float = 0.94
    every: float = 2.0
    warmup: float = 1.0
    plateau: int = 5
    norms: str = "batch"
    head: int = 0
    backbone: bool = True
    views: int = 1
    augment: str = "auto"
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    balance: str = "none"
    stochastic_depth: float = 0.0
    dropout: float = 0.0
    auxiliary: float = 0.3
    clip: float = 1.0
    ema: float = 0.0
    patience: int = 0

    def __post_init__(self) -> None:
        for setting in fields(self):
            value, kind = getattr(self, setting.name), type(setting.default)
            fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
            if not fits or (isinstance(value, bool) and kind is not bool):
                words = {float: "a number", int: "a whole number", bool: "true or false", str: "a word"}[kind]
                raise ArgumentError(f"{setting.name} = {value!r}; it must be {words}")
        for name, allowed in {
            "optimizer": ("sgd", "rmsprop", "adamw"),
            "schedule": ("cosine", "plateau", "exponential", "constant"),
            "augment": AUGMENTS,
            "balance": ("none", "loss", "sampling"),
            "norms": ("batch", "kept"),
        }.items():
            if getattr(self, name) not in allowed:
                raise ArgumentError(
                    f"{name} = {getattr(self, name)!r}; it must be one of {', '.join(allowed)}"
                )
        limits: dict[str, tuple[Callable[[Any], bool], str]] = {
            "epochs": (lambda v: v >= 1, "a whole number of at least 1"),
            "batch": (lambda v: v >= 0, "a whole number of at least 1, or 0 for the largest that fits"),
            "accumulate": (lambda v: v >= 1, "a whole number of at least 1"),
            "lr": (lambda v: 0 < v < math.inf, "greater than 0"),
            "momentum": (lambda v: 0 <= v < 1, "from 0 to below 1"),
            "epsilon": (lambda v: 0 < v < math.inf, "greater than 0"),
            "weight_decay": (lambda v: v >= 0, "0 or more"),
            "layer_decay": (lambda v: 0 < v <= 1, "above 0, 1 at most"),
            "fall": (lambda v: 0 < v <= 1, "above 0, 1 at most"),
            "every": (lambda v: 0 < v < math.inf, "greater than 0"),
            "warmup": (lambda v: v >= 0, "0 or more epochs"),
            "plateau": (lambda v: v >= 1, "a whole number of at least 1"),
            "head": (lambda v: v >= 0, "0 or more"),
            "views": (lambda v: v >= 1, "a whole number of at least 1"),
            "mixup": (lambda v: 0 <= v < math.inf, "0 or more"),
            "cutmix": (lambda v: 0 <= v < math.inf, "0 or more"),
            "stochastic_depth": (lambda v: 0 <= v < 1, "from 0 to below 1"),
            "dropout": (lambda v: 0 <= v < 1, "from 0 to below 1"),
            "label_smoothing": (lambda v: 0 <= v < 1, "from 0 to below 1"),
            "auxiliary": (lambda v: v >= 0, "0 or more"),
            "clip": (lambda v: v >= 0, "0 or more"),
            "ema": (lambda v: 0 <= v < 1, "from 0 to below 1"),
            "patience": (lambda v: v >= 0, "0 or more epochs"),
        }
        for name, (holds, words) in limits.items():
            value = getattr(self, name)
            if not holds(value):
                raise ArgumentError(f"{name} = {value!r}; it must be {words}")

    def to_dict(self) -> dict[str, Any]:
        """The fields, for a file."""
        return asdict(self)


# What it is, where it was published, what to expect, how it differs there; and the recipe.
_KNOWN: Mapping[str, tuple[str, Recipe]] = {
    "scratch": (
        "From nothing on a small set of pictures: AdamW and a cosine. What has worked for every family here without "
        "tuning. Where trained weights exist, `finetune` is far better.",
        Recipe(),
    ),
    "probe": (
        "From trained weights: only the classifier learns, on features that the frozen network gives once, so it "
        "takes little more than one pass over the pictures (Kornblith et al. 2019, Do Better ImageNet Models "
        "Transfer Better?, call it logistic regression on fixed features). Expect most of what `finetune` reaches "
        "where the pictures are like those that the weights were trained on, and clearly less where they are not.",
        Recipe(
            epochs=100, batch=128, lr=1e-2, weight_decay=0.3, warmup=1.0, clip=0.0, backbone=False, augment="none",
        ),
    ),
    "finetune": (
        "From trained weights: the classifier first, on kept features, so that it does not spoil the rest with what "
        "it was drawn as; then all, with a rate that falls by a tenth from unit to unit towards the stem (Howard and "
        "Ruder 2018, ULMFiT, section 3.2, call such rates discriminative). Expect more than `probe` where the pictures "
        "are many or unlike those of the weights, for many times its minutes. Batch norms keep their statistics.",
        Recipe(
            epochs=15, batch=32, lr=1e-3, weight_decay=0.05, layer_decay=0.9, warmup=1.0, norms="kept", head=50,
            label_smoothing=0.1, ema=0.99, augment="photo",
        ),
    ),
    "alexnet2012": (
        "Krizhevsky et al. 2012, section 5: momentum 0.9, weight decay 5e-4, batch 128, rate 0.01 divided by ten "
        "when the validation error stopped improving; about 90 epochs of ImageNet. There 59.3 % top-1 on ImageNet's "
        "validation pictures (table 2, one network). Crops, mirror and colour are those of `photo`, not the paper's.",
        Recipe(
            epochs=90, batch=128, optimizer="sgd", lr=0.01, weight_decay=5e-4, decay_all=True, schedule="plateau",
            plateau=10, warmup=0.0, clip=0.0,
        ),
    ),
    "resnet2015": (
        "He et al. 2015, section 4.2: momentum 0.9, weight decay 1e-4, batch 128, rate 0.1 divided by ten; there at "
        "32k and 48k steps, here when validation stops improving, as their section 3.4 did on ImageNet. There 91.25 "
        "% on CIFAR-10 with 20 layers and 93.03 % with 56 (table 6).",
        Recipe(
            epochs=164, batch=128, optimizer="sgd", lr=0.1, weight_decay=1e-4, decay_all=True, schedule="plateau",
            plateau=10, warmup=0.0, clip=0.0,
        ),
    ),
    "inception2015": (
        "Szegedy et al. 2015, Rethinking the Inception Architecture, sections 7 and 8: RMSProp with decay 0.9 and "
        "epsilon 1, momentum 0.9, rate 0.045 times 0.94 every second epoch, gradients clipped at a norm of 2, label "
        "smoothing 0.1; there 50 replicas with batches of 32 for 100 epochs, and 78.8 % top-1 on ImageNet with one "
        "crop (abstract). The weight decay and the auxiliary classifier's weight of 0.4 are of the authors' "
        "published code; the paper states neither.",
        Recipe(
            epochs=100, batch=32, optimizer="rmsprop", lr=0.045, weight_decay=4e-5, schedule="exponential",
            warmup=0.0, label_smoothing=0.1, auxiliary=0.4, clip=2.0,
        ),
    ),
    "efficientnet": (
        "Tan and Le 2019, section 5.2: RMSProp with decay and momentum 0.9, weight decay 1e-5, rate times 0.97 every "
        "2.4 epochs, AutoAugment, stochastic depth 0.2, averaged weights; dropout is the network's own (0.2 for B0 "
        "to 0.5 for B7). There 77.1 % top-1 on ImageNet with B0. 350 epochs, 5 of warm-up, label smoothing 0.1 and "
        "the average's 0.9999 are of the authors' published code. The rate of 0.256 was for batches of 4096 and is "
        "0.008 for 128; their epsilon of 0.001 stands under the root, ours of 0.0316 beside it; crops have no less "
        "than 35 % of the picture.",
        Recipe(
            epochs=350, batch=128, optimizer="rmsprop", lr=0.008, epsilon=0.0316, weight_decay=1e-5,
            schedule="exponential", fall=0.97, every=2.4, warmup=5.0, label_smoothing=0.1, clip=0.0, ema=0.9999,
            augment="autoaugment", stochastic_depth=0.2,
        ),
    ),
    "convnext2022": (
        "Liu et al. 2022, A ConvNet for the 2020s, table 5: AdamW, weight decay 0.05, 300 epochs, 20 of warm-up, "
        "cosine, Mixup 0.8, CutMix 1.0, RandAugment 9, erasing 0.25, label smoothing 0.1, stochastic depth 0.1 "
        "(tiny; small 0.4, base and large 0.5), averaged weights. There 82.1 % top-1 on ImageNet with the tiny net. "
        "The rate of 4e-3 was for batches of 4096; here it is 5e-4 for 64, as the square root of the batch; --batch "
        "64 --accumulate 64 --lr 4e-3 is theirs. RandAugment's magnitude has no spread, erased pixels are uniform "
        "noise, crops have no less than 35 % of the picture. Small sets gain from it only with hundreds of epochs.",
        Recipe(
            epochs=300, batch=64, lr=5e-4, weight_decay=0.05, warmup=20.0, clip=0.0, mixup=0.8, cutmix=1.0,
            label_smoothing=0.1, stochastic_depth=0.1, ema=0.9999, augment="randaugment",
        ),
    ),
}  # fmt: skip

RECIPES: Mapping[str, Recipe] = {name: known for name, (_, known) in _KNOWN.items()}
"""The recipes by name; `about` tells of each."""


def about(name: str) -> str:
    """What a recipe is, where it was published, what to expect, and how it differs from there.

    Args:
        name: one of `RECIPES`.

    Returns:
        A few sentences, on one line.

    Raises:
        UnknownName: no such recipe.
    """
    if name not in _KNOWN:
        raise unknown_name("recipe", name, _KNOWN)
    return _KNOWN[name][0]


def recipe(name: str = "scratch", **changes: Any) -> Recipe:
    """A named recipe with some fields changed.

    Args:
        name: one of `RECIPES`.
        changes: fields of `Recipe`; None leaves a field as it is.

    Returns:
        A new recipe.

    Raises:
        UnknownName: no such recipe or field.
        ArgumentError: a value that is not allowed.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    known = {f.name for f in fields(Recipe)}
    for field in changes:
        if field not in known:
            raise unknown_name("setting of a recipe", field, known)
    return replace(RECIPES[name], **{k: v for k, v in changes.items() if v is not None})
