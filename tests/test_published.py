"""What publishers' own metadata say of their weights."""

from __future__ import annotations

import sys

import pytest
import timm
import torchvision
from timm.data import create_transform, resolve_data_config

from benchmarks import proof
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, MissingExtra, UnknownName
from convarium.models import create, names, timm_results, variant
from convarium.models.published import (
    Published,
    available,
    class_names,
    find,
    is_reference,
    preprocessing,
)

ALL = {name: available(name) for name in names()}


def test_torchvisions_record_is_its_enums():
    weights = find("resnet50", "torchvision:IMAGENET1K_V2")
    theirs = torchvision.models.ResNet50_Weights.IMAGENET1K_V2
    assert weights.url == theirs.url
    assert weights.sha256 == "11ad3fa6" and weights.files == ("resnet50-11ad3fa6.pth",)
    assert (weights.top1, weights.top5) == (80.858, 95.434)
    assert weights.parameters == 25_557_032
    assert abs(weights.bytes - 102_540_417) < 2**20 / 1000  # the file's size; told to a thousandth of a MiB
    assert (weights.size, weights.resize, weights.interpolation) == (224, 232, "bilinear")


def test_timms_record_is_its_configuration():
    weights = find("resnet50", "timm:resnet50.a1_in1k")
    assert weights.hub == "timm/resnet50.a1_in1k" and weights.url == ""
    assert weights.licence == "apache-2.0"
    assert (weights.size, weights.interpolation, weights.classes) == (224, "bicubic", 1000)
    assert find("resnet50", "timm:a1_in1k") == weights


def test_figures_of_rows_are_those_that_the_libraries_publish():
    seen = 0
    for row in map(variant, names()):
        library, _, theirs = (row.reference or "").partition(":")
        if row.source.startswith(timm_results.SOURCE):
            tag = row.source.removeprefix(f"{timm_results.SOURCE}: ").partition(";")[0]
            measured = timm_results.results()[f"{theirs}.{tag}", row.size]
            assert row.top1 == measured.top1
            assert row.macs is None or row.macs == pytest.approx(measured.macs, rel=0.05)
        elif row.source.startswith("torchvision's"):
            tag = row.source.removesuffix(", metadata").split()[-1].rpartition(".")[2]
            known = find(row.name, f"torchvision:{tag}")
            assert (row.top1, row.size) == (known.top1, known.size)
            weights = torchvision.models.get_model_weights(theirs)[known.tag]
            assert row.macs == pytest.approx(weights.meta["_ops"] * 1e9)
        else:
            continue
        seen += 1
    assert seen > 70


def test_a_figure_has_a_source_and_a_source_a_figure():
    for row in map(variant, names()):
        assert bool(row.source) == (row.top1 is not None or row.macs is not None), row.name


def test_default_is_what_torchvision_holds_for_the_best():
    assert find("resnet50", "torchvision:DEFAULT").tag == "IMAGENET1K_V2"


def test_names_of_one_network_differ_by_publisher():
    publishers = [w.model for w in available("vit_b_16")]
    assert "vit_b_16" in publishers and "vit_base_patch16_224" in publishers
    assert {w.model for w in available("senet154")} == {"legacy_senet154"}


def test_weights_of_another_function_are_not_offered():
    # resnet50_v1 has the names and shapes of torchvision's resnet50, but strides elsewhere.
    assert "torchvision" in variant("resnet50_v1").rules
    assert available("resnet50_v1") == []


def test_weights_that_cannot_classify_are_left_out():
    assert [w.tag for w in available("vgg16") if w.publisher == "torchvision"] == ["IMAGENET1K_V1"]


def test_every_reference_finds_its_record_again():
    for name, found in ALL.items():
        assert len({weights.reference for weights in found}) == len(found)
        for weights in found:
            assert weights.classes >= 0 and weights.files and bool(weights.url) != bool(weights.hub)
            assert is_reference(weights.reference)
        if found:
            assert find(name, found[-1].reference) == found[-1]


def test_what_the_network_must_be_built_with_is_an_option_of_it():
    from convarium.models.registry import options

    for name, found in ALL.items():
        for weights in found:
            assert set(weights.arguments) <= set(options(name))


def test_every_preprocessing_is_one_of_ours():
    for found in ALL.values():
        for weights in found:
            assert Preprocessing.from_dict(preprocessing(weights)).size == weights.size


