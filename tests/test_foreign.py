"""Networks of timm and torchvision in the dress of ours."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn

from convarium.errors import ArgumentError, UnknownName, WeightsMismatch
from convarium.models import foreign, timm_results, weights
from convarium.models.adapt import dealt_out
from convarium.models.foreign import build_empty, create
from tests.reference import build, randomise

# name, and a size at which it runs in a moment
SOME = [
    ("timm:resnet10t", 64),
    ("timm:vit_tiny_patch16_224", 32),
    ("timm:convnext_atto", 64),
    ("timm:levit_128s", 224),
    ("torchvision:resnet18", 64),
    ("torchvision:squeezenet1_1", 64),
    ("torchvision:mobilenet_v3_small", 64),
    ("torchvision:densenet121", 64),
    ("torchvision:vit_b_32", 32),
    ("torchvision:googlenet", 64),
]


# name, its arguments, channels asked for, tensors of its classifiers, of its first convolution: plain nets, a
# convolution as classifier, tokens, auxiliary classifiers, two classifiers that are averaged
TRAINED = [
    ("torchvision:resnet18", {}, 1, ["fc"], "conv1"),
    ("torchvision:mobilenet_v3_small", {}, 4, ["classifier.3"], "features.0.0"),
    ("torchvision:squeezenet1_1", {}, 8, ["classifier.1"], "features.0"),
    ("torchvision:vit_b_32", {}, 4, ["heads.head"], "conv_proj"),
    ("torchvision:googlenet", {}, 8, ["aux1.fc2", "aux2.fc2", "fc"], "conv1.conv"),
    ("timm:resnet10t", {}, 1, ["fc"], "conv1.0"),
    ("timm:resnet10t", {}, 4, ["fc"], "conv1.0"),
    ("timm:resnet10t", {}, 8, ["fc"], "conv1.0"),
    ("timm:vit_tiny_patch16_224", {"depth": 2}, 1, ["head"], "patch_embed.proj"),
    ("timm:dpn48b", {}, 4, ["classifier"], "features.conv1_1.conv"),
    ("timm:deit_tiny_distilled_patch16_224", {"depth": 2}, 8, ["head", "head_dist"], "patch_embed.proj"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A function that gives a library's random state and its file, made once."""
    folder, made = tmp_path_factory.mktemp("trained"), {}

    def file(name: str, **arguments):
        key = (name, *arguments.items())
        if key not in made:
            path = folder / f"{len(made)}.pth"
            state = randomise(build(name, **arguments)).state_dict()
            torch.save(state, path)
            made[key] = (state, path)
        return made[key]

    return file


@pytest.mark.parametrize(("name", "size"), SOME)
def test_answers_where_a_net_is_asked(name, size):
    net = create(name, classes=7, in_channels=4, size=size).eval()
    assert (net.classes, net.in_channels, net.size) == (7, 4, size)
    with torch.no_grad():
        x = torch.randn(2, 4, size, size)
        scores, points = net(x), net.features(x)
    assert scores.shape == (2, 7)
    assert torch.equal(points["logits"], scores)
    told = net.end_points
    assert list(told) == list(points)
    assert list(points)[0] == "stage0" and list(points)[-2:] == ["pre_logits", "logits"]
    assert told["logits"].channels == 7
    for point, out in points.items():
        assert told[point].channels in out.shape[1:]
        if out.ndim == 4:
            assert told[point].stride in (1, 2, 4, 8, 16, 32, 64)


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:mobilenet_v3_small"])
def test_without_classes_it_gives_features(name):
    net = create(name, classes=0, size=64).eval()
    x = torch.randn(2, 3, 64, 64)
    assert net(x).shape == (2, net.end_points["pre_logits"].channels)
    assert torch.equal(net.features(x)["pre_logits"], net(x))


def test_pre_logits_are_what_the_classifier_is_given():
    net = create("timm:resnet10t", classes=7, size=64).eval()
    points = net.features(torch.randn(2, 3, 64, 64))
    assert torch.equal(net.head(points["pre_logits"]), points["logits"])


def test_computes_what_the_library_does_by_the_librarys_names():
    theirs = randomise(timm.create_model("resnet10t", num_classes=5)).eval()
    ours = build_empty({"name": "timm:resnet10t", "arguments": {"classes": 5, "in_channels": 3, "size": 176}})
    assert all(p.is_meta for p in ours.parameters())
    weights.fit(ours, theirs.state_dict())
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours.eval()(x), theirs(x))


def test_can_be_built_again_from_its_architecture():
    net = create("timm:vit_tiny_patch16_224", classes=3, size=32, drop_path_rate=0.1)
    again = build_empty(net.architecture)
    assert again.architecture == net.architecture
    assert {n: t.shape for n, t in again.state_dict().items()} == {
        n: t.shape for n, t in net.state_dict().items()
    }


