"""convarium list: filters, order, other libraries' names."""

from __future__ import annotations

import functools
import json

import pytest

from convarium.models import names, variant
from convarium.models.published import available


@pytest.fixture
def listed(convarium):
    """Status, lines of standard output and standard error of `convarium list` in this process."""

    def run(*arguments: str) -> tuple[int, list[str], str]:
        status, said, told = convarium("list", *arguments)
        return status, said.splitlines(), told

    return run


def objects(lines: list[str]) -> list[dict]:
    return [json.loads(line) for line in lines]


def named(lines: list[str]) -> list[str]:
    return [row["name"] for row in objects(lines)]


def test_json_has_every_network_with_all_its_facts(listed):
    status, lines, _ = listed("--json")
    rows = objects(lines)
    assert status == 0 and [row["name"] for row in rows] == names()
    resnet = next(row for row in rows if row["name"] == "resnet50")
    assert resnet["parameters"] == 25_557_032 and resnet["macs"] == variant("resnet50").macs
    assert set(resnet) == {
        *("name", "family", "year", "parameters", "macs", "size", "channels", "classes"),
        *("top1", "source", "reference", "paper"),
    }  # fmt: skip


def test_the_table_shows_macs_and_no_weights_where_not_asked(listed):
    _, lines, _ = listed("resnet50")
    assert "MACs" in lines[0] and "weights" not in lines[0]
    assert lines[1].split()[:4] == ["resnet50", "resnet", "2015", "25,557,032"]


def test_a_family_is_chosen(listed):
    _, lines, _ = listed("--family", "VGG", "--json")
    found = named(lines)
    assert "vgg16" in found and {variant(name).family for name in found} == {"vgg"}
    assert len(found) == sum(variant(name).family == "vgg" for name in names())


@pytest.mark.parametrize(("asked", "years"), [("2015", {2015}), ("2014-2016", {2014, 2015, 2016})])
def test_a_year_or_a_span_is_chosen(listed, asked, years):
    _, lines, _ = listed("--year", asked, "--json")
    assert named(lines) == [name for name in names() if variant(name).year in years]


def test_filters_and_pattern_go_together(listed):
    _, lines, _ = listed("*_bn", "--family", "vgg", "--year", "2014-2015", "--json")
    assert named(lines) == [n for n in names("*_bn") if variant(n).family == "vgg"]


@pytest.mark.parametrize("field", ["name", "year", "parameters", "macs"])
def test_rows_are_sorted_and_those_without_a_value_come_last(listed, field):
    _, lines, _ = listed("--sort", field, "--json")
    values = [row[field] for row in objects(lines)]
    known = [value for value in values if value is not None]
    assert len(values) == len(names()) and values[: len(known)] == sorted(known)


def test_top1_is_sorted_the_best_first(listed):
    _, lines, _ = listed("--sort", "top1", "--json")
    known = [row["top1"] for row in objects(lines) if row["top1"] is not None]
    assert known == sorted(known, reverse=True)
    assert objects(lines)[-1]["top1"] is None


def test_only_those_with_published_weights(listed):
    _, lines, _ = listed("*net1*", "--family", "resnet", "--weights", "--json")
    rows = {row["name"]: row["weights"] for row in objects(lines)}
    assert "torchvision:IMAGENET1K_V1" in rows["resnet18"]
    assert "resnet110" not in rows  # of CIFAR-10, which no publisher has
    _, lines, _ = listed("resnet18", "--weights")
    assert lines[0].endswith("weights") and lines[1].split()[-1] == str(len(rows["resnet18"]))


def test_a_pattern_shows_the_names_of_the_weights_too(listed):
    _, lines, _ = listed("resnet18", "--weights")
    assert [line.strip() for line in lines if line.startswith("    ")] == [
        weights.reference for weights in available("resnet18")
    ]
    _, lines, _ = listed("timm:resnet10t", "--weights")
    assert lines == ["timm:resnet10t", "    timm:resnet10t.c3_in1k"]
    _, lines, _ = listed("--family", "vgg", "--weights")
    assert not any(line.startswith(" ") for line in lines)


def test_nothing_left_is_said_and_is_no_mistake(listed):
    status, lines, said = listed("lenet5*", "--year", "2015")
    assert (status, lines) == (0, []) and "no network" in said


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_another_library_is_listed(listed, library):
    status, lines, _ = listed(f"{library}:resnet1*")
    assert status == 0 and f"{library}:resnet18" in lines
    assert all(line.startswith(f"{library}:resnet1") for line in lines)
    _, lines, _ = listed(f"{library}:resnet18", "--weights", "--json")
    (row,) = objects(lines)
    assert row["family"] == library and all(name.startswith(f"{library}:") for name in row["weights"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resnet55",), "did you mean resnet56"),
        (("timm:resnet10tt",), "did you mean timm:resnet10t"),
        (("torchvision:resnet19",), "torchvision:resnet18"),
        (("--family", "resnets"), "did you mean resnet"),
        (("--year", "soon"), "it must be a year"),
        (("--year", "2016-2014"), "it must be a year"),
        (("--sort", "size"), "name, year, parameters, macs, top1"),
        (("timm:resnet*", "--year", "2015"), "Convarium itself"),
    ],
)
def test_a_mistake_is_told_with_what_is_near(listed, arguments, said):
    status, lines, error = listed(*arguments)
    assert (status, lines) == (2, []) and said in error


def test_rows_without_published_macs_are_told_of_when_sorting_by_them(listed):
    _, lines, said = listed("--sort", "macs", "--json")
    unknown = sum(row["macs"] is None for row in objects(lines))
    assert f"the last {unknown} of {len(lines)} have none; `convarium cost NAME` counts them" in said
    assert listed("resnet50", "--sort", "macs")[2] == "" and listed()[2] == ""


@pytest.fixture
def shown(convarium):
    """`convarium show` in this process."""
    return functools.partial(convarium, "show")


def test_the_width_of_clips_common_space_is_no_number_of_classes(shown):
    status, said, _ = shown("clip_vit_b_32", "--depth", "0")
    assert status == 0 and "features of 512" in said and "512 classes" not in said
    assert "10 classes" in shown("lenet5")[1]


@pytest.mark.parametrize("path", ["missing/path", "missing.safetensors", "./resnet50"])
@pytest.mark.parametrize("verb", ["show", "cost", "memory", "fit", "draw", "bench", "compare"])
def test_a_path_that_is_not_there_is_told_as_one(convarium, verb, path):
    status, _, said = convarium(verb, path)
    assert status == 2 and f"there is no file or folder {path}" in said and "called" not in said


def test_a_folder_that_is_no_run_is_told_as_one(shown, tmp_path):
    status, _, said = shown(str(tmp_path))
    assert status == 2 and "holds no trained model" in said.replace("\n", " ")


def test_show_takes_pictures_that_are_no_squares(shown):
    said = shown("resnet18", "--size", "64x96", "--depth", "1")[1]
    assert "input 3 x 64 x 96, 1000 classes" in said and "512 x 2 x 3" in said


def test_operations_are_whole_numbers(shown):
    whole, *parts = map(json.loads, shown("resnet18", "--size", "64x96", "--json")[1].splitlines())
    assert whole["input"] == [3, 64, 96] and isinstance(whole["published"]["macs"], int)
    assert all(isinstance(part["macs"], int) for part in parts)


def test_show_with_costs_has_flops_and_the_rule(shown):
    said = shown("lenet5", "--cost", "--depth", "0")[1]
    assert "833,040" in said and "FLOPs = 2 x MACs" in said
    assert "FLOPs" not in shown("lenet5")[1]
