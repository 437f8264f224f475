"""What is found out about files of weights: real ones, foreign ones, damaged ones."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from convarium.classifier import Classifier
from convarium.data.preprocessing import Preprocessing
from convarium.errors import CheckpointError, UnknownName
from convarium.models import alike, create, names, registry, torchscript, variant
from convarium.models.doctor import examine
from convarium.packing import pack
from tests.reference import build, randomise

# file in the shared data: network, publisher, classes, parameters
REAL = {
    "squeezenet1_1_imagenet.safetensors": ("squeezenet1_1", "torchvision", 1000, 1_235_496),
    "mobilenet_v2_imagenet.safetensors": ("mobilenet_v2", "torchvision", 1000, 3_504_872),
    "mobilenetv1_075_imagenet.safetensors": ("mobilenet_v1_075", "timm", 1000, 2_585_560),
    "mobilenetv1_025_imagenet.safetensors": ("mobilenet_v1_025", "timm", 1000, 470_072),
    "mobilenetv2_035_flowers5_128.safetensors": ("mobilenetv2_035", "timm", 5, 402_533),
    "cifar10_resnet20.safetensors": ("resnet20", "akamaster/pytorch_resnet_cifar10", 10, 269_722),
    "cifar10_resnet56.safetensors": ("resnet56", "akamaster/pytorch_resnet_cifar10", 10, 853_018),
    "resnet20-12fca82f.th": ("resnet20", "akamaster/pytorch_resnet_cifar10", 10, 269_722),
}


@pytest.mark.parametrize("file", REAL)
def test_real_files_are_recognised(shared, file):
    found = examine(shared / "weights" / file)
    name, publisher, classes, parameters = REAL[file]
    assert found.usable and found.problem == ""
    assert (found.fits[0].name, found.fits[0].publisher) == (name, publisher)
    assert (found.classes, found.parameters) == (classes, parameters)


def test_a_legacy_pickle_is_called_one(shared):
    assert "old form" in examine(shared / "weights" / "resnet20-12fca82f.th").kind


def test_folded_norms_are_seen(shared):
    assert "they were folded" in examine(shared / "weights" / "mobilenet_v2_imagenet.safetensors").norms
    assert "look trained" in examine(shared / "weights" / "mobilenetv1_025_imagenet.safetensors").norms


def test_features_without_a_classifier_are_recognised(shared):
    found = examine(shared / "weights" / "mobilenetv2_035_backbone_imagenet.safetensors")
    assert found.usable and found.classes == 0
    assert [fit.name for fit in found.fits] == ["mobilenetv2_035"]


def test_what_does_not_fit_is_said_tensor_by_tensor(tmp_path, state):
    del state["head.fc.bias"]
    state["stem.conv.weight"] = torch.zeros(16, 1, 5, 5)
    state["extra"] = torch.zeros(2)
    torch.save(state, tmp_path / "net.pth")
    found = examine(tmp_path / "net.pth")
    assert not found.usable and found.fits[0].name == "resnet20"
    assert sorted(line.split()[:3] for line in found.fits[0].problems) == [
        ["!", "shape", "stem.conv.weight:"],
        ["+", "unexpected", "extra"],
        ["-", "missing", "head.fc.bias"],
    ]


def test_a_network_that_is_not_ours_is_near_none(shared):
    assert examine(shared / "weights" / "vit_mnist.safetensors").fits == []


def test_a_network_that_has_no_classifier_to_leave_out_can_be_compared(shared):
    found = examine(shared / "weights" / "cifar10_resnet20.safetensors", model="clip_rn50")
    assert not found.usable and found.fits[0].problems


def test_a_named_network_is_compared_tensor_by_tensor(shared):
    found = examine(shared / "weights" / "cifar10_resnet20.safetensors", model="resnet32")
    assert [fit.name for fit in found.fits] == ["resnet32"]
    assert any(line.startswith("- missing    stages.0.blocks.3") for line in found.fits[0].problems)


@pytest.fixture
def state():
    net = create("resnet20", classes=7, in_channels=1)
    return {name: t.clone() for name, t in net.state_dict().items()}


def test_our_own_file_tells_of_itself(tmp_path, state):
    description = {
        "format": 1,
        "architecture": {
            "name": "resnet20",
            "arguments": {"classes": 7, "in_channels": 1, "size": 32, "shortcut": "A"},
        },
        "classes": list("абвгдеж"),
    }
    save_file(state, tmp_path / "модель.safetensors", {"convarium": json.dumps(description)})
    found = examine(tmp_path / "модель.safetensors")
    assert found.usable and found.description["classes"] == list("абвгдеж")
    assert (found.fits[0].name, found.fits[0].publisher) == ("resnet20", "convarium")
    assert found.fits[0].arguments["shortcut"] == "A" and found.classes == 7


def test_channels_and_classes_are_read_from_the_file(tmp_path, state):
    torch.save({"state_dict": state}, tmp_path / "net.pth")
    fit = examine(tmp_path / "net.pth").fits[0]
    assert fit.arguments["classes"] == 7 and fit.arguments["in_channels"] == 1


def test_untrained_and_broken_statistics_are_said(tmp_path, state):
    torch.save(state, tmp_path / "net.pth")
    assert "never trained" in examine(tmp_path / "net.pth").norms
    state["stem.norm.running_var"][3] = float("nan")
    state["head.fc.weight"][0] = float("inf")
    torch.save(state, tmp_path / "net.pth")
    found = examine(tmp_path / "net.pth")
    assert "1 of 19 batch norms hold values that are no numbers, first stem.norm" in found.norms
    assert "1 tensors hold values that are no numbers, first head.fc.weight" in found.notes


def test_files_that_are_no_weights_are_called_what_they_are(tmp_path):
    files = {
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        "a web page": b"\n<!DOCTYPE html><html>",
        "an empty file": b"",
        "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(64),
        "a file of unknown kind": b"hello, this is a text",
    }
    for kind, content in files.items():
        (tmp_path / "net.safetensors").write_bytes(content)
        found = examine(tmp_path / "net.safetensors")
        assert found.kind.startswith(kind) and found.problem and not found.usable


def test_cut_files_are_said_to_be_cut(tmp_path, state):
    save_file(state, tmp_path / "net.safetensors")
    whole = (tmp_path / "net.safetensors").read_bytes()
    for length in (len(whole) - 1, 100):
        (tmp_path / "net.safetensors").write_bytes(whole[:length])
        assert "it was cut" in examine(tmp_path / "net.safetensors").problem
    torch.save(state, tmp_path / "net.pth")
    (tmp_path / "net.pth").write_bytes((tmp_path / "net.pth").read_bytes()[:-100])
    assert "it was cut" in examine(tmp_path / "net.pth").problem


def test_a_wrong_ending_is_said(tmp_path, state):
    save_file(state, tmp_path / "net.pth")
    assert "rename it to net.safetensors" in examine(tmp_path / "net.pth").problem


class Bomb:
    def __reduce__(self):
        return print, ("executed",)


def test_a_pickle_with_code_is_not_executed(tmp_path, capsys):
    torch.save({"state_dict": Bomb()}, tmp_path / "net.pth")
    found = examine(tmp_path / "net.pth")
    assert "would run code" in found.problem
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(Bomb()))
    assert examine(tmp_path / "net.pkl").problem
    assert "executed" not in capsys.readouterr().out


def scripted(path, module, **options):
    with warnings.catch_warnings():  # torch says that TorchScript is an old form; that is why it is read here
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module, **options), path)


def test_a_torchscript_archive_is_read_without_running_it(tmp_path):
    theirs = randomise(build("torchvision:resnet18", num_classes=4)).half()
    scripted(tmp_path / "net.pt", theirs)
    read = torchscript.read(tmp_path / "net.pt")
    wanted = theirs.state_dict()
    assert read.keys() == wanted.keys()
    assert all(torch.equal(read[name], wanted[name]) for name in wanted)
    found = examine(tmp_path / "net.pt")
    assert found.kind.startswith("a TorchScript archive")
    assert (found.fits[0].name, found.fits[0].publisher, found.classes) == ("resnet18", "torchvision", 4)
    assert any("half precision" in note for note in found.notes)


@pytest.mark.parametrize("held", [Bomb(), torch.nn.Linear(1, 1)])
def test_a_torchscript_archive_with_other_names_is_refused(tmp_path, held, capsys):
    import zipfile

    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("net/code/__torch__.py", "")
        archive.writestr("net/data.pkl", pickle.dumps(held))
    with pytest.raises(CheckpointError, match="cannot be read without running it"):
        torchscript.read(tmp_path / "net.pt")
    assert "executed" not in capsys.readouterr().out


def test_networks_that_only_their_trainer_can_tell_apart_are_all_named(tmp_path):
    theirs = build("torchvision:resnet50").to_empty(device="cpu").state_dict()
    zeros = {name: torch.zeros_like(tensor) for name, tensor in theirs.items()}
    save_file(zeros, tmp_path / "net.safetensors")
    found = examine(tmp_path / "net.safetensors")
    assert [fit.name for fit in found.fits] == ["resnet50", "resnet50_v1"]
    assert "only who trained it can tell" in found.notes[-1]


def test_a_missing_file_and_an_unknown_network_are_errors(tmp_path):
    with pytest.raises(CheckpointError, match="no file of weights at"):
        examine(tmp_path / "nothing.pth")
    (tmp_path / "net.pth").write_bytes(b"PK")
    with pytest.raises(UnknownName, match="did you mean resnet18"):
        examine(tmp_path / "net.pth", model="resnet81")


def test_what_is_said_is_true_of_create(shared):
    file = shared / "weights" / "mobilenetv2_035_flowers5_128.safetensors"
    fit = examine(file).fits[0]
    net = create(fit.name, weights=file, **fit.arguments)
    assert sum(p.numel() for p in net.parameters()) == sum(
        t.numel() for n, t in load_file(file).items() if "running" not in n
    )


def test_the_package_stays_light():
    code = "import sys, convarium; print(sorted({'timm', 'huggingface_hub'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_options_that_the_file_cannot_tell_are_named_with_their_values(convarium, shared):
    file = shared / "weights" / "mobilenetv1_025_imagenet.safetensors"
    assert examine(file).fits[0].unseen == {"padding": ("torch", "same")}
    status, said, _ = convarium("doctor", file)
    assert status == 0 and "cannot tell padding: 'torch' is this network's, 'same' takes" in said


def test_a_network_without_such_options_has_none():
    assert alike.unseen("resnet20") == {} and alike.unseen("timm:resnet10t") == {}


def test_every_option_that_no_tensor_shows_is_known():
    """Of each family's smallest network: every switch, and every word that its docstring offers."""
    smallest = {}
    for row in sorted(map(variant, names()), key=lambda row: -row.parameters):
        smallest[row.family] = row
    for row in smallest.values():
        own = {"classes": row.classes, "in_channels": row.in_channels, "size": row.size}
        form, known = alike._form(row.name, own), alike.unseen(row.name)
        for option, value in registry.options(row.name).items():
            if option in alike._NEUTRAL or not isinstance(value, str | bool):
                continue
            told = re.search(rf"^ +{option}: (.*?)(?=^ +\w+: |^\S)", row.build.__doc__, re.M | re.S)
            words = re.findall(r'"([^"]+)"', told[1]) if told else []
            others = [not value] if isinstance(value, bool) else [word for word in words if word != value]
            same = [other for other in others if alike._form(row.name, own | {option: other}) == form]
            assert same == list(known.get(option, ())[1:]), (row.name, option)


