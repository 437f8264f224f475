"""One network a family, whole, through every export: how far its file's answers are from the classifier's.

Weights are random, and the temperature is such that scores spread as a trained network's: rounding then has a chance to
show. CLIP is left out, as it scores texts and no classes. Takes some ten minutes and writes nothing but a table.

    python -m benchmarks.exports PICTURES [--only FAMILY ...] [--count 24]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from convarium.classifier import Classifier
from convarium.cli.export import answers
from convarium.data.folders import list_pictures
from convarium.data.preprocessing import Preprocessing
from convarium.deploy import export
from convarium.models import create
from tests.reference import randomise

NETWORKS = {
    "lenet": "lenet5_1998",
    "alexnet": "alexnet",
    "nin": "nin_imagenet",
    "vgg": "vgg11_bn",
    "googlenet": "googlenet",
    "inception_v2": "inception_v2",
    "inception_v3": "inception_v3",
    "resnet": "resnet50",
    "preact": "resnet164_v2",
    "fixup": "resnet110_fixup",
    "squeezenet": "squeezenet1_1",
    "densenet": "densenet121",
    "senet": "seresnet50",
    "mobilenet_v1": "mobilenet_v1",
    "mobilenet_v2": "mobilenet_v2",
    "mobilenet_v3": "mobilenet_v3_large",
    "efficientnet": "efficientnet_b0",
    "vit": "vit_b_16",
    "convnext": "convnext_tiny",
}
SPREAD = 3.0  # standard deviation of scores over classes


def main() -> None:
    """Print a line for each network and format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--count", type=int, default=24)
    asked = parser.parse_args()
    files = list_pictures([str(asked.pictures)])
    files = files[:: max(1, len(files) // asked.count)][: asked.count]
    print(f"{len(files)} pictures; largest difference of probabilities; torch {torch.__version__}\n")
    print("| network | format | flips | largest difference | seconds |\n|---|---|---|---|---|")
    for family in asked.only:
        clf = classifier(NETWORKS[family], files)
        for to in export.FILES:
            with tempfile.TemporaryDirectory() as place:
                print(line(NETWORKS[family], clf, to, Path(place), files), flush=True)


def classifier(name: str, files: list[Path]) -> Classifier:
    """A network with drawn weights, whose scores spread as those of a trained one."""
    torch.manual_seed(0)
    options = {"aux": False} if name in ("googlenet", "inception_v3") else {}
    net = randomise(create(name, **options)).eval()
    looks = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)} if net.in_channels == 3 else {}
    preprocessing = Preprocessing(net.size, "RGB" if net.in_channels == 3 else "L", **looks)
    clf = Classifier(net, [str(number) for number in range(net.classes)], preprocessing, device="cpu")
    prepared = torch.stack([preprocessing.prepare(preprocessing.open(file)) for file in files[:4]])
    with torch.inference_mode():
        clf.temperature = float(net(preprocessing.normalise(prepared)).std(dim=1).mean()) / SPREAD
    return clf


def line(name: str, clf: Classifier, to: str, place: Path, files: list[Path]) -> str:
    """What came of one export."""
    source = clf.save(place / "model.safetensors") if to == "safetensors" else None
    known = {"temperature": clf.temperature, "threshold": clf.threshold}
    began = time.perf_counter()
    done = export.export(
        clf.net,
        clf.classes,
        clf.preprocessing,
        known,
        to,
        place / "out",
        reference=lambda some: answers(clf, some),
        pictures=files,
        source=source,
    )
    seconds = time.perf_counter() - began
    if done.parity is None:
        return f"| {name} | {to} | the same file | | {seconds:.0f} |"
    return f"| {name} | {to} | {done.parity.flips} | {done.parity.largest:.1e} | {seconds:.0f} |"


if __name__ == "__main__":
    main()
