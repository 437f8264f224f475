"""convarium draw: files, levels, differences, and what is refused."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer
from typer.testing import CliRunner

from convarium.cli import draw
from convarium.errors import ArgumentError, CheckpointError, RunError, UnknownName

app = typer.Typer()
app.command()(draw.run)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """The verb in this process, in an empty folder; errors come through."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        return CliRunner().invoke(app, list(arguments), catch_exceptions=False).stdout

    return run


def words(path) -> str:
    return " ".join(ElementTree.parse(path).getroot().itertext())


def test_a_name_alone_gives_the_whole_network(drawn, tmp_path):
    assert drawn("lenet5") == "wrote lenet5-net.svg\n"
    found = words(tmp_path / "lenet5-net.svg")
    assert "LeCun" in found
    assert "61.7 k parameters" in found


@pytest.mark.parametrize(
    ("level", "word"), [("stage", "× n: n blocks alike"), ("block", "One block of each kind")]
)
def test_levels_open_it(drawn, tmp_path, level, word):
    drawn("resnet20", "--level", level, "-o", "x.svg")
    assert word in words(tmp_path / "x.svg")


def test_a_part_is_drawn_in_its_leaves(drawn, tmp_path):
    drawn("resnet20", "--part", "stages.1.blocks.0", "-o", "x.svg")
    assert "pad with zeros, /2" in words(tmp_path / "x.svg")


def test_size_channels_and_classes_are_those_asked_for(drawn, tmp_path):
    drawn("resnet20", "--size", "64", "--channels", "1", "--classes", "7", "-o", "x.svg")
    found = words(tmp_path / "x.svg")
    assert "input 1×64×64" in found
    assert "linear, 7" in found


def test_two_networks_stand_on_one_sheet(drawn, tmp_path):
    assert drawn("resnet20", "--diff", "plain20", "--level", "block") == "wrote resnet20-plain20-block.svg\n"
    found = words(tmp_path / "resnet20-plain20-block.svg")
    assert "in both, but not alike" in found
    assert "plain20" in found


@pytest.mark.parametrize(("file", "start"), [("x.png", b"\x89PNG"), ("x.pdf", b"%PDF"), ("x.SVG", b"<svg")])
def test_the_ending_chooses_the_format(drawn, tmp_path, file, start):
    drawn("lenet5", "-o", file, "--theme", "dark")
    assert (tmp_path / file).read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (["lenet5", "--level", "nets"], UnknownName, "did you mean net"),
        (["lenet5", "--theme", "black"], UnknownName, "light"),
        (["lenet5", "-o", "x.gif"], ArgumentError, ".svg, .png, .pdf"),
        (["lenet5", "--level", "net", "--part", "head"], ArgumentError, "'stage' and 'block'"),
        (["lenet5", "--part", "heads"], UnknownName, "did you mean head"),
        (["lenet6"], UnknownName, "did you mean lenet5"),
        (["lenet5", "--diff", "lenet6"], UnknownName, "did you mean lenet5"),
        (["lenet5", "-o", "no/such/folder/x.svg"], ArgumentError, "no/such/folder"),
        (["lenet5", "-o", "."], ArgumentError, ". is a folder; give the name of a file in it"),
        (["./lenet5"], CheckpointError, "there is no file or folder ./lenet5"),
    ],
)
def test_what_cannot_be_drawn_is_refused(drawn, tmp_path, arguments, error, said):
    with pytest.raises(error, match=said.replace(".", r"\.")):
        drawn(*arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["x.svg", "x.png", "x.pdf"])
def test_a_place_that_cannot_be_written_is_told_and_what_was_there_stays(drawn, tmp_path, monkeypatch, file):
    (tmp_path / file).write_text("earlier")

    def refused(self: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_bytes", refused)
    with pytest.raises(RunError, match=f"cannot write {file}: no permission to write there"):
        drawn("lenet5", "-o", file)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(file, "earlier")]
