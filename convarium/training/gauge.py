"""How much memory is held while a network trains, and how busy the accelerator is.

An NVIDIA card is asked through its management library (nvidia-ml-py, optional); where that is not installed, refuses,
or does not know (slices of a card, containers without the right), torch says what it can. Nothing here ever stops a
training.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

GIB = 2**30
EVERY = 1.0
"""Seconds between two looks."""


class Gauge:
    """Reads a device's memory from time to time.

    Args:
        device: where training runs.
        clock: gives seconds.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.monotonic) -> None:
        self.device = device
        self._clock = clock
        self._read = _reader(device)
        self._text = ""
        self._next = float("-inf")

    def text(self) -> str:
        """As "12.3 of 79.2 GiB, 97 % busy" on a card, "1.4 GiB" on a processor; empty where nothing is known."""
        if self._clock() >= self._next:
            self._next = self._clock() + EVERY
            try:
                self._text = self._read()
            except Exception:  # a card that was lost, a right that was taken away: training matters more
                self._text, self._read = "", str
        return self._text


def _reader(device: torch.device) -> Callable[[], str]:
    """What to ask on a device."""
    if device.type == "cpu":
        return _process
    if device.type != "cuda":
        return str
    try:
        return _card(device)
    except (
        Exception
    ):  # not installed, no driver, no permission, a slice of a card: torch knows the memory at least
        return lambda: _memory(*_cuda(device))


def _card(device: torch.device) -> Callable[[], str]:
    """Ask the management library about the card that torch calls by this device."""
    pynvml = importlib.import_module("pynvml")  # the optional library nvidia-ml-py
    pynvml.nvmlInit()
    # By its name, not by its number: CUDA_VISIBLE_DEVICES numbers cards anew.
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
    pynvml.nvmlDeviceGetMemoryInfo(handle)  # refused now rather than later

    def read() -> str:
        held = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return _memory(held.used, held.total) + _busy(pynvml, handle)

    return read


def _busy(pynvml: Any, handle: Any) -> str:
    try:
        return f", {pynvml.nvmlDeviceGetUtilizationRates(handle).gpu} % busy"
    except Exception:  # slices of a card (MIG) do not say
        return ""


def _cuda(device: torch.device) -> tuple[int, int]:
    free, total = torch.cuda.mem_get_info(device)
    return total - free, total


def _memory(used: int, total: int) -> str:
    return f"{used / GIB:.1f} of {total / GIB:.1f} GiB"


def _process() -> str:
    """Memory of this process; other systems than Linux do not say without more libraries."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return ""
    return f"{int(found[1]) * 1024 / GIB:.1f} GiB" if found else ""
