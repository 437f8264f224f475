"""What all tests share: where real data lies, and quiet numerics."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

SHARED = Path(os.environ.get("CONVARIUM_SHARED", Path(__file__).parents[2] / "shared")) / "data"


@pytest.fixture
def shared() -> Path:
    """The folder of real pictures and weights; the test is skipped where it is not there."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data at {SHARED}")
    return SHARED


@pytest.fixture(autouse=True)
def same_numbers():
    """Each test starts from one seed and leaves the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