@pytest.fixture
def wrapped(tmp_path):
    """A file of our own of a network of timm's."""
    path = tmp_path / "wrapped.safetensors"
    preprocessing = Preprocessing(size=64, mode="RGB", mean=(0.0,) * 3, std=(1.0,) * 3)
    Classifier(create("timm:resnet10t", classes=2, size=64), ["a", "b"], preprocessing).save(path)
    return path


def test_a_file_that_describes_itself_names_its_network(convarium, wrapped):
    found = examine(wrapped)
    assert found.usable and [fit.name for fit in found.fits] == ["timm:resnet10t"]
    assert found.classes == 2 and found.fits[0].arguments["size"] == 64
    status, said, _ = convarium("doctor", wrapped)
    assert status == 0 and "fits timm:resnet10t" in said


def test_another_librarys_network_can_be_compared_with(tmp_path):
    save_file(
        build("timm:resnet10t", num_classes=3).to_empty(device="cpu").state_dict(), tmp_path / "w.safetensors"
    )
    found = examine(tmp_path / "w.safetensors", model="timm:resnet10t")
    assert found.usable and found.classes == 3
    with pytest.raises(UnknownName, match="did you mean timm:resnet10t"):
        examine(tmp_path / "w.safetensors", model="timm:resnet10tt")


