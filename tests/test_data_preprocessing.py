"""From a picture to the network's input, and the random changes on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from convarium.data.augment import Augment
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError


def photo(height: int, width: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("filter", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(("height", "width"), [(50, 71), (71, 50), (33, 33), (7, 90)])
def test_crop_equals_torchvision_exactly(filter: str, mode: str, height: int, width: int) -> None:
    image = photo(height, width, mode)
    theirs = v2.Compose(
        [v2.Resize(37, interpolation=v2.InterpolationMode(filter)), v2.CenterCrop(32), v2.PILToTensor()]
    )
    ours = Preprocessing(32, mode, resize=37, filter=filter).prepare(image)
    assert ours.dtype == torch.uint8
    assert torch.equal(ours, theirs(image))


def test_squash_equals_torchvision_exactly() -> None:
    image = photo(50, 71)
    assert torch.equal(
        Preprocessing(32, fit="squash").prepare(image),
        v2.functional.pil_to_tensor(v2.functional.resize(image, [32, 32])),
    )


def test_pad_keeps_the_whole_picture_and_fills_with_black() -> None:
    tensor = Preprocessing(32, fit="pad").prepare(Image.new("RGB", (64, 32), "white"))
    assert tensor[:, 8:24].min() == 255
    assert tensor[:, :8].max() == 0
    assert tensor[:, 24:].max() == 0


@pytest.mark.parametrize("filter", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("height", "width"), [(50, 71), (71, 50), (33, 33), (7, 90), (1, 200)])
def test_pad_equals_torchvision_exactly(filter: str, height: int, width: int) -> None:
    image, longer = photo(height, width), max(height, width)
    high, wide = (max(1, round(31 * side / longer)) for side in (height, width))
    small = v2.functional.resize(image, [high, wide], interpolation=v2.InterpolationMode(filter))
    left, top = (31 - wide) // 2, (31 - high) // 2
    theirs = v2.functional.pad(small, [left, top, 31 - wide - left, 31 - high - top])
    ours = Preprocessing(31, fit="pad", filter=filter).prepare(image)
    assert torch.equal(ours, v2.functional.pil_to_tensor(theirs))


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_square_is_the_same_picture_without_torch(fit: str, mode: str) -> None:
    preprocessing, image = Preprocessing(16, mode, fit=fit), photo(30, 47)
    square = preprocessing.square(image)
    assert square.dtype == np.uint8 and square.shape == (preprocessing.channels, 16, 16)
    assert np.array_equal(square, preprocessing.prepare(image).numpy())


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (9000, 3), (3, 9000), (1, 2)])
def test_tiny_and_very_long_pictures_work(fit: str, height: int, width: int) -> None:
    assert Preprocessing(64, fit=fit).prepare(photo(height, width)).shape == (3, 64, 64)


def test_very_long_pictures_keep_their_middle() -> None:
    image = Image.new("RGB", (3, 9000), "red")
    image.paste("blue", (0, 4400, 3, 4600))
    tensor = Preprocessing(8).prepare(image)
    assert tensor[2].min() == 255
    assert tensor[0].max() == 0


def test_a_picture_in_another_mode_is_brought_to_ours() -> None:
    assert Preprocessing(8, "L").prepare(photo(8, 8)).shape == (1, 8, 8)
    assert Preprocessing(8).prepare(photo(8, 8, "L")).shape == (3, 8, 8)


def test_open_decodes_in_its_mode(tmp_path: Path) -> None:
    photo(8, 8).save(tmp_path / "a.png")
    assert Preprocessing(8, "L").open(tmp_path / "a.png").mode == "L"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalise_is_its_formula_and_keeps_the_layout(layout: torch.memory_format) -> None:
    preprocessing = Preprocessing(4, mean=(0.5, 0.25, 0.0), std=(0.5, 2.0, 1.0))
    batch = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8).contiguous(memory_format=layout)
    out = preprocessing.normalise(batch)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    assert torch.equal(out, (batch.float() / 255 - mean) / std)
    assert out.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    "batch", [torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, 3, 4, 4), torch.zeros(3)]
)
def test_normalise_refuses_other_batches(batch: torch.Tensor) -> None:
    with pytest.raises(ArgumentError, match="want torch.uint8"):
        Preprocessing(4).normalise(batch)


@pytest.mark.parametrize(
    "value",
    [
        Preprocessing(28, "L", mean=(0.1307,), std=(0.3081,)),
        Preprocessing(224, resize=256, filter="bicubic", mean=(0.485, 0.456, 0.406), std=(0.2, 0.2, 0.2)),
        Augment(crop=4, flip=True, area=(0.3, 1.0), rotate=5.0, fill=128),
    ],
)
def test_it_survives_json(value: Preprocessing | Augment) -> None:
    assert type(value).from_dict(json.loads(json.dumps(value.to_dict()))) == value


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": 0}, "size is 0; want a whole number"),
        ({"size": 8.0}, "size is 8.0"),
        ({"size": True}, "size is True"),
        ({"size": 8, "mode": "CMYK"}, "mode is 'CMYK'; allowed are 'RGB', 'L'"),
        ({"size": 8, "fit": "stretch"}, "fit is 'stretch'"),
        ({"size": 8, "filter": "box"}, "filter is 'box'"),
        ({"size": 8, "resize": 7}, "resize is 7, smaller than the crop of 8"),
        ({"size": 8, "resize": 9, "fit": "pad"}, "has no use for it"),
        ({"size": 8, "mean": [0.5]}, "want 3 finite numbers"),
        ({"size": 8, "mean": "abc"}, "mean is 'abc'; want 3 numbers"),
        ({"size": 8, "std": [1, 1, 0]}, "every value must be above 0"),
        ({"size": 8, "std": [1, 1, float("nan")]}, "finite"),
        ({"size": 8, "colour": 1}, "Preprocessing has no field colour; it has size, mode"),
        ({"mode": "L"}, "Preprocessing: .*size"),
    ],
)
def test_preprocessing_refuses_what_it_cannot_do(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        Preprocessing.from_dict(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"crop": -1},
        {"crop": 1.5},
        {"area": [0, 1]},
        {"area": [0.9, 0.1]},
        {"shift": 2},
        {"fill": 256},
        {"blur": 1},
    ],
)
def test_augment_refuses_what_it_cannot_do(fields: dict[str, object]) -> None:
    with pytest.raises(ArgumentError):
        Augment.from_dict(fields)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "augment",
    [
        Augment(),
        Augment(crop=4, flip=True),
        Augment(area=(0.2, 1.0)),
        Augment(rotate=15, shift=0.1, scale=0.2, fill=9),
        Augment(color=0.4),
    ],
)
def test_decoded_and_prepared_pictures_are_both_accepted(mode: str, augment: Augment) -> None:
    preprocessing = Preprocessing(16, mode)
    image = photo(20, 30, mode)
    prepared = preprocessing.prepare(image)
    before = prepared.clone()
    for source in (image, prepared):
        out = augment(source, preprocessing)
        assert out.shape == prepared.shape
        assert out.dtype == torch.uint8
    assert torch.equal(prepared, before)


def test_random_crop_is_a_window_of_the_padded_picture_and_all_windows_come() -> None:
    preprocessing = Preprocessing(8)
    picture = torch.randint(1, 256, (3, 8, 8), dtype=torch.uint8)
    wide = torch.nn.functional.pad(picture, [1] * 4, value=7)
    windows = [wide[:, top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
    seen = set()
    for _ in range(120):
        out = Augment(crop=1, fill=7)(picture, preprocessing)
        (number,) = [i for i, window in enumerate(windows) if torch.equal(out, window)]
        seen.add(number)
    assert seen == set(range(9))


def test_flip_happens_about_every_second_time() -> None:
    preprocessing = Preprocessing(8)
    picture = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    outs = [Augment(flip=True)(picture, preprocessing) for _ in range(200)]
    flipped = sum(torch.equal(out, picture.flip(-1)) for out in outs)
    assert flipped + sum(torch.equal(out, picture) for out in outs) == 200
    assert 60 < flipped < 140


def test_shift_brings_in_the_fill_and_moves_both_ways() -> None:
    preprocessing = Preprocessing(20, "L")
    white = torch.full((1, 20, 20), 255, dtype=torch.uint8)
    outs = [Augment(shift=0.5)(white, preprocessing)[0].float().mean(0) for _ in range(40)]
    assert any(out[0] == 0 for out in outs)
    assert any(out[-1] == 0 for out in outs)
    kept = [Augment(shift=0.5, rotate=90, fill=255)(white, preprocessing).min() for _ in range(10)]
    assert min(kept) == 255


def test_area_from_a_decoded_picture_sees_more_than_the_middle() -> None:
    image = Image.new("RGB", (300, 100), "black")
    image.paste("white", (0, 0, 60, 100))  # outside the middle square
    outs = [Augment(area=(0.05, 0.1))(image, Preprocessing(16)) for _ in range(60)]
    assert any(out.min() == 255 for out in outs)
    assert any(out.max() == 0 for out in outs)
