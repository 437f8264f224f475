"""Files are whole or absent."""

from __future__ import annotations

import errno
import os

import pytest

from convarium import storage
from convarium.errors import RunError


def test_a_full_disk_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "file"
    storage.write_text(path, "old")

    def fails(temporary):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match="the disk is full; free some space"):
        storage.write(path, fails)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_another_kind_passes_through(tmp_path):
    with pytest.raises(KeyError):
        storage.write(tmp_path / "file", lambda temporary: {}["no"])
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_has_the_usual_permissions(tmp_path):
    def private(temporary):
        temporary.touch(0o600)

    storage.write(tmp_path / "a", private)
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="a file stands where a folder is needed|cannot make the folder"):
        storage.make_folder(tmp_path / "file" / "below")


def test_models_are_files_and_runs_that_hold_one(tmp_path):
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "empty").mkdir()
    assert storage.is_model(tmp_path) and storage.is_model(str(tmp_path))
    assert storage.is_model("not/there/yet.safetensors")  # whoever opens it says what is wrong
    assert not any(map(storage.is_model, ("resnet18", "timm:resnet18", tmp_path / "empty", "weights.pth")))


def test_what_killed_processes_left_is_swept_when_it_is_old(tmp_path):
    old, young, other = tmp_path / ".a.7.tmp", tmp_path / ".b.8.tmp", tmp_path / "c.tmp"
    for file in (old, young, other):
        file.touch()
    for file in (old, other):
        os.utime(file, (0, 0))
    storage.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == [young, other]
