"""Weights under a publisher's names: the publisher's own strict loader takes them, bit for bit."""

from __future__ import annotations

import json
import os

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from convarium.classifier import Classifier, load
from convarium.cli.weights import run as weights_verb
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, CheckpointError, UnknownName, WeightsMismatch
from convarium.models import create, inverse, names, registry, variant, weights
from convarium.models.alike import counterpart
from convarium.models.doctor import _undecided, examine
from convarium.models.inverse import save_as, translated
from convarium.net import Net
from tests.reference import build, randomise
from tests.tiny import tiny

LIBRARIES = ("torchvision", "timm")
CASES = [(name, library) for name in names() for library in LIBRARIES if counterpart(name, library)]
# Ours, and open_clip's names.
CLIPS = {"clip_rn50": "RN50", "clip_rn101": "RN101", "clip_vit_b_32": "ViT-B-32", "clip_vit_l_14": "ViT-L-14"}

# The smallest network of each family and library, which goes through a real file.
SMALLEST = {
    (row.family, library): (name, library)
    for name, library in sorted(CASES, key=lambda case: -variant(case[0]).parameters)
    if (row := variant(name)).parameters < 15e6
}.values()


@pytest.fixture
def undrawn(monkeypatch):
    """Nothing is drawn when a network is built, which without memory takes longer than all else here."""
    for name in ("normal_", "uniform_", "erfinv_", "clamp_"):
        monkeypatch.setattr(torch.Tensor, name, lambda self, *a, **k: self)


def fitted(theirs: nn.Module, name: str, publisher: str, **arguments) -> Net:
    """Our network with the tensors of theirs: shared, not copied."""
    row = variant(name)
    given = {"classes": row.classes, "in_channels": row.in_channels, "size": row.size, **arguments}
    if "aux" in registry.options(name):
        given["aux"] = any(n.lower().startswith("aux") for n in theirs.state_dict())
    ours = registry.build_empty({"name": name, "arguments": given})
    weights.fit(ours, weights.rename(theirs.state_dict(), weights.made(row.rules[publisher], ours)))
    return ours


@pytest.mark.parametrize(("name", "library"), CASES)
def test_there_and_back(name, library, undrawn):
    if variant(name).parameters > 30e6 and not os.environ.get("CONVARIUM_ALL"):
        pytest.skip(f"{variant(name).parameters:,} parameters: translated where CONVARIUM_ALL=1 is set")
    # Memory that is never written: each tensor is told by where it lies, so nothing needs a value.
    reference = f"{library}:{counterpart(name, library)}"
    theirs = build(reference, num_classes=variant(name).classes).to_empty(device="cpu")
    before = places(theirs)
    found = translated(fitted(theirs, name, library), library)
    assert found.model == counterpart(name, library)
    theirs.load_state_dict(found.state, strict=True, assign=True)
    assert places(theirs) == before


def places(net: nn.Module) -> dict[str, tuple]:
    """Where each tensor lies and how; counters of batch norm have a memory of their own in every network."""
    state = {n: t for n, t in net.state_dict().items() if not n.endswith("num_batches_tracked")}
    return {n: (t.data_ptr(), t.shape, t.stride()) for n, t in state.items()}


@pytest.mark.parametrize(("name", "library"), SMALLEST)
def test_a_file_is_loaded_by_the_library_itself(tmp_path, name, library):
    reference = f"{library}:{counterpart(name, library)}"
    theirs = randomise(build(reference, num_classes=5))
    path = tmp_path / "theirs.safetensors"
    save_as(fitted(theirs, name, library, classes=5), path, library)
    other = build(reference, num_classes=5).to_empty(device="cpu")
    other.load_state_dict(load_file(path), strict=True)
    path.unlink()
    expected = theirs.state_dict()
    assert all(torch.equal(expected[n], t) for n, t in other.state_dict().items())


