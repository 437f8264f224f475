"""How fast JPEG files become training crops, beside torchvision's ImageFolder and DataLoader, in one run.

Each way reads the same pictures again and again: a random part of 8 % to 100 % of the area, resized to 224 x 224,
mirrored every second time. They take turns, one epoch each, and the ratio of two ways is the median of the ratios
within each round; pictures come from the page cache, as in every epoch but the first. Freed memory is kept in our
process, as in training, and not in torchvision's.

    torchvision   ImageFolder, DataLoader with WORKERS processes; float32, normalised
    float32       our Loader with WORKERS threads, then normalised
    uint8         our Loader, bytes handed over: the network's device normalises
    cache         our Loader from a prepared file (squares of 256), bytes handed over
    cache float32 likewise, normalised
    ffcv          where it is installed: JPEG kept as it is, float32 normalised and uint8

    python benchmarks/reading.py --pictures FOLDER [--seconds 60] [--workers 2] [--batch 64]

FOLDER has pictures in class folders; a plain folder of pictures counts as one class.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from convarium.costs.allocator import keep_freed_memory
from convarium.data import crops
from convarium.data.augment import Augment
from convarium.data.decode import EXTENSIONS
from convarium.data.loader import Loader, check
from convarium.data.pictures import Picture, PictureSet
from convarium.data.preprocessing import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENT = Augment(area=(0.08, 1.0), flip=True)
HOW = Preprocessing(224, resize=256, mean=MEAN, std=STD)

Way = Callable[[int], Iterator[Tensor]]
"""One epoch's batches."""


def main() -> None:
    """Print one line a way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = in_classes(given.pictures, Path(scratch))
        pictures = listed(root)
        theirs = torchvision(root, given.workers, given.batch)
        next(theirs(0))  # begins their processes, which keep the usual memory
        keep_freed_memory()  # as `convarium train` does
        ways = {"torchvision": theirs, **ours(pictures, given.workers, given.batch, Path(scratch))}
        ways |= ffcv(root, given.workers, given.batch, Path(scratch))
        decoder = "simplejpeg" if crops.simplejpeg is not None else "Pillow"
        print(
            f"{len(pictures)} pictures, {given.workers} workers, batch {given.batch}, {os.cpu_count()} cores, "
            f"torch {torch.__version__}, JPEG by {decoder}"
        )
        report(take_turns(ways, len(pictures), given.seconds))


def take_turns(ways: dict[str, Way], number: int, seconds: float) -> dict[str, list[float]]:
    """Pictures a second of each way in each round, after one round that is not counted."""
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    begun, epoch = time.perf_counter(), 0
    while epoch < 2 or time.perf_counter() - begun < seconds:
        if epoch == 1:
            begun = time.perf_counter()
        for name, way in ways.items():
            # A way that is over in a moment goes on for half a second.
            start, seen = time.perf_counter(), 0
            while not seen or time.perf_counter() - start < 0.5:
                seen += sum(len(batch) for batch in way(epoch))
            if epoch:
                speeds[name].append(seen / (time.perf_counter() - start))
        epoch += 1
    return speeds


def report(speeds: dict[str, list[float]]) -> None:
    """A line a way: pictures a second, and ratios to torchvision."""
    print(
        f"{'way':<15}{'pictures/s':>11}{'ratio':>8}   least to greatest, {len(speeds['torchvision'])} rounds"
    )
    for name, mine in speeds.items():
        ratios = [a / b for a, b in zip(mine, speeds["torchvision"], strict=True)]
        print(
            f"{name:<15}{statistics.median(mine):>11,.0f}{statistics.median(ratios):>8.2f}"
            f"   {min(ratios):.2f} to {max(ratios):.2f}"
        )


def torchvision(root: Path, workers: int, batch: int) -> Way:
    """As torchvision's own reference trains: 8 % to 100 % of the area, mirrored, to float32, normalised."""
    change = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    # Its workers stay from epoch to epoch, or their start would count.
    loader = DataLoader(
        ImageFolder(root, change), batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda epoch: (pictures for pictures, _ in loader)


def ours(pictures: PictureSet, workers: int, batch: int, scratch: Path) -> dict[str, Way]:
    """Our ways."""
    checked = check(pictures, HOW, cache=scratch / "prepared", margin=True)

    def way(known: Tensor | None, normal: bool) -> Way:
        some = pictures if known is None else checked.good
        loader = Loader(
            some, HOW, batch=batch, seed=0, augment=AUGMENT, shuffle=True, workers=workers, prepared=known
        )
        if normal:
            return lambda epoch: (HOW.normalise(batch.pictures) for batch in loader.batches(epoch))
        return lambda epoch: (batch.pictures for batch in loader.batches(epoch))

    return {
        "float32": way(None, True),
        "uint8": way(None, False),
        "cache": way(checked.prepared, False),
        "cache float32": way(checked.prepared, True),
    }


def ffcv(root: Path, workers: int, batch: int, scratch: Path) -> dict[str, Way]:
    """The same by ffcv, where it is installed; nothing elsewhere."""
    try:
        import numpy as np
        from ffcv.fields import IntField, RGBImageField
        from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
        from ffcv.loader import Loader as Theirs
        from ffcv.loader import OrderOption
        from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage
        from ffcv.writer import DatasetWriter
    except ImportError:
        return {}

    def way(normal: bool, mode: str) -> Way:
        path = scratch / f"{mode}.beton"
        if not path.exists():
            field = RGBImageField(write_mode=mode, max_resolution=256 if mode == "raw" else None)
            DatasetWriter(
                str(path), {"image": field, "label": IntField()}, num_workers=workers
            ).from_indexed_dataset(ImageFolder(root))
        steps = [
            RandomResizedCropRGBImageDecoder((224, 224)),
            RandomHorizontalFlip(),
            ToTensor(),
            ToTorchImage(),
        ]
        if normal:
            steps.append(NormalizeImage(np.array(MEAN) * 255, np.array(STD) * 255, np.float32))
        loader = Theirs(
            str(path),
            batch_size=batch,
            num_workers=workers,
            order=OrderOption.RANDOM,
            pipelines={"image": steps, "label": None},
            drop_last=False,
        )
        return lambda epoch: (pictures for pictures, *_ in loader)

    return {
        "ffcv float32": way(True, "jpg"),
        "ffcv uint8": way(False, "jpg"),
        "ffcv raw 256": way(False, "raw"),
    }


def in_classes(folder: Path, scratch: Path) -> Path:
    """The folder itself, or one above links to its pictures where it has no class folders."""
    if any(entry.is_dir() for entry in folder.iterdir()):
        return folder
    made = scratch / "linked" / "all"
    made.mkdir(parents=True)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in EXTENSIONS:
            (made / path.name).symlink_to(path.resolve())
    return made.parent


def listed(root: Path) -> PictureSet:
    """The pictures in the order in which torchvision lists them."""
    known = ImageFolder(root)
    names = (str(Path(path).relative_to(root)) for path, _ in known.samples)
    pictures = (
        Picture(name, Path(path), label) for name, (path, label) in zip(names, known.samples, strict=True)
    )
    return PictureSet(tuple(known.classes), tuple(pictures))


if __name__ == "__main__":
    main()
