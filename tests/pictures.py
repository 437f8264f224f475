"""Small sets of pictures that a small network can learn, made where a test needs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def squares(folder: Path, classes=("dark", "light"), each=20, size=16, seed=0) -> Path:
    """Class folders of noisy grey squares, one brightness a class, as PNG files.

    Args:
        folder: where; made.
        classes: names of the folders.
        each: pictures a class.
        size: side in pixels.
        seed: of the noise.

    Returns:
        The folder.
    """
    draw = np.random.default_rng(seed)
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            value = 255 * (index + 0.5) / len(classes)
            pixels = np.clip(draw.normal(value, 40, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    return folder