@pytest.mark.parametrize("name", CLIPS)
def test_clip_has_the_names_of_open_clip(name, undrawn):
    open_clip = pytest.importorskip("open_clip")
    with torch.device("meta"):
        ours = create(name)
        theirs = open_clip.CLIP(**open_clip.get_model_config(CLIPS[name]))
    for publisher in ("openai", "open_clip"):
        state = translated(ours, publisher).state
        assert {n: t.shape for n, t in state.items()} == {n: t.shape for n, t in theirs.state_dict().items()}


def test_clip_comes_back_from_a_file(tmp_path):
    net = tiny("clip")
    save_as(net, tmp_path / "clip.safetensors", "openai")
    other = create("clip_rn50", weights=tmp_path / "clip.safetensors", **net.architecture["arguments"])
    state = net.state_dict()
    assert all(torch.equal(state[n], t) for n, t in other.state_dict().items())


def test_other_classes_channels_and_sizes():
    net = randomise(create("vit_tiny_16", classes=7, in_channels=1, size=64, depth=12))
    found = translated(net, "timm")
    assert found.arguments == {"num_classes": 7, "in_chans": 1, "img_size": 64}
    theirs = timm.create_model(found.model, **found.arguments)
    theirs.load_state_dict(found.state)
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(x), net.eval()(x), rtol=1e-5, atol=1e-4)
    grey = translated(create("resnet18", classes=7, in_channels=1), "torchvision")
    assert "# make it one of 1 channels in its first convolution" in grey.loading("x")


def test_auxiliary_classifiers_are_there_where_ours_are():
    for aux in (True, False):
        with torch.device("meta"):
            found = translated(create("googlenet", aux=aux, transform_input=True), "torchvision")
        assert found.arguments["aux_logits"] is aux
        assert found.arguments["transform_input"] is True
        assert any(n.startswith("aux1.") for n in found.state) is aux


def test_a_wrapped_network_keeps_its_names(tmp_path):
    net = create("timm:resnet10t", classes=3)
    found = save_as(net, tmp_path / "w.safetensors", "timm")
    timm.create_model(found.model, num_classes=3).load_state_dict(load_file(tmp_path / "w.safetensors"))


def test_a_network_of_another_function_is_refused():
    with pytest.raises(WeightsMismatch, match="resnet50 with v1=True computes something else"):
        translated(empty("resnet50", v1=True), "torchvision")
    with pytest.raises(WeightsMismatch, match="act='gelu' computes something else"):
        translated(empty("clip_vit_b_32", act="gelu"), "openai")
    assert translated(empty("clip_vit_b_32", act="gelu"), "open_clip").state
    with pytest.raises(
        UnknownName, match="resnet50_v1 cannot be saved in the names of torchvision: .* computes the same"
    ):
        translated(empty("resnet50_v1"), "torchvision")
    with pytest.raises(
        UnknownName, match="can be saved in the names of timm, torchvision, not of tensorflow"
    ):
        translated(empty("resnet18"), "tensorflow")


def test_a_network_whose_tensors_are_not_theirs_is_refused_and_both_sides_are_listed(tmp_path):
    net = empty("resnet18")
    net.head.fc = nn.Linear(512, 1000, bias=False, device="meta")
    net.head.extra = nn.Linear(1000, 1000, bias=False, device="meta")
    with pytest.raises(WeightsMismatch) as raised:
        save_as(net, tmp_path / "no.safetensors", "torchvision")
    assert "- not filled fc.bias (1000,)" in str(raised.value)
    assert "+ not used   head.extra.weight (1000, 1000)" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_value_rule_without_its_inverse_writes_nothing():
    net = create("lenet5")
    rules = [(r"(.*)weight", r"\1weight", lambda t: t.flip(0)), (r"(.*)bias", r"\1bias")]
    ours = net.state_dict()
    shapes = {n: t.shape for n, t in ours.items()}
    with pytest.raises(WeightsMismatch, match="would not come back"):
        inverse._filled(net, ours, shapes, rules)


