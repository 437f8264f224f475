"""What kinds of files a data set is made of, and what lies among them that is no picture."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from convarium.data.decode import EXTENSIONS
from convarium.data.fingerprints import Facts
from convarium.data.folders import hidden

LONG = 4.0
"""A picture whose longer side is at least this many times the shorter one is called extreme."""

SMALL = 16
"""A picture with a side shorter than this many pixels is called tiny."""

_UNREAD = """
    .heic .heif .hif .dng .cr2 .cr3 .nef .arw .orf .raf .rw2 .srw .pef .svg .eps .pdf .dcm .nii .npy .npz .exr .hdr .jxl
    .mp4 .mov .avi .mkv .zip .tar .gz .rar .7z
"""
UNREAD = frozenset(_UNREAD.split())
"""Endings of files that may hold pictures, but are not read."""

# Formats that share an ending, or whose ending says little.
_KIN = {"MPO": "JPEG", "DIB": "BMP", "CUR": "ICO"}


@dataclass
class Census:
    """Counts over all pictures that can be read.

    Args:
        formats: Pillow's name of the format to number.
        modes: Pillow's mode as stored to number.
        bits: bits a channel as stored to number.
        orientations: EXIF orientation 2 to 8 to number.
        clear: pictures with transparency.
        frames: pictures with more than one frame.
        sizes: "width", "height" and "aspect" to (least, median, most).
        sides: "WIDTHxHEIGHT" to number, the ten most frequent.
        endings: (ending, format) to the keys of pictures whose ending belongs to another format.
        extreme: keys of very long or very wide pictures, the longest first.
        tiny: keys of very small pictures, the smallest first.
        blank: keys of pictures of one colour.
    """

    formats: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    bits: dict[int, int] = field(default_factory=dict)
    orientations: dict[int, int] = field(default_factory=dict)
    clear: int = 0
    frames: int = 0
    sizes: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    sides: dict[str, int] = field(default_factory=dict)
    endings: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    extreme: list[str] = field(default_factory=list)
    tiny: list[str] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All counts as values that JSON can hold."""
        return {
            "formats": self.formats,
            "modes": self.modes,
            "bits": {str(bits): count for bits, count in self.bits.items()},
            "exif_orientations": {str(number): count for number, count in self.orientations.items()},
            "transparent": self.clear,
            "several_frames": self.frames,
            "sizes": {
                what: dict(zip(("min", "median", "max"), values, strict=True))
                for what, values in self.sizes.items()
            },
            "most_frequent_sizes": self.sides,
            "wrong_endings": [
                {"ending": ending, "format": kind, "pictures": keys}
                for (ending, kind), keys in self.endings.items()
            ],
            "extreme_aspect": self.extreme,
            "tiny": self.tiny,
            "blank": self.blank,
        }


def take_census(keys: Sequence[str], facts: Sequence[Facts | None]) -> Census:
    """Count what there is.

    Args:
        keys: the pictures' names.
        facts: on each; None for a damaged one, which is not counted.

    Returns:
        The counts, the most frequent first.
    """
    pairs = [(key, known) for key, known in zip(keys, facts, strict=True) if known is not None]
    if not pairs:
        return Census()
    known = [fact for _, fact in pairs]
    sizes = np.array([(fact.width, fact.height, round(fact.aspect, 3)) for fact in known])
    three = (sizes.min(0), np.median(sizes, 0), sizes.max(0))
    endings: dict[tuple[str, str], list[str]] = {}
    for key, fact in pairs:
        ending = PurePosixPath(key).suffix.lower()
        if fact.format != "array" and not _fits(ending, fact.format):
            endings.setdefault((ending, fact.format), []).append(key)
    return Census(
        formats=_ranked(fact.format for fact in known),
        modes=_ranked(fact.mode for fact in known),
        bits=_ranked(fact.bits for fact in known),
        orientations=_ranked(fact.orientation for fact in known if fact.orientation > 1),
        clear=sum(fact.clear for fact in known),
        frames=sum(fact.frames for fact in known),
        sizes={
            what: tuple(float(values[place]) for values in three)  # type: ignore[misc]
            for place, what in enumerate(("width", "height", "aspect"))
        },
        sides=dict(Counter(f"{fact.width}x{fact.height}" for fact in known).most_common(10)),
        endings=dict(sorted(endings.items())),
        extreme=[key for key, fact in sorted(pairs, key=lambda p: -p[1].aspect) if fact.aspect >= LONG],
        tiny=[
            key
            for key, fact in sorted(pairs, key=lambda p: p[1].width * p[1].height)
            if min(fact.width, fact.height) < SMALL
        ],
        blank=[key for key, fact in pairs if fact.blank],
    )


@dataclass
class Strays:
    """What lies below a data set's folder and is not one of its pictures; names below that folder.

    Args:
        system: hidden files and folders, and those that systems leave behind (.DS_Store, Thumbs.db).
        unread: files that may hold pictures in a format that is not read, such as .heic or .zip.
        others: files whose ending is no picture's.
        loose: pictures that are not used, because they lie outside of the class folders.
        links: symbolic links, used or not; those to nowhere are among `broken`.
        broken: symbolic links that lead nowhere, and entries that are neither file nor folder.
        nested: used pictures that lie deeper than their class folder.
    """

    system: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)


def find_strays(root: Path, keys: Collection[str], depth: int) -> Strays:
    """Walk a folder and name everything that is not a picture of the data set.

    Args:
        root: the data set's folder; links in it are named and not followed.
        keys: the names of its pictures.
        depth: number of slashes in the name of a picture that lies directly in its class folder.
    """
    strays, used = Strays(), set(keys)
    strays.nested = sorted(key for key in used if key.count("/") > depth)
    for folder, folders, files in os.walk(root):
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        start = "" if below == "." else f"{below}/"
        for name in [*folders, *files]:
            key, path = start + name, os.path.join(folder, name)  # noqa: PTH118 (one a file)
            if os.path.islink(path):  # noqa: PTH114
                (strays.links if os.path.exists(path) else strays.broken).append(key)  # noqa: PTH110
            ending = os.path.splitext(name)[1].lower()  # noqa: PTH122
            if hidden(name):
                strays.system.append(key + "/" * (name in folders))
            elif name in folders or key in used or os.path.islink(path):  # noqa: PTH114
                continue
            elif not os.path.isfile(path):  # noqa: PTH113
                strays.broken.append(key)
            elif ending in EXTENSIONS:
                strays.loose.append(key)
            else:
                (strays.unread if ending in UNREAD else strays.others).append(key)
        folders[:] = sorted(name for name in folders if not hidden(name))
    for names in vars(strays).values():
        names.sort()
    return strays


def _fits(ending: str, kind: str) -> bool:
    """Whether a file's ending is one of its format's."""
    said = Image.registered_extensions().get(ending)
    return said is None or _KIN.get(said, said) == _KIN.get(kind, kind)


def _ranked(values: Any) -> dict[Any, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))
