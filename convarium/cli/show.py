"""convarium show: what a network is made of."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

import typer


def run(
    name: str = typer.Argument(help="Name of a network, or the file or run of a trained one."),
    depth: int = typer.Option(None, help="Levels of the tree to open; all by default.", min=0),
    size: str = typer.Option(None, help="Input in pixels: a side as 224, or HEIGHTxWIDTH as 224x320."),
    channels: int = typer.Option(None, help="Channels of the input.", min=1),
    classes: int = typer.Option(None, help="Number of classes.", min=1),
    costs: bool = typer.Option(
        False, "--cost", help="Operations and receptive field beside; `convarium cost` tells more."
    ),
    as_json: bool = typer.Option(
        False, "--json", help="One JSON object a line: the network, then each part."
    ),
) -> None:
    """Show a network's stages with shapes and parameters, and its paper."""
    from convarium.cli.subject import subject
    from convarium.costs.cost import cost

    found = subject(name, classes=classes, channels=channels, size=size)
    net, row = found.net, found.row
    counted = cost(net, found.picture)
    total = counted.params
    if as_json:
        points = {point: {"channels": p.channels, "stride": p.stride} for point, p in net.end_points.items()}
        whole: dict[str, Any] = {
            "name": row.name,
            "family": row.family,
            "year": row.year or None,
            "paper": row.paper,
            "parameters": total,
            "input": found.picture,
            "classes": net.classes,
            "end_points": points,
            "published": {
                "macs": None if row.macs is None else round(row.macs),
                "top1": row.top1,
                "source": row.source,
            },
        }
        print(json.dumps(whole))
        for part in counted.rows[1:]:
            facts = {"path": part.path, "kind": part.kind, "output": part.shape, "parameters": part.params}
            print(json.dumps({**facts, "macs": part.macs}))
        return
    print(f"{row.name}  ({row.family}, {row.year})" if row.year else f"{row.name}  ({row.family})")
    print(f"{row.paper}")
    print(f"input {' x '.join(map(str, found.picture))}, {_outputs(net)}, {total:,} parameters")
    if row.top1 is not None:
        print(f"published top-1 {row.top1} % ({row.source})")
    elif row.source:
        print(f"source: {row.source}")
    print()
    columns = ("output", "params", *(("MACs", "FLOPs", "field") if costs else ()))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(counted.tree(depth, columns=columns, width=width))
    if counted.status == "unavailable" or (costs and counted.notes):
        print("\n" + "\n".join(counted.notes))
    print()
    print("end points: " + ", ".join(_point(n, p.channels, p.stride) for n, p in net.end_points.items()))


def _outputs(net: Any) -> str:
    """What comes out: scores of classes, or features where there is no classifier."""
    if hasattr(net, "encode_text"):  # CLIP: `classes` is the width of a space that texts share
        return f"features of {net.classes}"
    return f"{net.classes} classes" if net.classes else "features without classes"


def _point(name: str, channels: int, stride: int | None) -> str:
    return f"{name} {channels}" + (f" /{stride}" if stride else "")