@pytest.mark.parametrize("tag", ["a1_in1k", "tv_in1k", "tv2_in1k", "a1h_in1k"])
def test_sizes_are_those_of_timms_own_evaluation(tag):
    ours = preprocessing(find("resnet50", f"timm:{tag}"))
    theirs = create_transform(**resolve_data_config(timm.get_pretrained_cfg(f"resnet50.{tag}").to_dict()))
    assert theirs.transforms[0].size == ours["resize"]
    assert theirs.transforms[0].interpolation.value == ours["filter"]
    assert theirs.transforms[1].size == (ours["size"], ours["size"])
    assert theirs.transforms[-1].mean.tolist() == pytest.approx(ours["mean"])


def test_another_size_keeps_the_same_share_of_the_picture():
    fields = preprocessing(find("resnet50", "torchvision:IMAGENET1K_V1"), size=112)
    assert (fields["size"], fields["resize"]) == (112, 128)


def test_pictures_in_a_frame_are_refused():
    framed = Published("timm", "net", "a", "timm:net.a", ("f",), fit="border")
    with pytest.raises(ArgumentError, match="timm:net.a frames its pictures"):
        preprocessing(framed)


def test_class_names_are_imagenets_and_distinct():
    weights = find("resnet18", "timm:a1_in1k")
    named = class_names(weights)
    assert len(named) == len(set(named)) == 1000
    assert (named[0], named[134], named[517], named[999]) == ("tench", "crane bird", "crane", "toilet tissue")
    assert named == class_names(find("resnet18", "torchvision:IMAGENET1K_V1"))


def test_larger_sets_have_distinct_names_too():
    weights = find("convnext_tiny", "timm:in12k")
    named = class_names(weights)
    assert len(named) == weights.classes == 11_821
    assert len(set(named)) == len(named)


def test_clip_is_offered_with_both_towers():
    weights = find("clip_vit_b_32", "openai:ViT-B-32")
    assert weights.hub == "timm/vit_base_patch32_clip_224.openai"
    assert weights.files[0] == "open_clip_model.safetensors"
    assert (weights.interpolation, weights.resize, weights.mean[0]) == ("bicubic", 224, 0.48145466)
    assert class_names(weights) == ()


def test_open_clips_weights_say_which_activation_they_need():
    pytest.importorskip("open_clip")
    assert find("clip_vit_b_16", "open_clip:ViT-B-16:laion2b_s34b_b88k").arguments == {"act": "gelu"}
    assert find("clip_vit_b_32", "open_clip:ViT-B-32:laion400m_e32").arguments == {}


def test_networks_of_other_libraries_have_their_own():
    assert [w.reference for w in available("timm:resnet10t")] == ["timm:resnet10t.c3_in1k"]
    assert find("torchvision:swin_t", "torchvision:IMAGENET1K_V1").top1 == 81.474
    with pytest.raises(UnknownName, match="did you mean timm:resnet10t"):
        available("timm:resnet10")


def test_a_wrong_reference_suggests_near_ones():
    with pytest.raises(UnknownName, match="did you mean torchvision:IMAGENET1K_V2"):
        find("resnet50", "torchvision:IMAGENET1K_V3")
    with pytest.raises(UnknownName, match="no published weights are known for lenet5"):
        find("lenet5", "torchvision:IMAGENET1K_V1")


def test_a_path_is_no_reference():
    assert not is_reference("weights.pth") and not is_reference("C:\\weights.pth")
    assert is_reference("timm:resnet50.a1_in1k")


def test_open_clips_weights_without_open_clip_say_what_to_install(monkeypatch):
    for module in ("open_clip", "open_clip.pretrained"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("convarium.models.published.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install open_clip_torch"):
        create("clip_vit_b_32", weights="open_clip:ViT-B-32:laion400m_e32")


def test_the_table_of_proof_has_ours_and_what_is_published(monkeypatch):
    cells = [cell.strip() for cell in proof.line("resnet18").strip("|").split("|")]
    assert cells == [
        "`resnet18`",
        "2015",
        "torchvision:resnet18",
        "0",
        "11,689,512",
        "11,689,512",
        "1.814",
        "1.814",
    ]
    assert proof.published(variant("vit_b_16")) == "86,567,656"  # of the 224 pixels that are compared
    assert proof.published(variant("resnet18d")) == "11.71 M"
    assert [proof.published(variant(name)) for name in ("resnet20", "clip_rn50")] == ["", ""]
    monkeypatch.setattr(proof, "find_spec", lambda name: None)
    assert proof.compared(variant("clip_rn50")) == ("open_clip:RN50", "open_clip is not installed here")
