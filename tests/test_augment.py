"""What pictures are changed by: the named sets, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from convarium.data import batched
from convarium.data.augment import SETS, Augment
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError

PHOTO = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", [name for name, augment in SETS.items() if augment])
def test_a_set_changes_decoded_and_prepared_pictures_by_their_numbers(name: str, mode: str) -> None:
    augment, how = SETS[name], Preprocessing(64, mode)
    image = how.open(PHOTO)
    prepared = how.prepare(image)
    numbers = batched.fractions(0, 0, map(str, range(12)))
    made = [augment(image, how, row) for row in numbers]
    assert all(one.shape == prepared.shape and one.dtype == torch.uint8 for one in made)
    assert sum(torch.equal(made[0], other) for other in made) == 1
    assert all(torch.equal(augment(image, how, row), one) for row, one in zip(numbers, made, strict=True))
    together = augment.prepared(prepared.expand(12, -1, -1, -1), numbers)
    for row, one in zip(numbers, together, strict=True):
        assert torch.equal(augment(prepared, how, row), one)


@pytest.mark.parametrize("name", ["randaugment", "autoaugment"])
def test_the_global_generator_has_no_part_in_it(name: str) -> None:
    prepared = torch.randint(0, 256, (20, 3, 64, 64), dtype=torch.uint8)
    numbers = batched.fractions(0, 0, map(str, range(20)))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = SETS[name].prepared(prepared, numbers)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(SETS[name].prepared(prepared, numbers), one)


def test_the_sets_of_before_give_what_they_gave() -> None:
    # Runs that were begun with them are resumed bit for bit.
    ramp = (torch.arange(3 * 32 * 32) % 251).to(torch.uint8).view(1, 3, 32, 32)
    numbers = batched.fractions(0, 0, ["a"])
    sums = {
        name: SETS[name].prepared(ramp, numbers)[0, :, ::7, ::5].long().sum().item()
        for name in ("light", "photo")
    }
    assert sums == {"light": 8406, "photo": 14884}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("randaugment", (5, 9)),
        ("randaugment", (2, 11)),
        ("randaugment", (2,)),
        ("randaugment", (2.0, 9)),
        ("randaugment", 2),
        ("autoaugment", 1),
        ("erasing", 1.5),
        ("erasing", "often"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ArgumentError, match=f"{field} is "):
        Augment(**{field: value})


def test_two_policies_at_once_are_refused() -> None:
    with pytest.raises(ArgumentError, match="want one of them"):
        Augment(randaugment=(2, 9), autoaugment=True)


def test_a_set_survives_json() -> None:
    augment = SETS["randaugment"]
    assert Augment.from_dict(json.loads(json.dumps(augment.to_dict()))) == augment


def test_fields_of_before_are_enough() -> None:
    assert Augment.from_dict({"crop": 4, "flip": True}) == Augment(crop=4, flip=True)
