"""What this machine is; torch is imported by what asks it."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from convarium.limits import cores, memory

# What matters for convolutions: the width of a vector, and units for matrices and short numbers.
WANTED_FLAGS = (
    *("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni"),
    *("amx_tile", "amx_bf16", "amx_int8", "asimd", "sve", "i8mm", "bf16"),
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """The parts of a machine that decide how fast a network runs.

    Args:
        cpu: name of the processor, with its family and model where the name does not tell them.
        architecture: as "x86_64".
        system: as "Linux".
        cores: that this process may use (its affinity and its container's limit).
        memory: bytes that this process may use; None where the system does not tell.
        flags: instructions of `WANTED_FLAGS` that the processor has.
        accelerators: names of the CUDA devices.
    """

    cpu: str
    architecture: str
    system: str
    cores: int
    memory: int | None
    flags: tuple[str, ...]
    accelerators: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits; equal for machines that are alike in all of this (memory to the GiB)."""
        gib = None if self.memory is None else round(self.memory / 2**30)
        facts = repr(sorted({**asdict(self), "memory": gib}.items()))
        return hashlib.sha256(facts.encode()).hexdigest()[:12]

    def __str__(self) -> str:
        widest = [name for name in ("avx512f", "avx2", "sve", "asimd") if name in self.flags][:1]
        special = [name for name in ("amx_bf16", "avx512_bf16") if name in self.flags][:1]
        parts = [self.cpu, f"{self.cores} core{'s' * (self.cores != 1)}", " ".join([*widest, *special])]
        if self.memory is not None:
            parts.append(f"{self.memory / 2**30:.0f} GiB")
        return ", ".join([*filter(None, parts), *self.accelerators])


@cache
def this_machine() -> Machine:
    """The machine that runs this, as it was when first asked."""
    import torch

    info = cpuinfo()
    name = info.get("model name") or platform.processor() or platform.machine() or "unknown processor"
    if "model" in info:  # names within virtual machines are often no more than "Intel(R) Xeon(R) Processor"
        name += f" (family {info.get('cpu family', '?')}, model {info['model']})"
    listed = (info.get("flags") or info.get("Features") or "").split()
    flags = tuple(flag for flag in WANTED_FLAGS if flag in listed)
    found = torch.cuda.is_available()
    accelerators = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if found else []
    return Machine(
        cpu=name,
        architecture=platform.machine(),
        system=platform.system(),
        cores=cores(),
        memory=memory(),
        flags=flags or (torch.backends.cpu.get_cpu_capability().lower(),),
        accelerators=tuple(accelerators),
    )


@contextmanager
def threads(count: int) -> Iterator[None]:
    """While inside, torch computes with so many threads of the processor."""
    import torch

    before = torch.get_num_threads()
    try:
        if count != before:  # setting even the same number makes a new team of threads
            torch.set_num_threads(count)
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; nothing where there is no such file."""
    with suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0]
        pairs = (line.partition(":") for line in first.splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}
    return {}
