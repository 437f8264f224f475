"""Freed memory is kept for the next step instead of being given back to the system.

glibc takes large blocks from the system when they are asked for and gives them back when they are freed. A step of
training, or a pass of inference, frees and asks for the same blocks each time, so each pays for the same pages anew:
the system must find them, fill them with zeros and map them. Kept memory costs nothing of that. Worse for whoever
measures, glibc begins to keep blocks once it has freed a larger one: the same network is then faster or slower by half
with what ran before it. So verbs that compute keep freed memory from the beginning, and every figure says so.

The price: what the process has held at its most, it holds until it ends, and blocks that no longer fit the next
request lie idle. `benchmarks/training.py` prints the time that is saved and the memory that it costs.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

_KEEP_BELOW = 1 << 30
"""Bytes from which a block is still taken from the system by itself, and given back at once."""

_KEEP_FREE = 2**31 - 1
"""Bytes that may lie free at the top of the heap: the most that mallopt, which takes an int, can be told."""


@cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory; it cannot be undone in this process.

    Returns:
        Whether it took effect: False where the C library is another one, or refused.
    """
    if not _is_glibc():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return bool(mallopt(_MMAP_THRESHOLD, _KEEP_BELOW) and mallopt(_TRIM_THRESHOLD, _KEEP_FREE))


def in_words() -> str:
    """How memory is handled here, for the record of a measurement."""
    return (
        "freed memory kept"
        if keep_freed_memory.cache_info().currsize and keep_freed_memory()
        else "usual memory"
    )


def _is_glibc() -> bool:
    """Whether this process runs on glibc; musl and other systems have no such name."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):
        return False
