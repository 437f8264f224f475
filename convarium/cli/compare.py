"""convarium compare: networks side by side, as published and as measured here."""

from __future__ import annotations

import json
import sys

import typer


def run(
    networks: list[str] = typer.Argument(help="Names of networks, or files or runs of trained ones."),
    batch: int = typer.Option(1, help="Pictures at once."),
    threads: int = typer.Option(None, help="Threads of the processor; all by default."),
    dtype: str = typer.Option("fp32", help="fp32, bf16 (autocast) or bf16-weights (converted)."),
    device: str = typer.Option("cpu", help="cpu or cuda."),
    seconds: float = typer.Option(5.0, help="Running time for each network at most."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a network."),
) -> None:
    """Compare networks: published accuracy, size, operations, memory, and the time that they take here."""
    from convarium.choosing.budget import Way
    from convarium.choosing.side_by_side import compare
    from convarium.cli.columns import brief, columns
    from convarium.cli.subject import refuse_missing
    from convarium.costs.allocator import keep_freed_memory
    from convarium.costs.machine import this_machine
    from convarium.costs.records import Records

    for name in networks:
        refuse_missing(name)
    records = Records()
    keep_freed_memory()
    rows = compare(
        networks,
        way=Way(batch, threads, device, dtype),
        seconds=seconds,
        records=records,
        on_progress=tell,
    )
    tell("")
    if as_json:
        for row in rows:
            print(json.dumps(row.to_dict(), ensure_ascii=False))
        return
    first = rows[0].latency
    print(f"{this_machine()}; torch {first.torch}")
    threads_used = f"{first.threads} thread{'s' * (first.threads != 1)}"
    print(f"{first.device}, {threads_used}, {first.dtype}, batch {first.batch}, {first.mode}")
    print()
    table = [
        ["network", "top-1 %", "input", "M param.", "GMAC", "MB", "memory MB", "p50 ms", "95 % interval", ""]
    ]
    for row in rows:
        timed = row.latency
        remarks = [text for text in (row.weights, row.own and f"{row.own} of its own pictures") if text]
        if timed.status == "unavailable":
            remarks.append(timed.reason)
        elif timed.status == "unsettled":
            remarks.append("time unsettled")
        if row.cost.status == "partial":
            remarks.append("operations partial")
        table.append(
            [
                ("* " if row.front else "  ") + row.title,
                f"{row.top1:.2f}" if row.top1 is not None else "",
                str(row.size),
                f"{row.cost.params / 1e6:.2f}",
                brief(None if row.cost.macs is None else row.cost.macs / 1e9),
                brief(row.megabytes),
                brief(row.memory / 1e6),
                brief(timed.p50),
                f"{brief(timed.low)} to {brief(timed.high)}" if timed.low == timed.low else "",
                "; ".join(remarks),
            ]
        )
    print(columns(table))
    print(
        "\n* none of these is both faster and more accurate. top-1: ImageNet-1k, as published for the weights named;\n"
        "training recipes differ, and some weights have seen more pictures than ImageNet-1k's.\n"
        "MB: float32 weights; memory: predicted peak of inference (10^6 bytes)."
    )
    for note in records.notes:
        print(note, file=sys.stderr)


def tell(text: str) -> None:
    """What is being done, on standard error: over itself on a terminal, else a line each."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)
