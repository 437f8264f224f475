"""Foreign weights become classifiers: class names, preprocessing, and the stated accuracy on real pictures."""

from __future__ import annotations

import csv
import json
import tarfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from convarium import packing
from convarium.classifier import Classifier, load
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, CheckpointError, DataError, UnknownName, WeightsMismatch
from convarium.models import create, download
from convarium.packing import pack, read_classes, unique


@pytest.fixture
def lenet(tmp_path):
    """A file of weights that says nothing of itself."""
    path = tmp_path / "weights.safetensors"
    save_file(create("lenet5").state_dict(), path)
    return path


@pytest.fixture
def resnet(tmp_path, monkeypatch):
    """What torchvision would send for resnet18, and the list of what was asked for."""
    path = tmp_path / "resnet18-f37072fd.safetensors"
    save_file(create("resnet18").state_dict(), path)
    asked = []
    monkeypatch.setattr(download, "fetch", lambda known: asked.append(known.reference) or path)
    return asked


def test_published_weights_give_the_stated_accuracy_through_the_command_line(convarium, shared, tmp_path):
    folder = shared / "imagenet300"
    with tarfile.open(folder / "imagenet300.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = [(f"imagenet300/{row['filename']}", row["wnid"]) for row in csv.DictReader(file)]
    with (tmp_path / "set.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    out = tmp_path / "model.safetensors"
    status, _, said = convarium(
        *("pack", shared / "weights" / "mobilenetv1_025_imagenet.safetensors", "--out", out),
        *("--model", "mobilenet_v1_025", "--set", "padding=same", "--mean", "0.5", "--std", "0.5,0.5,0.5"),
        *("--classes", folder / "imagenet_classes.csv", "--column", "wnid", "--resize", 256, "--size", 224),
    )
    assert (status, said) == (0, "")
    status, answer, _ = convarium("evaluate", out, tmp_path / "set.csv", "--json")
    judged = json.loads(answer)
    assert status == 0 and judged["top1"]["count"] == 300
    assert round(judged["top1"]["value"] * 300, 6) == 144  # 48.00 %
    assert round(judged["top5"]["value"] * 300, 6) == 213  # 71.00 %


def test_classes_of_the_real_table_come_by_any_of_its_columns(shared):
    table = shared / "imagenet300" / "imagenet_classes.csv"
    assert read_classes(table)[:2] == ["tench", "goldfish"]
    wnids = read_classes(table, "wnid")
    assert len(set(wnids)) == 1000 and wnids[1] == "n01443537"


def test_without_names_and_mean_it_says_what_it_assumed(convarium, lenet, tmp_path):
    out = tmp_path / "packed.safetensors"
    status, answer, said = convarium("pack", lenet, "--model", "lenet5", "--out", out, "--json")
    assert status == 0 and '"0" to "9"' in said and "mean" in said
    told = json.loads(answer)
    assert told["classes"] == [str(digit) for digit in range(10)]
    assert told["preprocessing"]["mode"] == "L" and told["preprocessing"]["size"] == 28
    assert load(out).classes == tuple(told["classes"])


def test_the_packed_network_is_the_files(lenet, tmp_path):
    path = pack(lenet, "lenet5").save(tmp_path / "packed.safetensors")
    before, after = load_file(lenet), load_file(path)
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


def test_equal_packs_are_equal_files(lenet, tmp_path):
    files = [pack(lenet, "lenet5").save(tmp_path / f"{i}.safetensors").read_bytes() for i in range(2)]
    assert files[0] == files[1]


def test_the_number_of_classes_and_of_channels_is_the_files(tmp_path):
    path = tmp_path / "seven.safetensors"
    save_file(create("resnet20", classes=7, in_channels=1).state_dict(), path)
    clf = pack(path, "resnet20", preprocessing={"mean": [0.5], "std": [0.25]})
    assert (len(clf.classes), clf.net.in_channels, clf.preprocessing.mode) == (7, 1, "L")
    assert clf.preprocessing.mean == (0.5,)


def test_foreign_names_and_networks_are_packed(tmp_path):
    from torchvision.models import squeezenet1_1

    torch.save({"state_dict": squeezenet1_1(num_classes=4).state_dict()}, tmp_path / "sq.pth")
    for model in ("squeezenet1_1", "torchvision:squeezenet1_1"):
        clf = pack(tmp_path / "sq.pth", model, classes="a,b,c,d")
        assert clf.classes == ("a", "b", "c", "d") and clf.preprocessing.size == 224


def test_one_number_of_mean_stands_for_every_channel(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(create("resnet20").state_dict(), path)
    assert pack(path, "resnet20", preprocessing={"mean": [0.4]}).preprocessing.mean == (0.4, 0.4, 0.4)


def test_colour_weights_are_dealt_out_to_grey_pictures(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(create("resnet20").state_dict(), path)
    clf = pack(path, "resnet20", preprocessing={"mode": "L"})
    assert clf.net.in_channels == clf.preprocessing.channels == 1


def test_a_published_reference_brings_its_names_and_its_preprocessing(resnet):
    clf = pack("torchvision:IMAGENET1K_V1", "resnet18")
    assert resnet == ["torchvision:IMAGENET1K_V1"]
    assert clf.classes[0] == "tench" and clf.about["origin"]["top1"] == 69.758
    assert clf.preprocessing == Preprocessing(
        224, resize=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    assert clf.about["notes"] == []


def test_what_is_told_goes_before_what_is_published(resnet):
    told = {"size": 112, "fit": "squash", "filter": "bicubic"}
    prepared = pack("torchvision:IMAGENET1K_V1", "resnet18", preprocessing=told).preprocessing
    assert (prepared.size, prepared.fit, prepared.resize, prepared.filter) == (112, "squash", None, "bicubic")
    assert prepared.mean == (0.485, 0.456, 0.406)


def test_names_that_come_twice_get_their_numbers():
    names = ["crane", "tench", "crane"]
    assert unique(names) == ["crane (0)", "tench", "crane (2)"]


def test_the_packed_file_has_unique_names_and_says_so(lenet):
    clf = pack(lenet, "lenet5", classes="a,b,c,d,e,f,g,h,i,a")
    assert clf.classes[0] == "a (0)" and clf.classes[9] == "a (9)" and clf.classes[1] == "b"
    assert any("a (0), a (9)" in note for note in clf.about["notes"])


@pytest.mark.parametrize("second", ["crane", "cafe\u0301"])
def test_a_classifier_refuses_names_that_come_twice(second):
    names = [*"01234567", "crane" if second == "crane" else "caf\u00e9", second]
    with pytest.raises(ArgumentError, match="come twice.*wnids"):
        Classifier(create("lenet5"), names, Preprocessing(32, "L"))


def test_text_and_tables_of_names_are_read(tmp_path):
    (tmp_path / "имена.txt").write_bytes("\ufeffроза\r\nтюльпан\r\n\r\n".encode())
    assert read_classes(tmp_path / "имена.txt") == ["роза", "тюльпан"]
    (tmp_path / "t.csv").write_text("name;class_index\nb;1\na;0\n", "utf-8")
    assert read_classes(tmp_path / "t.csv") == ["a", "b"]
    assert read_classes("daisy, rose") == ["daisy", "rose"]


def test_names_that_cannot_be_read_are_refused(tmp_path):
    table, text = tmp_path / "t.csv", tmp_path / "t.txt"
    table.write_text("class_index,name\n0,a\n2,b\n", "utf-8")
    with pytest.raises(DataError, match="each of 0 to 1 once"):
        read_classes(table)
    with pytest.raises(DataError, match="no column wnid; its first line has: class_index, name"):
        read_classes(table, "wnid")
    text.write_bytes(b"\xff\xfea\0")
    with pytest.raises(DataError, match="not UTF-8"):
        read_classes(text)
    for missing in ("none.txt", "daisy"):
        with pytest.raises(ArgumentError, match="no file of class names"):
            read_classes(missing)


def test_what_does_not_fit_is_refused(lenet, tmp_path):
    with pytest.raises(ArgumentError, match="scores 10 classes, but 3 names"):
        pack(lenet, "lenet5", classes=["a", "b", "c"])
    with pytest.raises(ArgumentError, match="name of class 1 is empty"):
        pack(lenet, "lenet5", classes="0,,2,3,4,5,6,7,8,9")
    with pytest.raises(ArgumentError, match="takes no argument 'padding'"):
        pack(lenet, "lenet5", arguments={"padding": "same"})
    with pytest.raises(ArgumentError, match="classes is no argument to set"):
        pack(lenet, "lenet5", arguments={"classes": 10})
    with pytest.raises(ArgumentError, match="no field sise"):
        pack(lenet, "lenet5", preprocessing={"sise": 32})
    with pytest.raises(WeightsMismatch, match="do not fit"):
        pack(lenet, "resnet20")
    with pytest.raises(UnknownName, match="no published weights"):
        pack("torchvision:IMAGENET1K_V1", "lenet5")
    features = tmp_path / "features.safetensors"
    save_file(create("lenet5", classes=0).state_dict(), features)
    with pytest.raises(CheckpointError, match="ends before the classifier"):
        pack(features, "lenet5")


def test_networks_without_class_scores_are_refused(lenet):
    with pytest.raises(ArgumentError, match="gives no class scores"):
        pack(lenet, "clip_vit_b_32")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "model.pth"), "must end in .safetensors"),
        (("--out", "weights.safetensors"), "is the file of weights itself"),
        (("--out", "none/model.safetensors"), "there is no folder"),
        (("--out", "m.safetensors", "--channels", "4"), "1 (grey) or 3 (colour)"),
        (("--out", "m.safetensors", "--mean", "half"), "want numbers"),
        (("--out", "m.safetensors", "--column", "wnid"), "give it with --classes"),
        (("--out", "m.safetensors", "--fit", "crop", "--resize", "8"), "smaller than the crop"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_and_writes_nothing(
    convarium, lenet, monkeypatch, arguments, said
):
    monkeypatch.chdir(lenet.parent)
    before = lenet.read_bytes()
    status, _, error = convarium("pack", lenet.name, "--model", "lenet5", *arguments)
    assert status == 2 and said in error
    assert [p.name for p in lenet.parent.iterdir()] == [lenet.name] and lenet.read_bytes() == before


def test_it_says_where_it_wrote_and_what_the_pictures_become(convarium, lenet, tmp_path):
    out = tmp_path / "модель.safetensors"
    status, answer, _ = convarium("pack", lenet, "--model", "lenet5", "--out", out, "--fit", "pad")
    assert status == 0 and str(out) in answer and "pad to 28" in answer
    assert load(out).preprocessing.fit == "pad"
    assert set(packing.COLUMNS) == {"class_name", "name", "wnid"}
