"""What all tests share: where real data lies, the command line, and quiet numerics."""

from __future__ import annotations

import os
import sys
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


@pytest.fixture
def convarium(capfd, monkeypatch):
    """The command line in this process: status, standard output, standard error."""

    from convarium.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["convarium", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        said = capfd.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Measurements and features are kept in a folder of the tests, never in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVARIUM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def same_numbers():
    """Each test starts from one seed and leaves the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
