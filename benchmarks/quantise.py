"""8 bits on real weights: accuracy before and after, what stayed in float32, speed; one row a network.

The bound is held on two thirds of the photographs (or the test part of CIFAR's small set), and ranges come from the
other third (or its training part). Speeds are of one engine, float32 and int8 by turns.

    python -m benchmarks.quantise ../shared/data          # the folder with weights/, imagenet300/ and cifar10/
    python -m benchmarks.quantise ../shared/data --only resnet20 --to onnx
"""

from __future__ import annotations

import argparse
import csv
import json
import tarfile
import tempfile
import time
from pathlib import Path

from convarium.data.folders import read_data
from convarium.data.pictures import PictureSet
from convarium.deploy.quantise import quantise
from convarium.packing import pack

WEIGHTS = {
    "mobilenet_v2": "mobilenet_v2_imagenet",
    "mobilenet_v1_075": "mobilenetv1_075_imagenet",
    "mobilenet_v1_025": "mobilenetv1_025_imagenet",
    "squeezenet1_1": "squeezenet1_1_imagenet",
    "resnet20": "cifar10_resnet20",
    "resnet56": "cifar10_resnet56",
}

COLUMNS = (
    "network|format|top-1 float32|top-1 int8|difference, 95 %|p|flips|left in float32|batch 1|batch 32|s"
)
HEAD = f"| {COLUMNS.replace('|', ' | ')} |\n|{COLUMNS.count('|') * '---|'}---|"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", choices=WEIGHTS, action="append")
    parser.add_argument("--to", choices=("openvino", "onnx"), action="append")
    parser.add_argument("--max-drop", type=float, default=0.5)
    asked = parser.parse_args()
    facts = json.loads((asked.data / "weights" / "weights.json").read_text("utf-8"))
    print(HEAD)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in asked.only or WEIGHTS:
            for to in asked.to or ("openvino", "onnx"):
                print(row(name, to, asked.data, folder, facts[WEIGHTS[name]], asked.max_drop), flush=True)


def row(name: str, to: str, data: Path, folder: Path, fact: dict, max_drop: float) -> str:
    """One network's line."""
    large = fact["input"][1] == 224
    classes, parts = photographs(data, folder) if large else small(data, folder)
    clf = pack(
        data / "weights" / f"{WEIGHTS[name]}.safetensors",
        name,
        classes=classes,
        preprocessing={"size": fact["input"][1], **fact["norm"], **({"resize": 256} if large else {})},
        arguments={"padding": "same"} if name.startswith("mobilenet_v1") else {},
    )
    found = read_data(parts, classes=clf.classes).parts
    judged: PictureSet = found.get("val") or found["test"]
    out = folder / f"{name}-{to}"
    began = time.perf_counter()
    done = quantise(
        clf.net, clf.classes, clf.preprocessing, {}, found["train"], judged, out, max_drop=max_drop, to=to
    )
    seconds, v = time.perf_counter() - began, done.versus
    kept = ", ".join(done.kept) or "none"
    ratios = " | ".join(f"{speed.ratio:.2f}" for speed in done.speeds)
    interval = f"{0 - 100 * v.paired.difference:+.2f} ({-100 * v.high:+.2f} to {-100 * v.low:+.2f})"
    held = "" if done.folder else " (bound not held)"
    cells = (
        name,
        to + held,
        v.first,
        v.second,
        interval,
        f"{v.paired.p:.2g}",
        done.parity.flips,
        kept,
        ratios,
    )
    return f"| {' | '.join(map(str, cells))} | {seconds:.0f} |"


def photographs(data: Path, folder: Path) -> tuple[list[str], Path]:
    """Names of the 1,000 classes, and a table of the 300 photographs, every third for ranges."""
    with (data / "imagenet300" / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table = folder / "imagenet300.csv"
    if not table.exists():
        with tarfile.open(data / "imagenet300" / "imagenet300.tar") as archive:
            archive.extractall(folder, filter="data")
    files = {path.name: path for path in folder.rglob("*.jpg")} | {p.name: p for p in folder.rglob("*.JPEG")}
    known = {int(entry["class_index"]): entry["class_name"] for entry in rows}
    classes = [f"{index} {known.get(index, '')}".strip() for index in range(1000)]
    with table.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("path", "label", "part"))
        for number, entry in enumerate(rows):
            path = files[Path(entry["filename"]).name]
            lines.writerow((path, classes[int(entry["class_index"])], "val" if number % 3 else "train"))
    return classes, table


def small(data: Path, folder: Path) -> tuple[list[str], Path]:
    """Names of CIFAR's classes, and a folder of its small set."""
    place = folder / "cifar"
    if not place.exists():
        for archive in sorted((data / "cifar10").glob("*.tar*")):
            with tarfile.open(archive) as opened:
                opened.extractall(place, filter="data")
    top = next(path.parent for path in place.rglob("train") if path.is_dir())
    return sorted(path.name for path in (top / "train").iterdir()), top


if __name__ == "__main__":
    main()
