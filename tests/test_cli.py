"""The command line as a user types it: a real process, its output, its exit status."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convarium.cli import main
from tests.pictures import squares

COMMAND = [sys.executable, "-c", "from convarium.cli import main; main()"]


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, encoding="utf-8", env=environment, timeout=250
    )


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def convarium(capfd, monkeypatch):
    """The command line in this process, which spares the start of Python and torch."""

    def run(*arguments: object, cwd: Path | None = None, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "argv", ["convarium", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        if cwd:
            monkeypatch.chdir(cwd)
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        said = capfd.readouterr()
        return Done(status, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One run of the demo, which the other tests use."""
    out = tmp_path_factory.mktemp("demo") / "пример run"
    done = process("demo", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return out, done


def test_the_demo_learns_real_digits(demo):
    out, done = demo
    answer = json.loads(done.stdout)  # one object, nothing else
    assert answer["top1"]["value"] >= 0.98
    assert answer["top1"]["count"] == 359
    assert answer["top1"]["low"] < answer["top1"]["value"] < answer["top1"]["high"]
    assert answer["run"] == str(out)
    assert Path(answer["model"]).is_file() and Path(answer["report"]).is_file()
    assert answer["seconds"] > 0
    digits = [Path(p["path"]).parent.name for p in answer["predictions"]]
    right = sum(p["predictions"][0]["class"] == d for p, d in zip(answer["predictions"], digits, strict=True))
    assert right >= len(digits) - 1


def test_the_report_is_one_file_that_asks_for_nothing_from_outside(demo):
    out, _ = demo
    page = (out / "report.html").read_text("utf-8")
    for outside in ('src="http', "src='http", 'href="http', "@import", "url(http"):
        assert outside not in page
    assert "<svg" in page and "lenet5" in page


def test_predict_answers_in_the_order_asked_and_with_status_3(convarium, demo, tmp_path):
    out, _ = demo
    digits = sorted((out / "digits" / "val").glob("*/*.png"))
    wrong = tmp_path / "не картинка.jpg"
    wrong.write_text("hello")
    done = convarium("predict", out / "model.safetensors", digits[9], wrong, digits[0], "--json", "--top", 2)
    assert done.returncode == 3
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["path"] for row in rows] == [str(digits[9]), str(wrong), str(digits[0])]
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert set(rows[0]["predictions"][0]) == {"class", "index", "probability"}
    assert len(rows[0]["predictions"]) == 2 and rows[1]["predictions"] == []


def test_predict_takes_folders_patterns_and_standard_input(convarium, demo):
    out, _ = demo
    val = out / "digits" / "val"
    some = sorted((val / "3").glob("*.png"))[:2]
    folder = convarium("predict", out, val / "3", "--json")
    pattern = convarium("predict", out, f"{val}/3/*.png", "--json")
    assert folder.returncode == 0 and folder.stdout == pattern.stdout
    names = convarium("predict", out, "-", "--json", stdin="\n".join(map(str, some)).encode())
    asked = [json.loads(line) for line in names.stdout.splitlines()]
    assert [row["path"] for row in asked] == list(map(str, some))
    piped = convarium("predict", out, "-", "--json", stdin=some[0].read_bytes())
    first = json.loads(folder.stdout.splitlines()[0])
    assert json.loads(piped.stdout)["predictions"][0]["class"] == first["predictions"][0]["class"]


def test_predict_writes_csv(convarium, demo):
    out, _ = demo
    picture = next((out / "digits" / "val" / "7").glob("*.png"))
    done = convarium("predict", out, picture, "--csv", "--top", 3)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["path"] == str(picture)


def test_evaluate_agrees_with_what_the_demo_said(convarium, demo):
    out, done = demo
    judged = convarium("evaluate", out / "model.safetensors", out / "digits", "--json")
    assert judged.returncode == 0, judged.stderr
    answer = json.loads(judged.stdout)
    assert answer["top1"] == json.loads(done.stdout)["top1"]
    assert [row["class"] for row in answer["classes"]] == list("0123456789")
    table = convarium("evaluate", out, out / "digits").stdout
    assert "top-1" in table and "recall" in table


def test_list_and_show_are_for_reading_and_for_machines(convarium):
    names = [json.loads(line)["name"] for line in convarium("list", "lenet5*", "--json").stdout.splitlines()]
    assert names == ["lenet5_1998", "lenet5"]
    shown = convarium("show", "lenet5").stdout
    assert "61,706" in shown and "fc2" in shown and "LeCun" in shown
    lines = convarium("show", "lenet5_1998", "--json").stdout.splitlines()
    assert json.loads(lines[0])["parameters"] == 60_000
    assert any(json.loads(line)["output"] == [16, 10, 10] for line in lines[1:])


