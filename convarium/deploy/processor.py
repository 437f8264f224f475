"""What processor this is and how many threads may run on it, without torch: a second of start-up is worth that."""

from __future__ import annotations

import hashlib
import os
import platform
from contextlib import suppress
from functools import cache
from importlib import metadata

from convarium.costs.machine import cpuinfo
from convarium.limits import cores

SHORT = {"avx512_bf16", "amx_bf16", "bf16"}
"""Instructions of which one is needed to multiply bfloat16 numbers; without, they are slower than float32."""

LIBRARIES = ("torch", "openvino", "onnxruntime")
"""What computes: another version of one may be faster or slower, or round otherwise."""


def threads() -> int:
    """Threads to compute with: the cores that this process may use, or fewer where OMP_NUM_THREADS says so."""
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(int(told), cores()) if told.isdecimal() and int(told) else cores()


@cache
def flags() -> frozenset[str]:
    """Instructions that the processor has, as Linux names them; none where the system does not tell."""
    return frozenset((cpuinfo().get("flags") or cpuinfo().get("Features") or "").split())


def short_numbers() -> bool:
    """Whether the processor multiplies bfloat16 numbers itself."""
    return bool(SHORT & flags())


@cache
def fingerprint() -> str:
    """Twelve hexadecimal digits; equal for processes that would measure alike: processor, cores, system."""
    about = cpuinfo()
    facts = [about.get(name, "") for name in ("vendor_id", "model name", "cpu family", "model", "stepping")]
    facts += [platform.processor(), platform.machine(), platform.system(), str(cores()), *sorted(flags())]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


@cache
def versions() -> dict[str, str]:
    """Versions of this package and of `LIBRARIES`; empty for one that is not installed."""
    from convarium import __version__

    found = {"convarium": __version__}
    for name in LIBRARIES:
        found[name] = ""
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
