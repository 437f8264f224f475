"""convarium choose: the network to take under a budget, measured on this machine."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from convarium.choosing.budget import Chosen
    from convarium.costs.choose import Verdict


def run(
    among: list[str] = typer.Argument(
        None, help="Networks to look at, as 'resnet*' 'timm:vit*'; all with published accuracy by default."
    ),
    max_ms: float = typer.Option(None, help="Milliseconds a batch at most."),
    max_mb: float = typer.Option(None, help="Megabytes of float32 weights at most."),
    min_top1: float = typer.Option(None, help="Published ImageNet accuracy at least, in per cent."),
    prefer: str = typer.Option(
        None, help="speed or accuracy, of those that keep the limits; speed where --min-top1 is given."
    ),
    batch: int = typer.Option(1, help="Pictures at once."),
    threads: int = typer.Option(None, help="Threads of the processor; all by default."),
    dtype: str = typer.Option("fp32", help="fp32 or bf16."),
    device: str = typer.Option("cpu", help="cpu or cuda."),
    data: str = typer.Option(None, help="Your pictures, by class: the finalists are ranked on them."),
    minutes: float = typer.Option(5.0, help="Minutes that it may take."),
    timm: bool = typer.Option(True, help="Look at networks that only timm has, too."),
    every: bool = typer.Option(False, "--all", help="Show every network and why it was rejected."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Choose a network under limits of time, size and accuracy; what is not certain on paper is measured here."""
    from convarium.choosing.budget import Way, choose
    from convarium.cli.compare import tell
    from convarium.costs.allocator import keep_freed_memory
    from convarium.costs.choose import Limits
    from convarium.costs.records import Records

    keep_freed_memory()
    found = choose(
        Limits(max_ms, max_mb, min_top1),
        among=among or (),
        timm=timm,
        prefer=prefer,
        way=Way(batch, threads, device, dtype),
        data=data,
        minutes=minutes,
        records=Records(),
        on_progress=tell,
    )
    tell("")
    if as_json:
        print(json.dumps(_fields(found), ensure_ascii=False))
    else:
        _print(found, every)
    for note in found.notes:
        print(note, file=sys.stderr)
    if found.choice.answer is None:
        raise typer.Exit(2)


SHOWN = 12
"""Rejected networks that are shown where not all are asked for: the most accurate of those measured."""


def _print(found: Chosen, every: bool) -> None:
    from convarium.cli.columns import columns

    choice, way = found.choice, found.way
    print(found.machine)
    print(
        f"{way.device}, {found.peak.threads} threads, {way.dtype}, batch {way.batch}; peak "
        f"{found.peak.flops / 1e9:,.0f} GFLOP/s"
    )
    print()
    if choice.answer is None:
        print(
            "No network keeps these limits"
            + ("." if choice.complete else ", as far as time sufficed to see.")
        )
    else:
        taken = choice.answer
        print(f"Take {taken.option.title}: {taken.reason}.")
        print(f"weights {taken.option.weights}, licence {taken.option.licence or 'not stated with them'}")
        print(f"top-1 {taken.option.top1:.2f} % at {taken.option.size} pixels ({taken.option.source})")
    print()
    counts = {
        kind: sum(v.kind == kind for v in choice.verdicts)
        for kind in ("rejected", "not needed", "not reached")
    }
    print(
        f"{len(choice.verdicts)} networks with published accuracy, {choice.measured} measured in "
        f"{found.seconds:.0f} s; {counts['rejected']} rejected, {counts['not needed']} could not change the answer"
        + (
            f", {counts['not reached']} NOT REACHED: time was up, so the answer is not sure"
            if not choice.complete
            else ""
        )
    )
    rows = list(choice.verdicts) if every else _worth_showing(found)
    if rows:
        front = set(map(id, choice.front))
        print()
        print(
            columns(
                [
                    ["network", "input", "top-1 %", "MB", "GMAC", "p50 ms", "verdict"],
                    *(_row(verdict, id(verdict) in front) for verdict in rows),
                ]
            )
        )
        print()
        print(
            "* of the measured ones, none is both faster and more accurate"
            + ("" if every else "; --all shows every one")
        )
    if found.ranking:
        _print_ranking(found)


def _worth_showing(found: Chosen) -> list[Verdict]:
    """The measured ones: the answer, what fits, the front, and the most accurate of the rejected."""
    timed = [v for v in found.choice.verdicts if v.timing is not None]
    first = {id(v) for v in timed if v.kind in ("chosen", "fits")} | {id(v) for v in found.choice.front}
    rest = sorted((v for v in timed if id(v) not in first), key=lambda v: -v.option.top1)
    kept = first | {id(v) for v in rest[: max(0, SHOWN - len(first))]}
    return sorted((v for v in timed if id(v) in kept), key=lambda v: (v.kind != "chosen", v.timing.p50))


def _row(verdict: Verdict, on_front: bool) -> list[str]:
    from convarium.cli.columns import brief

    option = verdict.option
    said = verdict.kind if verdict.kind in ("chosen", "fits") else f"{verdict.kind}: {verdict.reason}"
    return [
        ("* " if on_front else "  ") + option.title,
        str(option.size),
        f"{option.top1:.2f}",
        brief(option.megabytes),
        brief(option.macs / 1e9),
        brief(verdict.timing.p50) if verdict.timing is not None else "",
        said,
    ]


def _print_ranking(found: Chosen) -> None:
    from convarium.cli.columns import columns

    ranking = found.ranking
    assert ranking is not None
    print()
    print(
        f"On your pictures ({ranking.pictures:,} of {ranking.classes} classes), a linear classifier on frozen features:"
    )
    rows = [["network", "accuracy", "p", "weights"]]
    for place in ranking.places:
        p = f"{place.against_best.p:.3f}" if place.against_best else "best"
        rows.append([place.title, str(place.accuracy), p, place.weights])
    print(columns(rows))
    for title, reason in ranking.left_out:
        print(f"left out: {title}: {reason}")
    print(ranking.sentence)


def _fields(found: Chosen) -> dict[str, Any]:
    def entry(verdict: Verdict) -> dict[str, Any]:
        option = verdict.option
        return {
            "name": option.title,
            "weights": option.weights,
            "licence": option.licence or None,
            "top1": option.top1,
            "parameters": option.parameters,
            "macs": option.macs,
            "size": option.size,
            "verdict": verdict.kind,
            "reason": verdict.reason,
            "latency": verdict.timing.to_dict() if hasattr(verdict.timing, "to_dict") else None,
        }

    choice, ranking = found.choice, found.ranking
    return {
        "answer": entry(choice.answer) if choice.answer else None,
        "complete": choice.complete,
        "prefer": choice.prefer,
        "measured": choice.measured,
        "seconds": round(found.seconds, 1),
        "machine": found.machine,
        "front": [verdict.option.title for verdict in choice.front],
        "verdicts": [entry(verdict) for verdict in choice.verdicts],
        "ranking": None
        if ranking is None
        else {
            "pictures": ranking.pictures,
            "places": [
                {"name": p.title, "weights": p.weights, "accuracy": p.accuracy.to_dict()}
                for p in ranking.places
            ],
            "left_out": dict(ranking.left_out),
            "sentence": ranking.sentence,
        },
    }
