"""A process that mixes pictures, averages weights, sums gradients and has workers is killed, and ends the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convarium.data.builtin import write_digits
from convarium.errors import RunError
from convarium.training import checkpoint

CHILD = """
import hashlib, sys
from pathlib import Path
import torch
from convarium.data.augment import Augment
from convarium.data.folders import read_data
from convarium.data.loader import Loader
from convarium.data.preprocessing import Preprocessing
from convarium.models import create
from convarium.training import loop
from convarium.training.precision import Precision
from convarium.training.recipes import Recipe
from convarium.training.signals import Stop
from convarium.training.task import Classify
from convarium.training.watch import Watch

if __name__ == "__main__":
    data, state, workers, resume = sys.argv[1:]
    pictures = read_data(Path(data)).parts["val"]
    look = Preprocessing(16, "RGB", mean=(0.5,) * 3, std=(0.5,) * 3)
    loader = Loader(pictures, look, batch=16, seed=3, augment=Augment(rotate=10, shift=0.1), shuffle=True,
                    workers=int(workers))
    torch.manual_seed(0 if resume == "no" else 9)
    task = Classify(create("resnet20", depth=8, size=16), mixup=0.4)
    recipe = Recipe(epochs=3, batch=16, lr=1e-3, ema=0.9, accumulate=2)
    setting = loop.Setting(seed=3, device=torch.device("cpu"), precision=Precision(True, True, "test"),
                           normalise=look.normalise, validate=None, state=Path(state), minutes=1e-4, stop=Stop(),
                           watcher=Watch(quiet=True))
    parts = loop.fit(task, loader, recipe, setting, resume == "yes")
    both = hashlib.sha256()
    for module in (task, loop.kept(parts)):
        for name, tensor in module.state_dict().items():
            both.update(name.encode() + tensor.contiguous().numpy().tobytes())
    print(parts.progress.step, both.hexdigest())
"""

STEPS = 12 * 3  # 360 pictures in 23 batches of 16, two a step, three epochs


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


def start(data: Path, state: Path, workers: int, resume: bool) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(data), str(state), str(workers), "yes" if resume else "no"]
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> list[str]:
    answer, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    return answer.split()


def kill_at(process: subprocess.Popen[str], state: Path, step: int) -> None:
    """Kill the process without warning once its state has reached a step."""
    while process.poll() is None:
        try:
            if checkpoint.progress(state).step >= step:
                break
        except RunError:
            pass
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "training ended before it could be killed"


def test_killed_at_a_random_step_it_ends_with_the_same_weights(data, tmp_path):
    whole = ended(start(data, tmp_path / "whole.safetensors", workers=0, resume=False))
    assert whole[0] == str(STEPS)
    state = tmp_path / "killed.safetensors"
    step = random.SystemRandom().randrange(1, STEPS - 8)
    kill_at(start(data, state, workers=2, resume=False), state, step)
    assert step <= checkpoint.progress(state).step < STEPS
    assert ended(start(data, state, workers=2, resume=True)) == whole, f"killed at {step}"
