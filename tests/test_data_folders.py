"""Finding pictures and labels in folders, CSV files and the MNIST files."""

from __future__ import annotations

import gzip
import os
import struct
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from convarium.data.folders import Picture, PictureSet, fingerprint, list_pictures, read_data
from convarium.errors import DataError


def tree(root: Path, *names: str) -> Path:
    """Files with some content; finding them opens none."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def keys(pictures: PictureSet) -> list[str]:
    return [picture.key for picture in pictures.pictures]


def labelled(pictures: PictureSet) -> dict[str, str]:
    return {picture.key: pictures.classes[picture.label] for picture in pictures.pictures}


def refusal(path: Path | str) -> str:
    with pytest.raises(DataError) as caught:
        read_data(path)
    return str(caught.value)


def test_class_folders_are_read_sorted_as_torchvision_sorts_them(tmp_path: Path) -> None:
    data = read_data(tree(tmp_path, "10/b.png", "10/a.JPG", "2/deep/er/c.Jpeg", "1/x.webp"))
    assert data.classes == ("1", "10", "2")
    assert list(data.parts) == ["all"]
    assert keys(data.parts["all"]) == ["1/x.webp", "10/a.JPG", "10/b.png", "2/deep/er/c.Jpeg"]
    assert [picture.label for picture in data.parts["all"].pictures] == [0, 1, 1, 2]
    assert data.parts["all"].counts == [1, 2, 1]
    assert data.parts["all"].pictures[0].source == tmp_path / "1/x.webp"
    assert data.notes == []


@pytest.mark.parametrize(
    ("folder", "part"), [("val", "val"), ("Valid", "val"), ("validation", "val"), ("test", "test")]
)
def test_parts_are_known_by_their_usual_names(tmp_path: Path, folder: str, part: str) -> None:
    data = read_data(
        tree(tmp_path, "train/a/1.png", "train/b/1.png", f"{folder}/a/2.png", f"{folder}/b/2.png")
    )
    assert list(data.parts) == ["train", part]
    assert keys(data.parts[part]) == [f"{folder}/a/2.png", f"{folder}/b/2.png"]


def test_validation_classes_are_matched_by_name_and_never_shift(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "train/b/1.png",
        "train/c/1.png",
        "train/d/1.png",
        "val/a/1.png",
        "val/a/2.png",
        "val/d/1.png",
    )
    data = read_data(root)
    assert data.classes == ("b", "c", "d") == data.parts["val"].classes
    assert labelled(data.parts["val"]) == {"val/d/1.png": "d"}
    assert (
        "Left out: 2 pictures of the class 'a' in val, which the training part does not have." in data.notes
    )
    assert "No pictures in val of 2 classes (b, c)." in data.notes


def test_names_in_cyrillic_and_with_spaces(tmp_path: Path) -> None:
    data = read_data(tree(tmp_path, "Собаки и щенки/мой пёс 1.jpg", "кошки/кот.jpg"))
    assert data.classes == ("Собаки и щенки", "кошки")
    assert keys(data.parts["all"]) == ["Собаки и щенки/мой пёс 1.jpg", "кошки/кот.jpg"]


def test_decomposed_and_composed_names_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "йод") for form in ("NFC", "NFD"))
    assert composed != decomposed
    data = read_data(tree(tmp_path, f"train/{composed}/1.png", "train/x/1.png", f"val/{decomposed}/2.png"))
    assert labelled(data.parts["val"]) == {f"val/{decomposed}/2.png": composed}
    assert data.parts["val"].pictures[0].source.exists()


def test_hidden_things_are_no_classes_and_no_pictures(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.png", "b/1.png", ".ipynb_checkpoints/1.png", "__MACOSX/a/1.png", "a/._1.png")
    tree(root, "a/.DS_Store", "b/Thumbs.db", "desktop.ini", "a/.ipynb_checkpoints/1-checkpoint.png")
    data = read_data(root)
    assert data.classes == ("a", "b")
    assert keys(data.parts["all"]) == ["a/1.png", "b/1.png"]
    assert "Left out: 3 hidden folders (.ipynb_checkpoints, __MACOSX, a/.ipynb_checkpoints)." in data.notes
    assert "Left out: 1 hidden file (a/._1.png)." in data.notes


def test_empty_classes_stray_files_and_odd_extensions_are_noted(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.png", "a/notes.txt", "b/1.png", "only_text/x.doc", "readme.md", "loose.jpg")
    (root / "empty").mkdir()
    data = read_data(root)
    assert data.classes == ("a", "b")
    assert "Left out: 2 class folders without pictures (empty, only_text)." in data.notes
    assert "Left out: 2 files whose extension is no picture's (a/notes.txt, only_text/x.doc)." in data.notes
    assert "Left out: 2 files beside the folders (loose.jpg, readme.md)." in data.notes


def test_folders_beside_train_and_pictures_without_class_are_noted(tmp_path: Path) -> None:
    root = tree(tmp_path, "train/a/1.png", "train/b/1.png", "models/x/1.png", "test/1.jpg", "test/2.jpg")
    data = read_data(root)
    assert list(data.parts) == ["train"]
    assert "Left out: models beside train/, which is no part." in data.notes
    assert "Left out: 2 pictures directly in test/, which have no class (1.jpg, 2.jpg)." in data.notes


def test_a_class_may_be_called_test_where_there_is_no_train(tmp_path: Path) -> None:
    assert read_data(tree(tmp_path, "test/1.png", "prod/1.png")).classes == ("prod", "test")


def test_test_alone_is_a_part(tmp_path: Path) -> None:
    data = read_data(tree(tmp_path, "test/a/1.png", "test/b/1.png"))
    assert list(data.parts) == ["test"]
    assert data.classes == ("a", "b")


def test_links_are_followed_and_loops_and_broken_ones_are_harmless(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", "a/1.png", "b/1.png")
    elsewhere = tree(tmp_path / "else", "c/2.png")
    (root / "linked").symlink_to(elsewhere / "c")
    (root / "a/again").symlink_to(root / "a")
    (root / "a/up").symlink_to(root)
    (root / "b/file.png").symlink_to(elsewhere / "c/2.png")
    (root / "b/gone.png").symlink_to(tmp_path / "nowhere.png")
    data = read_data(root)
    assert keys(data.parts["all"]) == ["a/1.png", "b/1.png", "b/file.png", "linked/2.png"]
    assert "Left out: 1 broken link (b/gone.png)." in data.notes


def test_a_networks_classes_rule_when_they_are_given(tmp_path: Path) -> None:
    root = tree(tmp_path, "dog/1.png", "eel/1.png")
    data = read_data(root, classes=("cat", "eel", "dog"))
    assert data.classes == ("cat", "eel", "dog")
    assert labelled(data.parts["all"]) == {"dog/1.png": "dog", "eel/1.png": "eel"}
    assert [picture.label for picture in data.parts["all"].pictures] == [2, 1]
    assert read_data(root, classes=("dog", "cow")).parts["all"].counts == [1, 0]
    with pytest.raises(DataError, match="no picture of a class of the network; it has dog, eel, want x, y"):
        read_data(root, classes=("x", "y"))


def test_a_missing_path_suggests_near_names(tmp_path: Path) -> None:
    tree(tmp_path, "flowers/a/1.png")
    assert (
        refusal(tmp_path / "flwers")
        == f"{tmp_path / 'flwers'} does not exist; did you mean {tmp_path / 'flowers'}?"
    )
    assert f"did you mean {tmp_path / 'flowers'}?" in refusal(tmp_path / "flower/train/deep")
    assert refusal(tmp_path / "zzz").endswith("check the spelling")


def test_folders_that_cannot_be_used_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    assert "is empty; make one folder for each class" in refusal(tmp_path / "void")
    assert "has 2 pictures but no class folders" in refusal(tree(tmp_path / "flat", "1.png", "2.png"))
    assert "has only one class, 'a'; training needs" in refusal(tree(tmp_path / "one", "a/1.png", "a/2.png"))
    nested = tree(tmp_path / "outer", "inner/a/1.png", "inner/b/1.png")
    assert f"did you mean {nested / 'inner'}?" in refusal(nested)
    assert "(a, b) have no pictures" in refusal(tree(tmp_path / "texts", "a/1.txt", "b/2.txt"))
    assert "mean the same; keep one" in refusal(
        tree(tmp_path / "two", "train/a/1.png", "val/a/1.png", "valid/a/1.png")
    )
    assert "has 1 picture but no class folders" in refusal(tree(tmp_path / "t", "train/1.png", "val/a/1.png"))
    listed = tree(tmp_path / "listed", "labels.csv")
    assert f"did you mean {listed / 'labels.csv'}?" in refusal(listed)


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="names must be Unicode here")
def test_a_class_name_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.png")
    folder = os.fsencode(tmp_path) + b"/\xff"
    Path(os.fsdecode(folder)).mkdir()
    Path(os.fsdecode(folder + b"/1.png")).touch()
    assert "not valid UTF-8; rename it" in refusal(root)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_in_its_usual_forms(tmp_path: Path, separator: str, mark: str, end: str) -> None:
    tree(tmp_path, "pics/кот 1.jpg", "pics/b.jpg")
    rows = [("Path", " label "), ('"pics/кот 1.jpg"', "кошка"), ("pics/b.jpg", "dog")]
    file = tmp_path / "list.csv"
    file.write_bytes((mark + end.join(separator.join(row) for row in rows) + end).encode())
    data = read_data(file)
    assert labelled(data.parts["all"]) == {"pics/кот 1.jpg": "кошка", "pics/b.jpg": "dog"}
    assert data.notes == []


def test_csv_with_parts(tmp_path: Path) -> None:
    tree(tmp_path, "1.png", "2.png", "3.png")
    file = tmp_path / "list.csv"
    file.write_text("label,path,part\nb,1.png,train\na,2.png,Training\na,3.png,valid\n")
    data = read_data(file)
    assert {part: keys(pictures) for part, pictures in data.parts.items()} == {
        "train": ["1.png", "2.png"],
        "val": ["3.png"],
    }


def test_csv_rows_that_are_missing_repeated_or_shared_are_noted(tmp_path: Path) -> None:
    tree(tmp_path, "1.png", "2.png")
    file = tmp_path / "list.csv"
    file.write_text(
        "path,label,part\n1.png,a,train\n2.png,b,train\n2.png,b,train\n1.png,a,val\nno.png,a,train\n"
    )
    data = read_data(file)
    assert data.notes[:3] == [
        "1 of 3 paths in list.csv do not exist (first: no.png); they count as damaged pictures.",
        "Left out: 1 rows of list.csv that repeat a picture.",
        "1 pictures are in more than one part (first: 1.png).",
    ]
    assert "no.png" in keys(data.parts["train"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\n1.png,a\n", "lacks the column path; its first line has: file, label"),
        ("hello\n", "lacks the column path and label"),
        ("", "lacks the column path and label"),
        ("path,label\n", "has no rows"),
        ("path,label\n1.png,\n", "line 2: label is empty"),
        ("path,label,part\n1.png,a,dev\n", "line 2: part is 'dev'; allowed are train, val and test"),
        ("path,label\n1.png,a\n1.png,b\n", "line 3: 1.png is 'b' here and 'a' above; decide on one"),
        ("path,label\nx.png,a\ny.png,b\n", "none of the 2 paths in"),
        ("path,label\n1.png,a\n", "has only one class, 'a'"),
        ('path,label\n"1.png,a\n', "line 2: unexpected end of data"),
    ],
)
def test_csv_that_cannot_be_used_says_what_to_do(tmp_path: Path, text: str, words: str) -> None:
    tree(tmp_path, "1.png")
    file = tmp_path / "list.csv"
    file.write_text(text)
    assert words in refusal(file)


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n\0\0\0", "path,label\n1,2\n".encode("utf-16"), b"\xff\xd8\xff\xe0"]
)
def test_a_file_that_is_no_csv_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "data.bin"
    file.write_bytes(data)
    assert str(file) in refusal(file)


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_files_are_read_into_memory(tmp_path: Path, packed: bool) -> None:
    pictures = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
    for prefix in ("train", "t10k"):
        for name, values in (("images-idx3", pictures), ("labels-idx1", np.array([10, 2, 10], np.uint8))):
            data = idx(values)
            file = tmp_path / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(data) if packed else data)
    data = read_data(tmp_path)
    assert data.classes == ("2", "10")
    assert keys(data.parts["train"]) == ["train/00000", "train/00001", "train/00002"]
    assert [picture.label for picture in data.parts["test"].pictures] == [1, 0, 1]
    assert np.array_equal(data.parts["train"].pictures[1].source, pictures[1])


def test_mnist_files_that_are_cut_or_alone_are_refused(tmp_path: Path) -> None:
    whole = idx(np.zeros((3, 4, 4), np.uint8))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(whole[:-1])
    assert "but not train-labels; add it" in refusal(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, np.uint8)))
    assert "is cut short: 47 values instead of 3x4x4" in refusal(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bjunk")
    (tmp_path / "train-images-idx3-ubyte").unlink()
    assert "get it anew" in refusal(tmp_path)


def test_real_mnist_has_its_numbers(shared: Path) -> None:
    data = read_data(shared / "mnist")
    assert {part: len(pictures) for part, pictures in data.parts.items()} == {"train": 60000, "test": 10000}
    assert data.classes == tuple("0123456789")
    assert data.parts["test"].counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_pictures_are_listed_in_the_order_asked(tmp_path: Path) -> None:
    root = tree(
        tmp_path, "z.png", "d/b.png", "d/a.png", "d/sub/c.JPG", "d/.hidden/x.png", "d/t.txt", "odd.xyz"
    )
    asked = [root / "z.png", root / "d", root / "none.png", root / "odd.xyz", f"{root}/d/*.png"]
    below = ["d/a.png", "d/b.png", "d/sub/c.JPG"]
    names = ["z.png", *below, "none.png", "odd.xyz", "d/a.png", "d/b.png"]
    assert list_pictures(asked) == [root / name for name in names]
    assert list_pictures([f"{root}/**/*.JPG"]) == [root / "d/sub/c.JPG"]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path) -> None:
    root = tree(tmp_path, "a[1].png", "a1.png")
    assert list_pictures([root / "a[1].png"]) == [root / "a[1].png"]


def test_listing_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no pictures"):
        list_pictures([tmp_path])
    with pytest.raises(DataError, match="no picture fits"):
        list_pictures([f"{tmp_path}/*.png"])


def test_fingerprint_depends_on_content_key_and_label_only(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.png", "b/1.png")
    pictures = read_data(root).parts["all"]
    before = fingerprint(pictures)
    assert len(before) == 64
    assert fingerprint(reversed(pictures.pictures)) == before
    moved = tree(tmp_path / "moved", "a/1.png", "b/1.png")
    (moved / "a/1.png").write_bytes((root / "a/1.png").read_bytes())
    assert fingerprint(read_data(moved).parts["all"]) == before
    first, second = pictures.pictures
    assert fingerprint([Picture(first.key, first.source, 1), second]) != before
    assert fingerprint([Picture("a/2.png", first.source, 0), second]) != before
    (root / "a/1.png").write_bytes(b"other")
    assert fingerprint(pictures) != before
    (root / "a/1.png").unlink()
    with pytest.raises(DataError, match="cannot read"):
        fingerprint(pictures)


def test_fingerprint_of_arrays_sees_values_and_shape() -> None:
    def mark(values: np.ndarray) -> str:
        return fingerprint([Picture("train/0", values, 0)])

    values = np.arange(12, dtype=np.uint8)
    assert len({mark(values.reshape(3, 4)), mark(values.reshape(4, 3)), mark(values.reshape(3, 4) + 1)}) == 3
