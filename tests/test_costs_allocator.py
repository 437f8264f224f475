"""Freed memory is kept where glibc can be told to, and nothing happens elsewhere."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from convarium.costs import allocator

FAULTS = """
import ctypes, resource, sys
from convarium.costs.allocator import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "kept" else None)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
def large():
    for _ in range(5):
        block = libc.malloc(48 << 20)  # above the most that glibc keeps of its own accord
        libc.memset(block, 1, 48 << 20)
        libc.free(block)
large()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
large()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has this allocator")
def test_large_blocks_are_not_asked_for_anew():
    faults = {}
    for how in ("kept", "given"):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True, timeout=120
        )
        said, count = done.stdout.split()
        assert said == ("True" if how == "kept" else "None")
        faults[how] = int(count)
    assert faults["kept"] < faults["given"] / 10


@pytest.mark.parametrize("said", ["", None, OSError, AttributeError])
def test_another_c_library_is_left_alone(monkeypatch, said):
    def confstr(name):
        if isinstance(said, type):
            raise said
        return said

    monkeypatch.setattr(allocator.os, "confstr", confstr, raising=False)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("it was called"))
    assert allocator.keep_freed_memory.__wrapped__() is False


def test_a_refusal_is_told(monkeypatch):
    class Library:
        @staticmethod
        def mallopt(what, value):
            return 0

    monkeypatch.setattr(allocator, "_is_glibc", lambda: True)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: Library)
    assert allocator.keep_freed_memory.__wrapped__() is False
