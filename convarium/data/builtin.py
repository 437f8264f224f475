"""Real pictures that come with a library that is installed anyway."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from convarium.data.folders import Picture, PictureSet
from convarium.data.splits import stratified
from convarium.errors import RunError
from convarium.storage import make_folder


def write_digits(folder: Path, seed: int = 0, fraction: float = 0.2) -> Path:
    """Write scikit-learn's 1797 handwritten digits as 8x8 grey PNG files, divided into train/ and val/.

    The values 0..16 become round(255 value / 16). The files are named after their number in the set,
    counted from 1, and lie in a folder for each digit. Called again, it only mends what differs.

    Args:
        folder: made where it does not exist.
        seed: of the stratified division.
        fraction: share of each digit in val/.

    Returns:
        The folder.

    Raises:
        RunError: it cannot be written.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", 1998, UCI repository,
    test part.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    values = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    every = tuple(
        Picture(f"digit_{number:04d}.png", picture, int(label))
        for number, (picture, label) in enumerate(zip(values, digits.target, strict=True), start=1)
    )
    classes = tuple(map(str, range(10)))
    train, val = stratified(PictureSet(classes, every), fraction, seed)
    for part, pictures in (("train", train), ("val", val)):
        for name in classes:
            make_folder(folder / part / name)
        wanted = {folder / part / str(picture.label) / picture.key: picture for picture in pictures.pictures}
        try:
            # Another seed or fraction moves pictures; one left behind would be in both parts.
            for old in (folder / part).glob("[0-9]/digit_[0-9][0-9][0-9][0-9].png"):
                if old not in wanted:
                    old.unlink()
            for path, picture in wanted.items():
                _write_png(path, np.asarray(picture.source))
        except OSError as error:
            raise RunError(
                f"cannot write the digits to {folder}: {error.strerror or error}; choose another place"
            ) from error
    return folder


def _write_png(path: Path, values: np.ndarray) -> None:
    memory = io.BytesIO()
    Image.fromarray(values).save(memory, "PNG")
    if not path.is_file() or path.read_bytes() != memory.getvalue():
        path.write_bytes(memory.getvalue())
