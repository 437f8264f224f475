"""A real process killed with SIGKILL at random steps, resumed each time, ends with the very bytes of one left alone."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import convarium
from convarium.errors import RunError
from convarium.training import checkpoint
from tests.pictures import squares

STEPS = 15 * 6  # 240 pictures less a fifth, in batches of 13, six epochs
COMMAND = [sys.executable, "-c", "from convarium.cli import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(*arguments: object) -> subprocess.Popen:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def train(data: Path, out: Path, workers: int) -> subprocess.Popen:
    options = "--model resnet20 --set depth=8 --size 16 --epochs 6 --batch 13 --ema 0.9 --precision bf16"
    # A state every 0.06 s: kills then fall between steps, between states, and into the writing of one.
    return start("train", data, "--out", out, *options.split(), "--workers", workers, "--save-minutes", 0.001)


def kill_at(process: subprocess.Popen, out: Path, step: int) -> int:
    """Kill the process once its kept state has reached a step; the step of the state that survives."""
    state = out / "state" / "last.safetensors"
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
    return checkpoint.progress(state).step


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    data = squares(folder / "data", ("a", "b", "c"), each=80)
    process = train(data, folder / "run", workers=0)
    _, messages = process.communicate()
    assert process.returncode == 0, messages
    return data, folder / "run"


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random_steps_and_resumed_gives_the_same_file(whole, tmp_path, workers):
    data, alone = whole
    out = tmp_path / "run"
    draw = random.SystemRandom()
    steps = sorted(draw.sample(range(5, STEPS - 25), 3 if workers == 0 else 2))
    process = train(data, out, workers)
    for step in steps:
        assert kill_at(process, out, step) >= step
        process = start("resume", out, "--json")
    answer, messages = process.communicate()
    assert process.returncode == 0, messages
    assert sha256(out / "model.safetensors") == sha256(alone / "model.safetensors"), f"killed at {steps}"
    assert not [path.name for path in out.rglob("*.tmp")]
    assert json.loads(answer)["epochs"] == 6
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (alone / "metrics.jsonl").read_text().splitlines()]
    for record in records + expected:
        del record["seconds"]
    assert records == expected


def test_a_polite_signal_keeps_the_state_and_says_how_to_go_on(whole, tmp_path):
    data, alone = whole
    out = tmp_path / "run"
    process = train(data, out, workers=2)
    while not (out / "state" / "last.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"go on with: convarium resume {out}" in messages
    assert "Traceback" not in messages
    assert convarium.resume(out).model.read_bytes() == (alone / "model.safetensors").read_bytes()


def test_a_finished_run_comes_back_as_it_is(whole):
    _, run = whole
    before = sha256(run / "model.safetensors")
    assert convarium.resume(run).model == run / "model.safetensors"
    assert sha256(run / "model.safetensors") == before


def test_training_goes_on_where_nobody_can_read_how_it_goes(whole, tmp_path):
    data, alone = whole
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        options = "--model resnet20 --set depth=8 --size 16 --epochs 1 --out"
        command = [*COMMAND, "train", str(data), *options.split(), str(tmp_path / "run")]
        done = subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=full, check=False)
    assert done.returncode == 0
    assert (tmp_path / "run" / "model.safetensors").exists()
