"""convarium predict: by which engine, found on which pictures; and what a person sees."""

from __future__ import annotations

import subprocess
import sys

import pytest

from convarium.classifier import Classifier, load
from convarium.cli.columns import shown
from convarium.deploy import job
from convarium.judge.scoring import BATCH
from tests.test_cli_predict import filled


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("predict"))


def test_a_name_stays_on_one_line_of_the_screen(convarium, made, monkeypatch):
    monkeypatch.setattr(Classifier, "hasten", lambda *asked: [])
    odd = next(name for name in made[1] if "two\nlines" in name and "085" in name)
    status, said, _ = convarium("predict", made[0] / "m.safetensors", odd, "--top", 1)
    assert status == 0 and said.count("\n") == 1 and "two\\nlines.png: " in said
    assert shown("ク\u3000ラ ‌ス\x1b[2J") == "ク\u3000ラ ‌ス\\x1b[2J"


def test_large_jobs_look_for_a_faster_way_on_pictures_that_can_be_read(convarium, made, monkeypatch):
    asked = []

    class Chosen:
        name, notes = "plain", ("the disk is full",)

    def choose(clf, some, count, mode, *, file, batch):
        asked.append((some.shape, some.dtype.name, count, mode, file))
        return Chosen

    monkeypatch.setattr(job, "choose", choose)
    model = made[0] / "m.safetensors"
    _, _, said = convarium("predict", model, *made[1], "--json")
    assert said == "note: the disk is full\n"
    convarium("predict", model, *made[1], "--engine", "plain")
    convarium("predict", model, *made[1][:BATCH])
    convarium("predict", model, *made[1][:2], "--engine", "exact")
    assert asked == [
        ((32, 3, 16, 16), "uint8", 150, "auto", model),
        ((1, 3, 16, 16), "uint8", 2, "exact", model),
    ]


def test_an_engine_that_does_not_exist_is_refused_though_no_picture_can_be_read(convarium, made, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    status, _, said = convarium(
        "predict", made[0] / "m.safetensors", tmp_path / "broken.png", "--engine", "nonsense"
    )
    assert status == 2 and "nonsense" in said


def test_engines_are_compared_on_32_pictures_though_many_cannot_be_read(made, monkeypatch, tmp_path):
    seen = []

    class Chosen:
        name, notes = "plain", ()

    monkeypatch.setattr(job, "choose", lambda clf, some, *asked, **more: seen.append(len(some)) or Chosen)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    good = [name for number, name in enumerate(made[1]) if number % 7][:100]
    sources = [str(tmp_path / "broken.png") if not place % 3 else good[place % 100] for place in range(96)]
    load(made[0] / "m.safetensors").hasten(sources)
    load(made[0] / "m.safetensors").hasten([*sources[:3], *sources[:1] * 93])
    assert seen == [32, 2]


def test_one_answer_does_not_wait_for_torchvision(made):
    code = (
        "import sys; from convarium.classifier import load; "
        f"said = load({str(made[0] / 'm.safetensors')!r}).predict({made[1][1]!r}); "
        "print(len(said[0]), sorted({'torchvision', 'torch._dynamo', 'sympy', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "3 []\n", done.stderr
