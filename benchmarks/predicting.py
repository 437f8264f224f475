"""A whole command, from files to answers: `convarium predict` beside a straightforward torchvision script, in one run.

    python -m benchmarks.predicting MODEL.safetensors WEIGHTS.safetensors PICTURES [--network mobilenet_v2] [--rounds 5]

MODEL is a classifier's file (`convarium pack`), WEIGHTS the same network's in torchvision's names, PICTURES a folder.
Every way is a process of its own, from its start to its last answer; they take turns, and medians are printed.

    script      torchvision: PIL, Resize 256, CenterCrop 224, a DataLoader of two workers, batch 32, float32
    first       convarium predict with nothing remembered
    again       convarium predict once a way is remembered
    one         the same of a single picture, from a process's start
    decode      our decoding and resizing alone, in a process that has begun
    inference   the remembered way alone, on pictures that are prepared

The last two are the floor: a command can at best take as long as the slower of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONVARIUM = "from convarium.cli import main; main()"

SCRIPT = """
import json, sys
from pathlib import Path
import torch, torchvision
from PIL import Image
from safetensors.torch import load_file
from torchvision import transforms
weights, folder, name = sys.argv[1:]
change = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                             transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
class Pictures(torch.utils.data.Dataset):
    def __len__(self): return len(files)
    def __getitem__(self, i): return change(Image.open(files[i]).convert("RGB"))
net = torchvision.models.get_model(name)
net.load_state_dict(load_file(weights))
net.eval()
said = []
with torch.no_grad():
    for pictures in torch.utils.data.DataLoader(Pictures(), 32, num_workers=2):
        said += net(pictures).softmax(1).argmax(1).tolist()
for path, index in zip(files, said):
    print(json.dumps({"path": str(path), "index": index}))
"""

PARTS = """
import json, sys, time
from pathlib import Path
import numpy as np
from convarium.data.folders import list_pictures
from convarium.deploy import quick
files = [str(p) for p in list_pictures([sys.argv[2]])]
clf = quick.open(sys.argv[1], "auto", len(files))
took = []
for _ in range(3):
    began = time.perf_counter()
    groups = [g.pictures for g in clf.groups(files)]
    decoded = time.perf_counter()
    for pictures in groups:
        clf._said(pictures)
    took.append((decoded - began, time.perf_counter() - decoded))
print(json.dumps({"decode": min(t[0] for t in took), "inference": min(t[1] for t in took), "way": clf.way}))
"""


def main() -> None:
    """Print a line a way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "weights", "pictures"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--network", default="mobilenet_v2")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        ours = [CONVARIUM, "predict", asked.model, asked.pictures, "--json"]
        script = [SCRIPT, asked.weights, asked.pictures, asked.network]
        first, _ = timed(ours, cache)
        # A way that needs no torch is remembered for the next process.
        timed([CONVARIUM, "engines", asked.model, asked.pictures, "--seconds", "10"], cache)
        times: dict[str, list[float]] = {"script": [], "again": []}
        for _ in range(asked.rounds):
            for name, command in (("script", script), ("again", ours)):
                seconds, said = timed(command, cache)
                times[name].append(seconds)
        one = min(asked.pictures.rglob("*.[jJ][pP]*[gG]"))
        single = [timed([CONVARIUM, "predict", asked.model, one, "--json"], cache)[0] for _ in range(5)]
        parts = json.loads(timed([PARTS, asked.model, asked.pictures], cache)[1].splitlines()[-1])
        count = len(said.splitlines())
    middle = {name: statistics.median(found) for name, found in times.items()}
    print(f"{count} pictures, {asked.network}, {os.cpu_count()} cores; engine {parts['way']}")
    print(f"script     {middle['script']:7.2f} s")
    print(f"first      {first:7.2f} s   {middle['script'] / first:.2f} times as fast")
    print(f"again      {middle['again']:7.2f} s   {middle['script'] / middle['again']:.2f} times as fast")
    print(
        f"one        {statistics.median(single):7.2f} s   a single picture, {min(single):.2f} to {max(single):.2f}"
    )
    print(f"decode     {parts['decode']:7.2f} s   alone")
    print(f"inference  {parts['inference']:7.2f} s   alone")


def timed(command: list[object], cache: str) -> tuple[float, str]:
    """Seconds of one process, and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", *map(str, command)],
        env={**os.environ, "CONVARIUM_CACHE": cache},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return time.perf_counter() - began, done.stdout


if __name__ == "__main__":
    main()