def test_tables_that_files_do_not_hold_are_there_after_building_empty():
    state = torch.random.get_rng_state()
    net = build_empty({"name": "timm:levit_128s", "arguments": {"classes": 3, "in_channels": 3, "size": 224}})
    assert not any(b.is_meta for b in net.buffers())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_compute_the_same_and_share_nothing(copied):
    net = create("timm:resnet10t", size=64).eval()
    other = copied(net)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(net(x), other(x))
    nn.init.zeros_(other.head.weight)
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(x), other(x))
    assert other.head is not net.head


def test_states_inside_another_module_keep_the_librarys_names():
    task = nn.ModuleDict({"model": create("timm:resnet10t", size=64)})
    state = task.state_dict()
    assert "model.conv1.0.weight" in state
    task.load_state_dict(state)


def test_the_head_can_be_replaced():
    net = create("torchvision:mobilenet_v3_small", classes=7, size=64).eval()
    net.head = nn.Linear(1024, 2)
    assert net(torch.randn(1, 3, 64, 64)).shape == (1, 2)
    assert net.net.classifier[3] is net.head


def test_parts_have_the_librarys_paths():
    net = create("torchvision:resnet18")
    assert isinstance(net.part("layer1.0"), torchvision.models.resnet.BasicBlock)
    with pytest.raises(UnknownName, match="did you mean layer4.1"):
        net.part("layer4.9")


def test_parts_answer_to_our_spelling_and_to_end_points():
    net = create("timm:resnet10t", size=64)
    assert net.part("net.layer1.0") is net.part("layer1.0") is net.net.layer1[0]
    assert net.part("stage1") is net.net.layer1 and net.part("") is net.net
    net = create("torchvision:resnet18", size=64)
    assert net.part("stage0") is net.net.layer4
    for wrong in ("stage1", "pre_logits", "logits"):
        with pytest.raises(UnknownName, match=wrong):
            net.part(wrong)


def test_frozen_parts_stay_as_they_are_in_training():
    net = create("timm:resnet10t", classes=3, size=64).freeze("conv1", "bn1", "stage1")
    before = {n: t.clone() for n, t in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    optimizer.step()
    same = {n for n, t in net.state_dict().items() if torch.equal(t, before[n])}
    frozen = {n for n in before if n.startswith(("conv1.", "bn1.", "layer1."))}
    assert frozen <= same and not same & {"fc.weight", "layer2.0.bn1.running_mean"}
    assert all(p.requires_grad for p in net.freeze().parameters())


def test_the_last_plane_is_not_overwritten_by_what_runs_after_it():
    net = create("torchvision:densenet121", size=64).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        plane = net.features(x)["stage0"]
        assert torch.equal(plane, net.net.features(x)) and plane.min() < 0


def test_a_plain_dictionary_is_of_the_present_version_inside_another_module():
    task = nn.ModuleDict({"model": create("torchvision:mnasnet0_5", classes=3, size=64)})
    again = copy.deepcopy(task)
    nn.init.zeros_(again["model"].head.weight)
    again.load_state_dict(dict(task.state_dict()))
    assert torch.equal(again["model"].head.weight, task["model"].head.weight)


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:resnet18"])
def test_an_unknown_argument_is_refused_by_name(name):
    with pytest.raises(ArgumentError, match=f"{name} takes no argument 'width'; it takes classes"):
        create(name, width=2)


def test_wrong_names_suggest_near_ones():
    with pytest.raises(UnknownName, match="did you mean timm:resnet10t"):
        create("timm:resnet10")
    with pytest.raises(UnknownName, match="did you mean torchvision:resnet18"):
        create("torchvision:resnet17")


def test_a_size_that_cannot_work_is_refused():
    with pytest.raises(ArgumentError, match="size = 100"):
        create("torchvision:vit_b_32", size=100)
    with pytest.raises(ArgumentError, match="cannot work with pictures of 8 pixels"):
        create("torchvision:squeezenet1_1", size=8)


@pytest.mark.parametrize(("name", "arguments", "channels", "heads", "first"), TRAINED)
def test_a_file_of_other_classes_and_channels_gives_all_but_them(
    name, arguments, channels, heads, first, files, caplog
):
    state, path = files(name, **arguments)
    net = create(name, classes=5, in_channels=channels, weights=path, **arguments)
    got, changed = net.state_dict(), {f"{first}.weight"}
    assert torch.equal(got[f"{first}.weight"], dealt_out(state[f"{first}.weight"], channels))
    for head in heads:
        changed |= {f"{head}.weight", f"{head}.bias"}
        assert got[f"{head}.weight"].shape == (5, *state[f"{head}.weight"].shape[1:])
        assert got[f"{head}.weight"].isfinite().all() and got[f"{head}.bias"].shape == (5,)
    assert all(torch.equal(got[key], value) for key, value in state.items() if key not in changed)
    (said,) = caplog.messages
    assert said == (
        f"{name} from {path.name}: {first} made for {channels} channels of the file's 3; "
        f"{', '.join(heads)} drawn fresh, to be trained (the file scores 1000 classes)"
    )


@pytest.mark.parametrize("name", ["torchvision:googlenet", "timm:resnet10t"])
def test_a_file_that_fits_is_loaded_whole_and_without_a_word(name, files, caplog):
    state, path = files(name)
    got = create(name, weights=path).state_dict()
    assert got.keys() == state.keys() and all(torch.equal(got[key], state[key]) for key in state)
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["torchvision:googlenet", "timm:resnet10t", "timm:dpn48b"])
def test_a_file_loads_into_a_network_without_classes(name, files):
    state, path = files(name)
    net = create(name, classes=0, weights=path)
    assert net.classes == 0 and set(net.state_dict()) < set(state)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_a_network_gets_as_many_classes_as_the_file(files, caplog):
    state, path = files("timm:resnet10t", num_classes=11)
    net = create("timm:resnet10t", weights=path)
    assert net.classes == net.architecture["arguments"]["classes"] == 11
    assert torch.equal(net.head.weight, state["fc.weight"])
    assert f"timm:resnet10t from {path.name}: 11 classes as in the file, not 1000" in caplog.text


