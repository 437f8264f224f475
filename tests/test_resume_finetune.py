"""Fine-tuning with everything on, killed with SIGKILL and resumed, ends with the very bytes of one left alone."""

from __future__ import annotations

import random

import convarium
from tests.pictures import squares
from tests.test_resume import kill_at, sha256, start

STEPS = 12 * 5  # 240 pictures less a fifth, in batches of 16, five epochs


def test_finetuning_with_mixup_average_workers_and_cache_is_resumed_bit_for_bit(tmp_path):
    first = squares(tmp_path / "first", ("x", "y"), each=10, seed=1)
    weights = convarium.train(
        first, "resnet20", tmp_path / "weights", arguments={"depth": 8}, size=16, epochs=1, precision="fp32"
    ).model
    data = squares(tmp_path / "data", ("a", "b", "c"), each=80)
    options = (
        "--model resnet20 --set depth=8 --epochs 5 --batch 16 --head 3 --mixup 0.2 --ema 0.9 --workers 2"
    )
    options += " --precision fp32"

    def train(out):
        where = ("--weights", weights, "--out", out, "--cache", tmp_path / "cache", "--save-minutes", 0.001)
        return start("train", data, *options.split(), "--augment", "photo", *where)

    process = train(tmp_path / "alone")
    _, messages = process.communicate()
    assert process.returncode == 0, messages
    assert "first the classifier alone" in messages
    out = tmp_path / "run"
    steps = sorted(random.SystemRandom().sample(range(3, STEPS - 20), 2))
    process = train(out)
    for step in steps:
        assert kill_at(process, out, step) >= step
        process = start("resume", out)
    _, messages = process.communicate()
    assert process.returncode == 0, messages
    alone = sha256(tmp_path / "alone" / "model.safetensors")
    assert sha256(out / "model.safetensors") == alone, f"killed at {steps}"