def test_what_the_file_tells_and_who_is_refused(tmp_path):
    path = tmp_path / "theirs.safetensors"
    save_as(create("resnet18", classes=3), path, "torchvision", {"classes": ["a", "b", "c"]})
    with safe_open(path, "pt") as file:
        assert list(file.metadata()) == ["convarium"]
    told = weights.description(path)
    assert (told["model"], told["classes"]) == ("resnet18", ["a", "b", "c"])
    assert told["architecture"]["name"] == "resnet18"
    assert create("resnet18", classes=3, weights=path).classes == 3
    assert [fit.publisher for fit in examine(path).fits] == ["torchvision"]
    with pytest.raises(CheckpointError, match="has format the names of torchvision"):
        load(path)
    with pytest.raises(ArgumentError, match="must end in .safetensors"):
        save_as(create("lenet5"), tmp_path / "x.pth", "timm")


def test_published_weights_of_another_function_are_refused():
    for reference in ("torchvision:IMAGENET1K_V1", "timm:resnet50.a1_in1k", "timm:a1_in1k"):
        with pytest.raises(
            WeightsMismatch, match="are weights of resnet50 .*in its v1.5 form.*resnet50_v1 has"
        ):
            create("resnet50_v1", weights=reference)
    with pytest.raises(WeightsMismatch, match="are weights of tf_efficientnet_b0"):
        create("efficientnet_b0", weights="timm:tf_efficientnet_b0.in1k")
    with pytest.raises(WeightsMismatch, match="resnet50, v1=True computes something else than the network"):
        create("resnet50", weights="torchvision:IMAGENET1K_V1", v1=True)


def test_a_file_that_names_its_network_goes_into_no_other(tmp_path):
    path, bare = tmp_path / "model.safetensors", tmp_path / "bare.safetensors"
    net = create("tf_efficientnet_b0", classes=2)
    Classifier(net, ["a", "b"], Preprocessing(size=net.size)).save(path)
    assert create("tf_efficientnet_b0", classes=2, weights=path, drop_path=0.1)
    with pytest.raises(
        WeightsMismatch, match="weights of tf_efficientnet_b0; efficientnet_b0 computes something"
    ):
        create("efficientnet_b0", classes=2, weights=path)
    with pytest.raises(
        WeightsMismatch, match="weights of tf_efficientnet_b0; tf_efficientnet_b0, eps=0.1 computes"
    ):
        create("tf_efficientnet_b0", classes=2, weights=path, eps=0.1)
    found = examine(path)
    assert ([fit.name for fit in found.fits], found.description["classes"]) == (
        ["tf_efficientnet_b0"],
        ["a", "b"],
    )
    save_file(load_file(path), bare)
    assert create("efficientnet_b0", classes=2, weights=bare)


def test_of_a_bare_file_the_doctor_names_all_and_whose_are_published():
    said = _undecided(["resnet50", "resnet50_v1"])
    assert said.startswith("it fits resnet50 and resnet50_v1 equally")
    assert said.endswith("the publishers' weights are of resnet50 " + f"({variant('resnet50').paper})")
    assert _undecided(["mobilenet_v2", "mobilenetv2_100"]).endswith("are one network under several names")


def test_the_command_line(tmp_path, capsys, monkeypatch):
    model, out = tmp_path / "model.safetensors", tmp_path / "theirs.safetensors"
    Classifier(create("mobilenetv2_035", classes=2, size=64), ["a", "b"], Preprocessing(size=64)).save(model)
    weights_verb(str(model), "timm", out, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["classes"]) == ("mobilenetv2_035", ["a", "b"])
    timm.create_model(told["model"], **told["arguments"]).load_state_dict(load_file(out))
    weights_verb(str(model), "timm", out, as_json=False)
    said = capsys.readouterr().out
    assert "net = timm.create_model('mobilenetv2_035', num_classes=2)" in said
    for arguments, problem in [
        ((str(model), None, None), "is a trained model"),
        ((str(model), "timm", None), "belong together"),
        ((str(model), "timm", model), "is the model itself"),
        ((str(model), "timm", tmp_path / "none" / "x.safetensors"), "there is no folder"),
    ]:
        with pytest.raises(ArgumentError, match=problem):
            weights_verb(*arguments, as_json=False)


def empty(name: str, **arguments) -> Net:
    with torch.device("meta"):
        return create(name, **arguments)
