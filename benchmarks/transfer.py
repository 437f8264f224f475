"""A classifier on a frozen network: `convarium train --recipe probe` beside the loop that tutorials show, in one run.

    python -m benchmarks.transfer DATA --model resnet50 [--weights FILE] [--epochs 2]

The tutorial's loop is torchvision's network in float32 with its backbone frozen, ImageFolder and a DataLoader of two
workers, every picture through the whole network in every epoch, validation after each (PyTorch's tutorial on transfer
learning, "ConvNet as fixed feature extractor"). Both are processes of their own, from start to accuracy; ours has an
empty cache. "Passes alone" sets the seconds that all pictures took through the frozen network beside the tutorial's
epochs. Seconds of more epochs than were run are those of one epoch times their number, and are marked so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONVARIUM = "from convarium.cli import main; main()"

TUTORIAL = """
import json, sys, time
import torch, torchvision
from torchvision import datasets, transforms
data, model, weights, epochs = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
normal = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
change = {
    "train": transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(),
                                 transforms.ToTensor(), normal]),
    "test": transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normal]),
}
sets = {part: datasets.ImageFolder(f"{data}/{part}", change[part]) for part in change}
loaders = {p: torch.utils.data.DataLoader(s, 32, shuffle=p == "train", num_workers=2) for p, s in sets.items()}
torch.manual_seed(0)
net = torchvision.models.get_model(model)
from safetensors.torch import load_file
net.load_state_dict(load_file(weights))
for p in net.parameters():
    p.requires_grad = False
name = "fc" if hasattr(net, "fc") else "classifier"
last = net.fc if name == "fc" else net.classifier[-1]
head = torch.nn.Linear(last.in_features, len(sets["train"].classes))
if name == "fc":
    net.fc = head
else:
    net.classifier[-1] = head
optimizer = torch.optim.SGD(head.parameters(), lr=1e-3, momentum=0.9)
seconds = []
for epoch in range(epochs):
    began = time.perf_counter()
    net.train()
    for pictures, labels in loaders["train"]:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(pictures), labels)
        loss.backward()
        optimizer.step()
    net.eval()
    right = 0
    with torch.no_grad():
        for pictures, labels in loaders["test"]:
            right += (net(pictures).argmax(1) == labels).sum().item()
    seconds.append(time.perf_counter() - began)
print(json.dumps({"epochs": seconds, "right": right, "count": len(sets["test"])}))
"""


def main() -> None:
    """Run both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with train/ and test/")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument(
        "--weights",
        type=Path,
        help="of torchvision's names; without, drawn at random, batch norms' statistics from 64 of the pictures",
    )
    parser.add_argument("--epochs", type=int, default=2, help="of the tutorial's loop that are really run")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = asked.weights or _drawn(asked.model, asked.data, Path(folder) / "drawn.safetensors")
        ours, passes, top1 = _ours(asked.data, asked.model, weights, Path(folder))
        theirs, told, _ = _timed(
            [sys.executable, "-c", TUTORIAL, *map(str, (asked.data, asked.model, weights, asked.epochs))]
        )
    said = json.loads(told.splitlines()[-1])
    each = sum(said["epochs"]) / len(said["epochs"])
    print(f"{asked.model} on {asked.data.name}; whole processes")
    print(f"probe           {ours:8.1f} s   top-1 {top1}   passes alone {passes:.1f} s")
    print(
        f"tutorial's loop {theirs:8.1f} s   top-1 {said['right'] / said['count']:.1%} after {asked.epochs} epochs"
    )
    for epochs in sorted({asked.epochs, 2, 10, 50}):
        seconds = theirs + (epochs - asked.epochs) * each
        how = "measured" if epochs == asked.epochs else f"from {each:.1f} s an epoch"
        alone = f"passes alone {epochs * each / passes:.1f} times"
        print(f"{epochs:>4} epochs: {seconds:9.1f} s, {seconds / ours:7.1f} times as long ({how}); {alone}")


def _ours(data: Path, model: str, weights: Path, folder: Path) -> tuple[float, float, str]:
    command = [
        sys.executable,
        "-c",
        CONVARIUM,
        "train",
        str(data),
        "--model",
        model,
        "--weights",
        str(weights),
    ]
    seconds, told, messages = _timed(
        [*command, "--recipe", "probe", "--out", str(folder / "run"), "--json"],
        CONVARIUM_CACHE=str(folder / "cache"),
    )
    top1 = json.loads(told.splitlines()[-1])["top1"]
    passes = re.search(r"features of [\d,]+ pictures in ([\d.]+) s", messages)
    assert passes, messages
    return seconds, float(passes[1]), f"{top1['value']:.1%} ({top1['low']:.1%} to {top1['high']:.1%})"


def _timed(command: list[str], **environment: str) -> tuple[float, str, str]:
    began = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    return time.perf_counter() - began, done.stdout, done.stderr


def _drawn(model: str, data: Path, path: Path) -> Path:
    import torch
    import torchvision
    from safetensors.torch import save_file
    from torchvision import datasets, transforms

    torch.manual_seed(0)
    net = torchvision.models.get_model(model).train()
    for norm in net.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = None  # the mean of what it sees, not what it was made with
    for block in net.modules():
        if hasattr(block, "bn3"):
            torch.nn.init.constant_(
                block.bn3.weight, 0.25
            )  # as in trained networks, each block adds a little
    change = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
    pictures = datasets.ImageFolder(str(data / "train"), change)
    every = range(0, len(pictures), max(1, len(pictures) // 64))
    with torch.no_grad():
        net((torch.stack([pictures[i][0] for i in every][:64]) - 0.45) / 0.225)
    save_file(net.state_dict(), path)
    return path


if __name__ == "__main__":
    main()
