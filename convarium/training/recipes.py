"""How to train: frozen settings, named after what they are for or where they were published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from convarium.errors import ArgumentError, unknown_name


@dataclass(frozen=True)
class Recipe:
    """Everything about training but the network, the pictures and the seed.

    Args:
        epochs: passes over the training pictures.
        batch: pictures a step.
        optimizer: "sgd" (momentum), "rmsprop" (momentum, decay 0.9, epsilon 1) or "adamw".
        lr: highest learning rate.
        momentum: of SGD and RMSProp.
        nesterov: whether SGD looks ahead.
        weight_decay: pull towards zero; of AdamW decoupled.
        decay_all: whether norms and biases are decayed too, as the older papers did.
        schedule: "cosine" to zero, "plateau" (times 0.1 when validation stops improving), "exponential" (times 0.94
            every second epoch), or "constant".
        warmup: epochs of linear growth from zero; may be a fraction.
        plateau: epochs without a better validation error before the rate falls.
        label_smoothing: share of the target spread over all classes.
        auxiliary: weight of each auxiliary classifier's loss, where the network has some.
        clip: greatest norm of the gradient; 0 for none.
        ema: decay a step of the averaged weights that are validated and kept; 0 for none.
        patience: epochs without a better validation loss before training stops and the best weights are kept; 0
            for never, which keeps the last.
    """

    epochs: int = 30
    batch: int = 64
    optimizer: str = "adamw"
    lr: float = 2e-3
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.02
    decay_all: bool = False
    schedule: str = "cosine"
    warmup: float = 1.0
    plateau: int = 5
    label_smoothing: float = 0.0
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
        }.items():
            if getattr(self, name) not in allowed:
                raise ArgumentError(
                    f"{name} = {getattr(self, name)!r}; it must be one of {', '.join(allowed)}"
                )
        limits: dict[str, tuple[Callable[[Any], bool], str]] = {
            "epochs": (lambda v: v >= 1, "a whole number of at least 1"),
            "batch": (lambda v: v >= 1, "a whole number of at least 1"),
            "lr": (lambda v: 0 < v < float("inf"), "greater than 0"),
            "momentum": (lambda v: 0 <= v < 1, "from 0 to below 1"),
            "weight_decay": (lambda v: v >= 0, "0 or more"),
            "warmup": (lambda v: v >= 0, "0 or more epochs"),
            "plateau": (lambda v: v >= 1, "a whole number of at least 1"),
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


RECIPES: Mapping[str, Recipe] = {
    # From nothing on a small set of pictures: what has worked for every family here without tuning.
    "scratch": Recipe(),
    # He et al. 2015, section 4.2: momentum 0.9, weight decay 1e-4, batch 128, rate 0.1 divided by ten (there at
    # 32k and 48k steps, here when validation stops improving, as their section 3.4 did on ImageNet).
    "resnet2015": Recipe(
        epochs=164, batch=128, optimizer="sgd", lr=0.1, weight_decay=1e-4, decay_all=True,
        schedule="plateau", plateau=10, warmup=0.0, clip=0.0,
    ),
    # Krizhevsky et al. 2012, section 5: momentum 0.9, weight decay 5e-4, batch 128, rate 0.01 divided by ten
    # when the validation error stopped improving.
    "alexnet2012": Recipe(
        epochs=90, batch=128, optimizer="sgd", lr=0.01, weight_decay=5e-4, decay_all=True,
        schedule="plateau", plateau=10, warmup=0.0, clip=0.0,
    ),
    # Szegedy et al. 2015, Rethinking the Inception Architecture, sections 7 and 8: RMSProp with decay 0.9 and epsilon
    # 1, momentum 0.9, rate 0.045 times 0.94 every second epoch, gradients clipped at a norm of 2, label smoothing
    # 0.1; there 50 replicas with batches of 32 for 100 epochs. The weight decay and the auxiliary classifier's
    # weight of 0.4 are of the authors' published code; the paper states neither.
    "inception2015": Recipe(
        epochs=100, batch=32, optimizer="rmsprop", lr=0.045, weight_decay=4e-5, schedule="exponential",
        warmup=0.0, label_smoothing=0.1, auxiliary=0.4, clip=2.0,
    ),
}  # fmt: skip


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
