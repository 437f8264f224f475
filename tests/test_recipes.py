"""Recipes: defaults that change nothing, values that are refused, and what is told of each."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

from convarium.data.augment import SETS
from convarium.errors import ArgumentError, UnknownName
from convarium.training.recipes import AUGMENTS, RECIPES, Recipe, about, recipe


def test_the_sets_of_augmentation_have_the_names_that_recipes_may_say() -> None:
    assert ["auto", *SETS] == list(AUGMENTS)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_goes_through_json(name: str) -> None:
    fields = json.loads(json.dumps(RECIPES[name].to_dict()))
    assert recipe(name, **fields) == RECIPES[name]
    assert recipe(**fields) == RECIPES[name]


@pytest.mark.parametrize("name", ["scratch", "alexnet2012", "resnet2015", "inception2015"])
def test_new_settings_change_nothing_in_the_recipes_of_before(name: str) -> None:
    plain = Recipe()
    for field in (
        *("augment", "mixup", "cutmix", "stochastic_depth", "dropout", "head", "backbone", "views"),
        *("layer_decay", "balance", "accumulate", "epsilon", "fall", "every"),
    ):
        assert getattr(RECIPES[name], field) == getattr(plain, field)
    assert (plain.epsilon, plain.fall, plain.every) == (1.0, 0.94, 2.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("augment", "phto"),
        ("balance", "weights"),
        ("mixup", -0.1),
        ("mixup", math.inf),
        ("cutmix", math.nan),
        ("stochastic_depth", 1.0),
        ("dropout", -0.5),
        ("head", -1),
        ("head", 1.5),
        ("backbone", 1),
        ("views", 0),
        ("layer_decay", 0.0),
        ("layer_decay", 1.1),
        ("accumulate", 0),
        ("epsilon", 0.0),
        ("fall", 1.5),
        ("every", 0.0),
    ],
)
def test_what_is_not_allowed_is_refused(field: str, value: object) -> None:
    with pytest.raises(ArgumentError, match=f"{field} = {value!r}; it must be"):
        recipe(**{field: value})


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_tells_what_it_is(name: str) -> None:
    text = about(name)
    assert "\n" not in text
    assert text.endswith(".")
    year = "".join(letter for letter in name if letter.isdigit())
    assert year in text


def test_an_unknown_recipe_has_nothing_to_tell() -> None:
    with pytest.raises(UnknownName, match="did you mean finetune"):
        about("finetuning")


def test_frozen_and_whole_learning_are_told_apart() -> None:
    assert not RECIPES["probe"].backbone
    assert RECIPES["finetune"].backbone
    assert RECIPES["finetune"].head > 0
    assert 0.7 < RECIPES["finetune"].layer_decay < 1


def test_recipes_are_told_without_loading_torch() -> None:
    code = "import sys; from convarium.training.recipes import about; about('probe'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
