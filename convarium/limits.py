"""How much of the machine this process may use, by its affinity and by the limits of its container."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def cores() -> int:
    """Cores that this process may use: its affinity, cut by the quota of its container."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        allowed = os.cpu_count() or 1
    quotas = []
    for folder in _groups():
        with suppress(OSError, ValueError, ZeroDivisionError):
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{x}_us").read_text() for x in ("quota", "period"))
            if float(quota) > 0:  # "max", or -1, is no limit
                quotas.append(float(quota) / float(period))
    return max(1, min([allowed, *(-int(-quota // 1) for quota in quotas)]))


def memory() -> int | None:
    """Bytes that this process may use: the machine's, cut by the limit of its container; None where unknown."""
    limits = []
    with suppress(AttributeError, OSError, ValueError):  # Windows
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for folder in _groups():
        for file in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):  # "max" is no number and no limit
                limits.append(int((folder / file).read_text()))
    return min(limits, default=None)


def free_memory() -> int | None:
    """Bytes of the machine's memory that nothing uses now; None where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return min(int(line.split()[1]) * 1024, memory() or 1 << 62)
    return None


def _groups() -> list[Path]:
    """Folders in which Linux keeps the limits of this process's container, its own and those above it."""
    root = Path("/sys/fs/cgroup")
    folders = [root, root / "cpu", root / "memory"]
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            for kind in kinds.split(","):  # empty in version 2
                own = root / kind / path.lstrip("/")
                folders += [own, *(above for above in own.parents if root in above.parents)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
