"""timm's own figures stand beside timm's weights."""

from __future__ import annotations

from convarium.models import published, timm_results


def test_accuracy_is_told_for_the_side_at_which_it_was_measured():
    assert timm_results.accuracy("resnet50.a1_in1k", 224) == (80.382, 94.598)
    assert timm_results.accuracy("resnet50.a1_in1k", 288) == (81.24, 95.112)
    assert timm_results.accuracy("resnet50.a1_in1k", 64) is None


def test_published_weights_carry_it():
    known = {p.tag: p for p in published.available("resnet50") if p.publisher == "timm"}
    assert known["a1_in1k"].top1 == 80.382
    assert known["a1_in1k"].top5 == 94.598
    assert known["bamboo"].top1 is None  # has no classifier of ImageNet's classes


def test_every_figure_is_a_share_and_top5_is_no_less():
    assert all(0 < row.top1 <= row.top5 <= 100 for row in timm_results.results().values())


def test_parameters_and_operations_stand_beside_it():
    row = timm_results.results()["vit_base_patch16_224.augreg_in21k_ft_in1k", 224]
    assert (row.parameters, row.macs) == (86.57e6, 17.58e9)
