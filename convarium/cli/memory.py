"""convarium memory: how much memory a network takes, by batch, before it is run."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from convarium.costs.measured_memory import Measured
    from convarium.costs.memory import Memory

MIB, GIB = 2**20, 2**30
WIDTH = 60
"""Characters of the longest bar."""

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "float32": "float32", "bfloat16": "bfloat16"}
PARTS = {
    "parameters": "parameters and buffers",
    "gradients": "gradients",
    "optimizer": "the optimiser's state",
    "saved": "activations kept for the backward pass",
    "working": "working tensors",
    "input": "pictures and labels",
}
"""Each part of a peak, in words; its first letter, as a capital, stands for it in a bar."""


def run(
    name: str = typer.Argument("vgg19", help="Name of a network, or the file or run of a trained one."),
    batch: str = typer.Option("1,8,16,32", help="Pictures at once; several by commas."),
    train: bool = typer.Option(
        False, "--train/--inference", help="A training step, or inference (the default)."
    ),
    dtype: str = typer.Option("fp32", help="fp32, or bf16 (autocast, channels innermost)."),
    optimizer: str = typer.Option("momentum", help="With --train: none, sgd, momentum or adamw."),
    size: str = typer.Option(
        None, help="Picture in pixels: a side as 224, or HEIGHTxWIDTH; its own by default."
    ),
    channels: int = typer.Option(None, help="Channels of the picture.", min=1),
    classes: int = typer.Option(None, help="Number of classes.", min=1),
    device: str = typer.Option(None, help="cpu or cuda; cuda where there is one."),
    measured: bool = typer.Option(False, "--measure", help="Run it too, in a process of its own."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a batch."),
) -> None:
    """Predict the most memory that a network holds at once, from a run without data."""
    from convarium.cli.subject import subject
    from convarium.costs.memory import memory

    found = subject(name, classes=classes, channels=channels, size=size)
    how: dict[str, Any] = {
        "training": train,
        "dtype": dtype_of(dtype),
        "optimizer": optimizer,
        "device": device_of(device),
    }
    said = [memory(found.net, found.picture, batch=number, **how) for number in _batches(batch)]
    if not as_json:
        print(title(found.title, said[0]))
        print("bytes of torch's allocator at their most, in MiB (2^20 bytes)")
        print()
        print(_head(said[0], measured))
    largest = max(one.peak for one in said)
    for one in said:
        got = _measure(found.net, found.picture, one) if measured else None
        print(json.dumps(_record(found.title, one, got)) if as_json else _row(one, largest, got), flush=True)
    if not as_json:
        print()
        print(_legend(said[0]))
        for note in said[0].notes:
            print(f"{said[0].status}: {note}")


def title(name: str, one: Memory) -> str:
    """What a prediction is of, in a line."""
    channels, height, width = one.setting.picture
    what = f"training with {one.setting.optimizer}" if one.setting.training else "inference"
    return f"{name}, {channels} x {height} x {width}, {what}, {one.setting.dtype}, {one.setting.device}"


def dtype_of(text: str) -> str:
    """The name that `memory` knows for fp32 or bf16."""
    from convarium.errors import unknown_name

    if text not in DTYPES:
        raise unknown_name("dtype", text, ("fp32", "bf16"))
    return DTYPES[text]


def device_of(text: str | None) -> str:
    """The device asked for; an accelerator where there is one and nothing was asked."""
    if text is not None:
        return text
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def human(count: int) -> str:
    """Bytes in GiB or MiB."""
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / MIB:.1f} MiB"


def bar(one: Memory, largest: int) -> str:
    """A peak drawn in letters, one for each part, as long as its share of the largest."""
    drawn, done = "", 0
    for part in PARTS:
        done += one.parts[part]
        drawn += part[0].upper() * (round(WIDTH * done / largest) - len(drawn))
    return drawn


def _batches(text: str) -> list[int]:
    from convarium.errors import ArgumentError

    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ArgumentError(f"--batch {text}: it must be a number, or several by commas, as 1,8,16")
    return [int(number) for number in text.split(",")]


def _measure(net: Any, picture: tuple[int, int, int], one: Memory) -> Measured | str:
    """What a child process took, or why there is no figure: a batch that is too large must not hide the others."""
    from convarium.costs.measured_memory import MeasurementFailed, measure

    given = one.setting
    try:
        return measure(
            net,
            picture,
            batch=given.batch,
            training=given.training,
            dtype=given.dtype,
            optimizer=given.optimizer,
            device=given.device,
        )
    except MeasurementFailed as error:
        return str(error)


def _shown(one: Memory) -> list[str]:
    """The parts that there are."""
    return [p for p in PARTS if one.setting.training or p in ("parameters", "working", "input")]


def _head(one: Memory, measured: bool) -> str:
    columns = ["batch", "peak", *_shown(one), *(["measured", "ratio", "process"] if measured else [])]
    return "".join(f"{column:>{_wide(column)}}" for column in columns)


def _wide(column: str) -> int:
    return {"batch": 6, "parameters": 12, "ratio": 8}.get(column, 11)


def _row(one: Memory, largest: int, got: Measured | str | None) -> str:
    cells = [f"{one.setting.batch:>6}", f"{one.peak / MIB:>11,.1f}"]
    cells += [f"{one.parts[part] / MIB:>{_wide(part)},.1f}" for part in _shown(one)]
    if isinstance(got, str):
        cells.append(f"   {got}")
    elif got is not None:
        grown = "" if got.grown is None else f"{got.grown / MIB:,.1f}"
        cells += [f"{got.allocated / MIB:>11,.1f}", f"{one.peak / got.allocated:>8.3f}", f"{grown:>11}"]
    return "".join(cells) + "\n      " + bar(one, largest)


def _legend(one: Memory) -> str:
    return ", ".join(f"{part[0].upper()} {PARTS[part]}" for part in _shown(one))


def _record(name: str, one: Memory, got: Measured | str | None) -> dict[str, Any]:
    found = {"network": name, **asdict(one)}
    if got is not None:
        found["measured"] = {"failed": got} if isinstance(got, str) else asdict(got) | {"setting": None}
    return found