def test_a_description_that_is_not_true_is_not_believed(tmp_path, state):
    told = {"architecture": {"name": "resnet32", "arguments": {"classes": 7, "in_channels": 1, "size": 32}}}
    save_file(state, tmp_path / "net.safetensors", {"convarium": json.dumps(told)})
    assert examine(tmp_path / "net.safetensors").fits[0].name == "resnet20"
    for wrong in (
        {"architecture": 3},
        {"architecture": {"name": None, "arguments": {}}},
        {"architecture": None},
    ):
        save_file(state, tmp_path / "net.safetensors", {"convarium": json.dumps(wrong)})
        assert examine(tmp_path / "net.safetensors").usable


def test_a_packed_file_is_said_to_be_of_its_origin_and_the_advice_can_be_typed(convarium, shared, tmp_path):
    file, out = shared / "weights" / "mobilenetv1_025_imagenet.safetensors", tmp_path / "packed.safetensors"
    pack(file, "mobilenet_v1_025", arguments={"padding": "same"}).save(out)
    status, said, _ = convarium("doctor", out)
    assert status == 0 and f"packed by Convarium from {file.name}" in said and "trained by" not in said
    assert "padding='same'" in said and "cannot tell" not in said
    advice = re.search(r"create\(.*\)", said)[0]
    assert eval(advice, {"create": create, "FILE": out}).architecture["arguments"]["padding"] == "same"
