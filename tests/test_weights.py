"""Foreign files of weights: read safely, fitted strictly."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from convarium.errors import ArgumentError, CheckpointError, WeightsMismatch
from convarium.models import create, weights


def test_the_untouched_pickle_and_the_safetensors_hold_the_same(shared):
    pickled = create("resnet20", weights=shared / "weights" / "resnet20-12fca82f.th").state_dict()
    plain = create("resnet20", weights=shared / "weights" / "cifar10_resnet20.safetensors").state_dict()
    assert all(torch.equal(pickled[name], plain[name]) for name in plain if "num_batches" not in name)


def test_nothing_in_a_pickle_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError):
        weights.read(path)
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(CheckpointError, match="would run code"):
        weights.read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth", "empty.pth", "text.pt"])
def test_a_damaged_file_is_refused(tmp_path, name):
    path = tmp_path / name
    whole = tmp_path / "whole"
    state = {"a": torch.randn(100)}
    save_file(state, whole) if name.endswith("safetensors") else torch.save(state, whole)
    content = {"empty.pth": b"", "text.pt": b"version https://git-lfs\n" * 9}.get(name)
    path.write_bytes(whole.read_bytes()[:150] if content is None else content)
    with pytest.raises(CheckpointError, match=name):
        weights.read(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no file of weights at"):
        create("resnet20", weights=tmp_path / "none.pth")


def test_a_mismatch_lists_both_sides():
    net = create("lenet5")
    state = net.state_dict()
    state["head.fc.wieght"] = state.pop("head.fc.weight")
    with pytest.raises(WeightsMismatch) as raised:
        weights.fit(net, state)
    assert "- missing    head.fc.weight (10, 84)" in str(raised.value)
    assert "+ unexpected head.fc.wieght (10, 84)" in str(raised.value)


def test_a_mismatch_changes_nothing():
    net = create("lenet5")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = {name: value + 1 for name, value in before.items()}
    state["head.fc.weight"] = torch.zeros(3, 84)
    with pytest.raises(WeightsMismatch, match="head.fc.weight: file"):
        weights.fit(net, state)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_two_tensors_for_one_name_are_refused():
    with pytest.raises(WeightsMismatch, match="both be called x"):
        weights.rename({"a": torch.zeros(1), "b": torch.zeros(1)}, [("[ab]", "x")])


def test_none_drops_by_name_and_a_value_rule_reshapes():
    renamed = weights.rename(
        {"gone": torch.zeros(1), "old": torch.zeros(2, 3)}, [("gone", None), ("old", "new", torch.t)]
    )
    assert {name: tuple(t.shape) for name, t in renamed.items()} == {"new": (3, 2)}


def test_wrappers_prefixes_are_taken_off(tmp_path):
    state = {f"module.{name}": value for name, value in create("lenet5").state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "w.pth")
    loaded = create("lenet5", weights=tmp_path / "w.pth").state_dict()
    assert all(torch.equal(state[f"module.{name}"], value) for name, value in loaded.items())


def save_pointer(path):
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")


def save_page(path):
    path.write_bytes(b"<!DOCTYPE html><html>not found</html>")


def save_noise(path):
    path.write_bytes(bytes(range(7, 250)) * 9)


def save_misnamed(path):
    save_file({"a": torch.zeros(3)}, path)


@pytest.mark.parametrize(
    ("name", "save", "said"),
    [
        ("w.pth", save_pointer, "is a Git LFS pointer: .*git lfs pull"),
        ("w.safetensors", save_pointer, "is a Git LFS pointer: .*git lfs pull"),
        ("w.pth", save_page, "is a web page: .*fetch it again"),
        ("w.pth", save_noise, "is a file of unknown kind: it begins like no file of weights"),
        ("w.pth", save_misnamed, "is a .safetensors file: .*rename it to w.safetensors"),
    ],
)
def test_a_file_is_called_what_it_is(tmp_path, name, save, said):
    save(tmp_path / name)
    with pytest.raises(CheckpointError, match=said):
        create("resnet20", weights=tmp_path / name)


def test_no_unsafe_advice_is_repeated(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "whole.pth")
    (tmp_path / "damaged.pth").write_bytes(b"\x80\x02" + bytes(range(100)))
    for name, said in (
        ("whole.pth", "more than tensors .torch.nn.modules.linear.Linear."),
        ("damaged.pth", "damaged"),
    ):
        with pytest.raises(CheckpointError, match=said) as raised:
            weights.read(tmp_path / name)
        text = str(raised.value)
        assert (
            "weights_only" not in text and "\x1b" not in text and len(text.replace(str(tmp_path), "")) < 200
        )


def test_an_address_is_said_not_to_be_fetched():
    with pytest.raises(
        CheckpointError, match="addresses are not fetched; download https://example.org/a.pth"
    ):
        create("resnet20", weights="https://example.org/a.pth")


def test_a_publishers_tag_alone_is_told_with_its_publisher():
    with pytest.raises(CheckpointError, match="did you mean 'torchvision:IMAGENET1K_V2'"):
        create("resnet50", weights="IMAGENET1K_V2")


def test_what_is_no_name_and_no_path_is_refused():
    for name in (None, 3):
        with pytest.raises(ArgumentError, match=f"name = {name}; it must be the name of a network"):
            create(name)
    with pytest.raises(ArgumentError, match="weights = True; it must be the path of a file"):
        create("resnet20", weights=True)


@pytest.mark.parametrize("name", ["resnet20", "torchvision:resnet18"])
def test_an_unknown_argument_is_told_with_what_is_near(name):
    with pytest.raises(ArgumentError, match="takes no argument 'clases'.*did you mean classes"):
        create(name, clases=3)
