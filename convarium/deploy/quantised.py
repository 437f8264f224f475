"""What came of rounding a classifier to 8 bits: accuracy, what stayed in float32, speed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convarium.deploy.parity import Parity
from convarium.judge.versus import Versus


@dataclass(frozen=True)
class Speed:
    """Pictures a second in one run by turns, decoding left out.

    Args:
        batch: pictures at once.
        plain: of the float32 model, by the same engine.
        rounded: of the 8-bit model.
    """

    batch: int
    plain: float
    rounded: float

    @property
    def ratio(self) -> float:
        """How many times as fast 8 bits are."""
        return self.rounded / self.plain

    def to_dict(self) -> dict[str, float]:
        """{"batch", "float32_per_second", "int8_per_second", "ratio"}."""
        names = ("batch", "float32_per_second", "int8_per_second", "ratio")
        return dict(zip(names, (self.batch, self.plain, self.rounded, self.ratio), strict=True))


@dataclass(frozen=True)
class Quantised:
    """What came of it.

    Args:
        folder: where it lies; None where the bound could not be held: nothing is written then.
        files: names in it; the model's first.
        about: content of model.json; without "int8" where nothing is written.
        versus: float32 and 8 bits on the pictures that the bound was held on.
        unseen: the same on pictures that decided nothing, where there are some.
        kept: parts that stay in float32, by path, the most harmful first.
        parts: that were ranked; 0 where rounding all kept the bound.
        max_drop: points of top-1 that were allowed.
        calibrated: pictures that ranges were taken from.
        parity: of the answers, against float32.
        speeds: at batches 1 and 32.
        notes: sentences on what was decided.
    """

    folder: Path | None
    files: tuple[str, ...]
    about: dict[str, Any]
    versus: Versus
    unseen: Versus | None
    kept: tuple[str, ...]
    parts: int
    max_drop: float
    calibrated: int
    parity: Parity
    speeds: tuple[Speed, ...]
    notes: tuple[str, ...] = ()

    @property
    def drop(self) -> float:
        """Points of top-1 that 8 bits cost on the pictures that the bound was held on; below 0 where they gain."""
        return 100 * self.versus.paired.difference

    def report(self) -> dict[str, Any]:
        """All figures, JSON-able."""
        return {
            "max_drop": self.max_drop,
            "drop": self.drop,
            "kept_in_float32": list(self.kept),
            "parts_ranked": self.parts,
            "calibrated_on": self.calibrated,
            "judged": self.versus.to_dict(),
            "unseen": self.unseen.to_dict() if self.unseen else None,
            "parity_with_float32": self.parity.to_dict(),
            "speed": [speed.to_dict() for speed in self.speeds],
            "notes": list(self.notes),
        }

    def to_dict(self) -> dict[str, Any]:
        """{"folder", "files", "int8"}, JSON-able."""
        folder = str(self.folder) if self.folder else None
        return {"folder": folder, "files": list(self.files), "int8": self.report()}