def test_a_larger_files_classifier_is_replaced_by_the_published_number(files):
    _, path = files("timm:resnet10t", num_classes=11)
    assert create("timm:resnet10t", classes=1000, weights=path).head.weight.shape == (1000, 512)


def test_nothing_else_is_adapted(files):
    state, path = files("timm:resnet10t")
    torch.save(state | {"layer1.0.conv1.weight": torch.zeros(8, 64, 3, 3)}, path.with_name("other.pth"))
    with pytest.raises(WeightsMismatch, match="1 tensors do not fit:\n! shape +layer1.0.conv1.weight"):
        create("timm:resnet10t", classes=5, weights=path.with_name("other.pth"))
    _, path = files("torchvision:resnet18")
    with pytest.raises(WeightsMismatch, match="does not fit timm:resnet10t: "):
        create("timm:resnet10t", weights=path)


@pytest.mark.parametrize(
    ("name", "size", "key"),
    [("timm:vit_tiny_patch16_224", 64, "pos_embed"), ("torchvision:vit_b_32", 64, "encoder.pos_embedding")],
)
def test_positions_are_resampled_as_the_library_does(name, size, key, files):
    state, path = files(name)
    net = create(name, size=size, weights=path)
    assert net.state_dict()[key].shape[1] == 1 + (size // (16 if "16" in name else 32)) ** 2
    assert torch.equal(net.state_dict()[key][:, 0], state[key][:, 0])  # of the class token
    assert net.eval()(torch.zeros(1, 3, size, size)).shape == (1, 1000)


def test_names_of_the_librarys_older_files_are_read(files, tmp_path):
    state, _ = files("torchvision:densenet121")
    old = {n.replace("norm1.", "norm.1.").replace("conv1.", "conv.1."): t for n, t in state.items()}
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "old.pth")
    net = create("torchvision:densenet121", weights=tmp_path / "old.pth")
    assert torch.equal(net.state_dict()["features.conv0.weight"], state["features.conv0.weight"])


def test_a_plain_dictionary_is_of_the_present_version():
    net = create("torchvision:mnasnet0_5", classes=3, size=64)
    again = build_empty(net.architecture)
    weights.fit(again, dict(net.state_dict()))
    assert torch.equal(again.head.weight, net.head.weight)


def test_a_row_says_what_the_library_tells():
    row = foreign.variant("torchvision:resnet18")
    assert (row.parameters, row.classes, row.size, row.top1) == (11_689_512, 1000, 224, 69.758)
    row = foreign.variant("timm:resnet10t")
    theirs = sum(p.numel() for p in timm.create_model("resnet10t").parameters())
    assert (row.parameters, row.size) == (theirs, 176)
    measured = timm_results.results()["resnet10t.c3_in1k", 176]
    assert (row.top1, row.macs) == (measured.top1, measured.macs)
    assert row.source == f"{timm_results.SOURCE}: c3_in1k"
    assert foreign.variant("timm:convnextv2_atto").paper == "as in timm, arXiv:2301.00808"


def test_only_these_prefixes_are_foreign():
    assert foreign.is_foreign("timm:resnet10t") and not foreign.is_foreign("resnet50")
    assert not foreign.is_foreign("openai:RN50")
    assert len(foreign.names("timm")) > 1000 and "torchvision:raft_large" not in foreign.names("torchvision")
