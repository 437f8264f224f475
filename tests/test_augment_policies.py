"""RandAugment and AutoAugment: torchvision's operations, ruled by the picture's own numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import AutoAugment, InterpolationMode, RandAugment
from torchvision.transforms.v2 import functional as F

from convarium.data import batched, policies

# Our names, torchvision's, and how many levels they may differ: where a value is rounded, not cut, and once.
PEERS = {
    "identity": ("Identity", 0),
    "shear_x": ("ShearX", 1),
    "shear_y": ("ShearY", 1),
    "translate_x": ("TranslateX", 1),
    "translate_y": ("TranslateY", 1),
    "rotate": ("Rotate", 1),
    "brightness": ("Brightness", 1),
    "color": ("Color", 2),
    "contrast": ("Contrast", 1),
    "sharpness": ("Sharpness", 1),
    "posterize": ("Posterize", 0),
    "solarize": ("Solarize", 0),
    "autocontrast": ("AutoContrast", 0),
    "equalize": ("Equalize", 0),
    "invert": ("Invert", 0),
}


def scene(number: int, channels: int = 3, size: int = 40) -> torch.Tensor:
    """Smooth pictures, each of its own range: uint8 (number, channels, size, size)."""
    generator = torch.Generator().manual_seed(3)
    rough = torch.randint(20, 220, (number, channels, 5, 5), generator=generator, dtype=torch.uint8)
    return F.resize(rough, [size, size])


def torchvisions(name: str, level: int, sense: int, pictures: torch.Tensor) -> torch.Tensor:
    """What torchvision makes of an operation at a level from 0 to 9."""
    peer = AutoAugment()
    space = {**RandAugment._AUGMENTATION_SPACE, **AutoAugment._AUGMENTATION_SPACE}
    magnitudes, signed = space[PEERS[name][0]]
    found = magnitudes(10, *pictures.shape[-2:])
    magnitude = 0.0 if found is None else float(found[level]) * (sense if signed else 1)
    if name in ("shear_x", "shear_y"):  # ours are about the middle
        angles = np.degrees(np.arctan(magnitude)) * np.array([name == "shear_x", name == "shear_y"])
        return F.affine(
            pictures,
            angle=0.0,
            translate=[0, 0],
            scale=1.0,
            shear=angles.tolist(),
            interpolation=InterpolationMode.BILINEAR,
        )
    # torchvision turns the other way round; both senses are as likely.
    magnitude = -magnitude if name == "rotate" else magnitude
    fill = peer._fill
    return peer._apply_image_or_video_transform(
        pictures, PEERS[name][0], magnitude, interpolation=InterpolationMode.BILINEAR, fill=fill
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PEERS)
def test_operations_agree_with_torchvisions(name: str, channels: int) -> None:
    pictures = scene(2, channels)
    for level, sense in ((0, 1), (2, -1), (5, 1), (8, -1), (9, 1)):
        strength = np.full(2, sense * level / 9)
        got = policies.change(pictures, [name] * 2, strength).int()
        want = torchvisions(name, level, sense, pictures).int()
        furthest = (got - want).abs().max().item()
        assert furthest <= PEERS[name][1], (level, sense)


def test_the_policy_is_torchvisions() -> None:
    theirs = AutoAugment()._policies
    ours = [
        tuple((PEERS[name][0], chance, level) for name, chance, level in pair) for pair in policies.IMAGENET
    ]
    assert ours == [tuple((name, chance, level or 0) for name, chance, level in pair) for pair in theirs]
    assert {PEERS[name][0] for name in policies.RANDOM} == set(RandAugment._AUGMENTATION_SPACE)


def test_randaugment_draws_every_operation_alike_and_leaves_half_out(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: Counter[str] = Counter()
    senses = []

    def note(pictures: torch.Tensor, names: list[str], strength: np.ndarray, fill: int) -> torch.Tensor:
        drawn.update(names)
        senses.extend(strength.tolist())
        return pictures

    monkeypatch.setattr(policies, "change", note)
    numbers = batched.fractions(0, 0, map(str, range(7000)))
    policies.randaugment(torch.zeros(7000, 1, 1, 1, dtype=torch.uint8), numbers, 2, 9, 0)
    assert drawn.pop("identity") == pytest.approx(7000 + 500, rel=0.05)
    assert set(drawn) | {"identity"} == set(policies.RANDOM)
    assert min(drawn.values()) > 430
    assert max(drawn.values()) < 570
    assert set(np.round(senses, 9)) == {-0.9, 0.9}
    assert abs(np.mean(senses)) < 0.03


def test_autoaugment_acts_as_often_as_its_policy_says(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: Counter[str] = Counter()
    monkeypatch.setattr(policies, "change", lambda p, names, strength, fill: drawn.update(names) or p)
    numbers = batched.fractions(0, 0, map(str, range(20_000)))
    policies.autoaugment(torch.zeros(20_000, 1, 1, 1, dtype=torch.uint8), numbers, 0)
    wanted: Counter[str] = Counter()
    for pair in policies.IMAGENET:
        for name, chance, _ in pair:
            wanted[name] += chance * 20_000 / 25
    drawn.pop("identity")
    assert set(drawn) == set(wanted)
    for name, number in wanted.items():
        assert drawn[name] == pytest.approx(number, rel=0.1), name


def test_each_picture_gets_its_own_operation() -> None:
    pictures = scene(4)
    got = policies.change(pictures, ["invert", "identity", "equalize", "invert"], np.zeros(4))
    assert torch.equal(got[0], 255 - pictures[0])
    assert torch.equal(got[1], pictures[1])
    assert torch.equal(got[2], F.equalize(pictures[2]))
    assert torch.equal(got[3], 255 - pictures[3])


def test_strength_grows_with_the_magnitude() -> None:
    pictures, numbers = scene(64), batched.fractions(0, 0, map(str, range(64)))
    moved = [
        (policies.randaugment(pictures, numbers, 2, magnitude, 0).float() - pictures).abs().mean().item()
        for magnitude in (1, 5, 10)
    ]
    assert moved == sorted(moved)
    assert torch.equal(policies.randaugment(pictures, numbers, 0, 9, 0), pictures)
