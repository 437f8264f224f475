"""convarium fit: the largest batch that a memory holds, and what takes it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from convarium.cli.memory import PARTS, bar, device_of, dtype_of, human, title

if TYPE_CHECKING:
    from convarium.cli.subject import Subject
    from convarium.costs.memory import Fit, Memory

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def run(
    name: str = typer.Argument(help="Name of a network, or the file or run of a trained one."),
    memory: str = typer.Option(
        None, help="What there is, as 8G or 512M (1G = 2^30 bytes); what is free here by default."
    ),
    train: bool = typer.Option(True, "--train/--inference", help="A training step, or inference."),
    dtype: str = typer.Option("fp32", help="fp32, or bf16 (autocast, channels innermost)."),
    optimizer: str = typer.Option("momentum", help="In training: none, sgd, momentum or adamw."),
    size: str = typer.Option(
        None, help="Picture in pixels: a side as 224, or HEIGHTxWIDTH; its own by default."
    ),
    channels: int = typer.Option(None, help="Channels of the picture.", min=1),
    classes: int = typer.Option(None, help="Number of classes.", min=1),
    device: str = typer.Option(None, help="cpu or cuda; cuda where there is one."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Find the largest batch that fits a memory, without running the network."""
    from convarium.cli.subject import subject
    from convarium.costs.memory import largest_batch

    place = device_of(device)
    limit = free(place) if memory is None else size_of(memory)
    found = subject(name, classes=classes, channels=channels, size=size)
    how: dict[str, Any] = {
        "training": train,
        "dtype": dtype_of(dtype),
        "optimizer": optimizer,
        "device": place,
    }
    fit = largest_batch(found.net, found.picture, limit, **how)
    if as_json:
        print(json.dumps({"network": found.title, **asdict(fit)}))
        return
    _tell(found, fit, how)


def size_of(text: str) -> int:
    """8G, 512M or 1.5GiB in bytes: 1K is 2^10, 1M is 2^20, 1G is 2^30, 1T is 2^40.

    Raises:
        ArgumentError: it is no such size, or has no unit.
    """
    from convarium.errors import ArgumentError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise ArgumentError(
            f"--memory {text}: it must be a size with its unit, as 8G or 512M (1G = 2^30 bytes)"
        )
    return size


def free(device: str) -> int:
    """Bytes that are free on this machine now.

    Raises:
        ArgumentError: the system does not say.
    """
    from convarium.errors import ArgumentError

    if device == "cuda":
        import torch

        if torch.cuda.is_available():
            return int(torch.cuda.mem_get_info()[0])
        raise ArgumentError("there is no CUDA device here: say how much memory it would have, as --memory 8G")
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    if found is None:
        raise ArgumentError("this system does not say how much memory is free: give it, as --memory 8G")
    return int(found[1]) * 1024


def _tell(found: Subject, fit: Fit, how: dict[str, Any]) -> None:
    from convarium.costs.measured_memory import resident

    one = fit.memory
    print(title(found.title, one))
    given = f"{human(fit.limit)} (1 GiB = 2^30 bytes)"
    if fit.batch == 0:
        pictures = (
            "one picture" if one.setting.batch == 1 else f"{one.setting.batch} pictures, the fewest that run,"
        )
        print(f"not even {pictures} fits in {given}: it takes {human(one.peak)}")
    else:
        print(f"largest batch {fit.batch:,}: {human(one.peak)} of {given}")
        if fit.beyond is None:
            print("no larger batch was looked for")
        else:
            print(f"{fit.beyond.setting.batch:,} would take {human(fit.beyond.peak)}")
    print()
    for part, words in PARTS.items():
        if one.parts[part]:
            print(f"  {words:<40}{human(one.parts[part]):>12}{one.parts[part] / one.peak:>6.0%}")
    print(f"  {bar(one, one.peak)}")
    print()
    print(f"most is held in: {one.moment}")
    if fit.batch == 0:
        print(_ways_out(found, fit, how))
    around = resident() if one.setting.device == "cpu" else None
    if around is not None:
        print(f"Python and torch take more beside the tensors: {human(around)} in this process")
        print(
            "the C library may keep freed memory on top (glibc: less with MALLOC_MMAP_THRESHOLD_=65536 set)"
        )
    for note in one.notes:
        print(f"{one.status}: {note}")


def _ways_out(found: Subject, fit: Fit, how: dict[str, Any]) -> str:
    """What would make it fit, each tried on its own."""
    tried: list[tuple[str, Memory]] = []
    ways: list[tuple[str, dict[str, Any]]] = [("--dtype bf16", {"dtype": "bfloat16"})]
    if how["training"]:
        ways += [("--optimizer sgd", {"optimizer": "sgd"}), ("--inference", {"training": False})]
    from convarium.costs.memory import memory

    for words, change in ways:
        if all(how[key] == value for key, value in change.items()):
            continue
        tried.append(
            (words, memory(found.net, found.picture, batch=fit.memory.setting.batch, **(how | change)))
        )
    said = ", ".join(f"{words} takes {human(one.peak)}" for words, one in tried if one.peak <= fit.limit)
    if said:
        return f"this would fit: {said}"
    return (
        f"neither would {' nor '.join(words for words, _ in tried)} alone; take a smaller network or --size"
    )