def test_whoever_stops_reading_gets_no_complaint():
    command = [*COMMAND, "list", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        listing.stdout.close()
        messages = listing.stderr.read()
    assert listing.returncode == 1 and messages == b""


def test_a_broken_pipe_stays_an_error_and_is_no_death(convarium):
    # Were a broken pipe deadly, a run would end without a word when a compiler's helper process has gone.
    assert convarium("list").returncode == 0
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN


def test_help_does_not_import_torch():
    heavy = "{'torch', 'numpy', 'PIL', 'rich', 'timm'}"
    script = (
        f"import sys; from convarium.cli import app; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "nowhere"), "nowhere"),
        (("train", "data", "--model", "resnet19"), "did you mean resnet18"),
        (("train", "data", "--model", "resnet20", "--epochs", "0"), "epochs = 0; it must be"),
        (("train", "data", "--model", "resnet20", "--set", "depth"), "NAME=VALUE"),
        (("train", "data", "--model", "resnet20", "--epohs", "3"), "--epohs"),
        (("predict", "none.safetensors", "x.png"), "no model at none.safetensors"),
        (("predict", "data/dark/000.png", "x.png"), "not a whole .safetensors file"),
        (("evaluate", "data", "data"), "no model at"),
        (("resume", "data"), "no run at data"),
        (("list", "renset*"), "no network"),
        (("show", "lenet6"), "did you mean lenet5"),
    ],
)
def test_the_users_mistake_is_said_in_words_with_status_2(convarium, tmp_path, arguments, words):
    squares(tmp_path / "data", each=2)
    done = convarium(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_standard_input_that_is_neither_a_picture_nor_names_is_told(convarium, demo):
    out, _ = demo
    picture = next((out / "digits" / "val" / "7").glob("*.png")).read_bytes()
    for content, words in ((b"", "nothing came"), (picture[:60], "neither a picture")):
        done = convarium("predict", out, "-", stdin=content)
        assert done.returncode == 2 and words in done.stderr and done.stdout == ""


def test_a_demo_does_not_write_into_a_run(convarium, demo):
    out, _ = demo
    done = convarium("demo", "--out", out)
    assert done.returncode == 2 and "holds a run already" in done.stderr


def test_a_hostile_folder_trains_or_says_what_to_do(convarium, tmp_path):
    data = squares(tmp_path / "my данные", ("кошки и коты", "dogs"), each=12)
    cats = data / "кошки и коты"
    (data / "nothing here").mkdir()
    (data / ".ipynb_checkpoints").mkdir()
    (data / "notes.txt").write_text("hello")
    whole = (cats / "000.png").read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "n.jpg")
    (cats / "cut.jpg").write_bytes((tmp_path / "n.jpg").read_bytes()[:800])
    (cats / "zero.jpg").touch()
    (cats / "text.jpg").write_text("this is no picture")
    Image.new("RGB", (1, 1), "white").save(cats / "one pixel.png")
    Image.new("L", (12_000, 12_000)).save(cats / "huge.png")
    frames = [Image.fromarray(noise), Image.fromarray(255 - noise)]
    frames[0].save(cats / "moving.gif", save_all=True, append_images=frames[1:])
    (cats / "broken link.png").symlink_to(tmp_path / "gone.png")
    (data / "itself").symlink_to(data / "itself")
    (cats / "фото 1.png").write_bytes(whole)
    other = squares(tmp_path / "val", ("dogs", "кошки и коты", "only in validation"), each=4)
    done = convarium(
        "train", data, "--val", other, "--model", "resnet20", "--set", "depth=8", "--size", 16,
        "--epochs", 1, "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    damaged = (tmp_path / "run" / "damaged.txt").read_text("utf-8")
    for name in ("cut.jpg", "zero.jpg", "text.jpg"):
        assert name in damaged
    for name in ("one pixel", "huge", "moving", "фото"):
        assert name not in damaged
    for words in ("nothing here", "only in validation", "broken link"):
        assert words in done.stderr
    assert json.loads(done.stdout)["top1"]["count"] == 8


def test_a_folder_that_cannot_be_written_is_told(convarium, tmp_path):
    squares(tmp_path / "data", each=4)
    (tmp_path / "file").touch()
    done = convarium("train", tmp_path / "data", "--model", "lenet5", "--out", tmp_path / "file" / "run")
    assert done.returncode == 2
    assert "cannot make the folder" in done.stderr and "--out" in done.stderr
