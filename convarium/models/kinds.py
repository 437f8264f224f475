"""What kind of file this is, from its bytes, whatever its name: weights, or what is mistaken for them."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

SAFETENSORS = "a .safetensors file"


def identify(path: Path) -> tuple[str, str]:
    """What kind of file this is, from its bytes, whatever its name.

    Args:
        path: the file.

    Returns:
        The kind in words, and what keeps it from being read; "" where nothing does.
    """
    with path.open("rb") as file:
        start = file.read(512)
    size = path.stat().st_size
    if not start:
        return "an empty file", "it holds nothing; get it anew"
    if start.startswith(b"version https://git-lfs"):
        return (
            "a Git LFS pointer",
            "the weights themselves were not fetched; run `git lfs pull` where it came from",
        )
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page", "a server sent a page in place of the weights; fetch it again"
    if start.startswith(b"PK"):
        return _zip(path)
    header = struct.unpack("<Q", start[:8])[0] if len(start) >= 9 else 0
    if 2 <= header < 100_000_000 and start[8:9] == b"{":
        return SAFETENSORS, _safetensors(path, header, size)
    if start.startswith(b"\x89HDF"):
        return "an HDF5 file, as Keras writes", "tensors of Keras are not read; convert them to .safetensors"
    if start.startswith(b"\x80") and b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19" in start[:20]:
        return "a PyTorch file of the old form (before 1.6)", ""
    if start.startswith(b"\x80"):
        return "a Python pickle", ""
    return (
        "a file of unknown kind",
        "it begins like no file of weights; .safetensors and PyTorch's files are read",
    )


def misnamed(path: Path, kind: str) -> str:
    """What keeps a file from being read by its name: .safetensors is one thing, every other ending another.

    Args:
        path: the file.
        kind: as `identify` tells it.

    Returns:
        What to do; "" where the name is right.
    """
    is_safetensors = kind == SAFETENSORS
    if is_safetensors == (path.suffix == ".safetensors"):
        return ""
    right = path.with_suffix(".safetensors" if is_safetensors else ".pth").name
    return f"its name does not say what it is; rename it to {right}"


def _zip(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a PyTorch file (or another zip)", "its end is missing: it was cut; get it anew"
    if any("/code/" in name for name in names):
        return "a TorchScript archive (read without running its code)", ""
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch file", ""
    if any(name.endswith(".npy") for name in names):
        return "a NumPy archive", "tensors of JAX or NumPy are not read; convert them to .safetensors"
    return "a zip archive", "it holds no weights that PyTorch wrote; unpack it first"


def _safetensors(path: Path, header: int, size: int) -> str:
    if 8 + header > size:
        return f"it was cut within its table of contents, at {size:,} bytes; get it anew"
    try:
        entries = _header(path)
        end = (
            8
            + header
            + max((e["data_offsets"][1] for n, e in entries.items() if n != "__metadata__"), default=0)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its table of contents cannot be read; get it anew"
    return f"it was cut: it should have {end:,} bytes and has {size:,}; get it anew" if end > size else ""


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
