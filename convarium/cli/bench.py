"""convarium bench: how long networks take on this machine."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from convarium.cli.columns import brief, columns

if TYPE_CHECKING:
    from convarium.costs.latency import Candidate, Latency
    from convarium.costs.peaks import Peak, Roofline
    from convarium.costs.records import Records

STOPPED = 130  # exit status after Ctrl-C
SETTINGS = ("batch", "threads", "dtype", "device")


class Work(NamedTuple):
    """What one batch asks of a machine: FLOPs (None where they cannot be counted), bytes moved, bytes held at least."""

    flops: int | None
    moved: int
    held: int


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Args:
        latency: what was measured.
        age: days since then, where it was taken from the records.
        work: what one batch asks.
        peak: of the machine; None where it is not known.
        roofline: how near the network comes to it.
    """

    latency: Latency
    age: float | None
    work: Work
    peak: Peak | None = None
    roofline: Roofline | None = None


def run(
    networks: list[str] = typer.Argument(help="Names of networks, or files or runs of trained ones."),
    batch: str = typer.Option("1", help="Pictures at once; several as 1,32."),
    threads: str = typer.Option(None, help="Threads of the processor, as 1,2; as torch chooses by default."),
    dtype: str = typer.Option("fp32", help="fp32, bf16 (autocast) or bf16-weights (converted), by commas."),
    device: str = typer.Option("cpu", help="cpu, cuda or cuda:1, by commas."),
    size: int = typer.Option(
        None, help="Side of the picture in pixels; each network's own by default.", min=1
    ),
    seconds: float = typer.Option(5.0, help="Running time for each line at most."),
    channels_last: bool = typer.Option(False, "--channels-last", help="Lay channels innermost in memory."),
    reuse: float = typer.Option(None, help="Take settled measurements up to so many days old.", min=0.0),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a line of the table."),
) -> None:
    """Measure how long networks take here, side by side, and what they wait for.

    Networks are in evaluation mode; new ones have random weights, and pictures are noise. p50 is a median; a line is
    settled when its 95 % interval reaches at most 3 % to either side, and marked where it does not.
    """
    from convarium.costs.allocator import keep_freed_memory
    from convarium.costs.latency import Race, keep
    from convarium.costs.records import Records

    keep_freed_memory()
    candidates = _candidates(networks, batch, threads, dtype, device, size, channels_last)
    records = Records()
    earlier = [None if reuse is None else _earlier(candidate, records, reuse) for candidate in candidates]
    race = Race([c for c, old in zip(candidates, earlier, strict=True) if old is None], seconds=seconds)
    works = [work(candidate) for candidate in candidates]
    _must_fit(candidates, works)
    stopped = False
    try:
        with _progress(len(race.candidates), seconds) as tell:
            race.run(tell)
    except KeyboardInterrupt:
        stopped = True
        _say("stopped; this is what was measured so far")
    new = race.results()
    kept = keep(new, records)
    fresh = iter(new)
    lines = []
    for old, asked in zip(earlier, works, strict=True):
        latency, age = old or (next(fresh), None)
        lines.append(Line(latency, age, asked))
    lines = _with_rooflines(lines, records, measure=not stopped)
    if as_json:
        for line in lines:
            print(json.dumps(_fields(line, lines[0]), allow_nan=False))
    else:
        _print(lines)
    for text in verdicts(lines):
        print(text, file=sys.stderr if as_json else sys.stdout)
    if not stopped and any(line.latency.status == "unsettled" for line in lines):
        _say("unsettled: times did not hold still; measure on a quieter machine or with more --seconds")
    if kept:
        _say(f"{kept} of {len(new)} measurements are kept in {records.file}")
    for text in records.notes:
        _say(text)
    if stopped or not any(line.latency.runs for line in lines):
        raise typer.Exit(STOPPED if stopped else 2)


def work(candidate: Candidate) -> Work:
    """What one batch of a candidate asks, by the counters of `convarium.cost`."""
    from convarium.costs.candidate import NUMBERS
    from convarium.costs.cost import cost

    found = cost(candidate.net, candidate.picture, batch=candidate.batch, dtype=NUMBERS[candidate.dtype])
    whole, parts = found.rows[0], [row for row in found.rows if row.leaf]
    largest = max((row.moved - row.params * row.itemsize for row in parts), default=0)
    flops = (
        found.flops if found.status == "complete" else None
    )  # not all of them would be no rate of the machine
    return Work(flops, whole.moved, whole.params * whole.itemsize + max(largest, 0))


def verdicts(lines: Sequence[Line]) -> list[str]:
    """For each setting that several networks share: which is the fastest, where the intervals show one."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(_setting(line.latency, SETTINGS), []).append(line)
    return [f"{setting}: {_fastest(group)}" for setting, group in groups.items() if len(group) > 1]


def _fastest(group: Sequence[Line]) -> str:
    if any(line.latency.status == "unavailable" for line in group):
        return "not all could be measured, so none is called the fastest"
    first, *others = sorted((line.latency for line in group), key=lambda latency: latency.p50)
    # Where there is no interval its ends are not-a-number, and no comparison with them is true.
    rivals = [other.title for other in others if not first.high < other.low]
    if rivals:
        text = f"no fastest is shown; the intervals do not tell {first.title} from {', '.join(rivals)}"
    else:
        text = (
            f"{first.title} is the fastest, {brief(first.p50)} ms against {brief(others[0].p50)} ms of "
            f"{others[0].title}; the intervals do not overlap"
        )
    if any(line.age is not None for line in group):
        text += " (not measured side by side: some figures are older)"
    return text


def _candidates(
    networks: Sequence[str],
    batch: str,
    threads: str | None,
    dtype: str,
    device: str,
    size: int | None,
    channels_last: bool,
) -> list[Candidate]:
    """All combinations; networks that share a setting follow each other."""
    from convarium.cli.subject import subject
    from convarium.costs.candidate import Candidate, check

    batches = _numbers("--batch", batch)
    counts = [None] if threads is None else _numbers("--threads", threads)
    settings = list(itertools.product(_parts(device), _parts(dtype), counts, batches))
    for where, number, count, pictures in settings:
        check(pictures, count, number, where)
    subjects = [subject(name, size=size, empty=False) for name in dict.fromkeys(networks)]
    return [
        Candidate(s.title, s.net, s.picture, pictures, count, number, where, channels_last)
        for where, number, count, pictures in settings
        for s in subjects
    ]


def _parts(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def _numbers(option: str, text: str) -> list[int]:
    from convarium.errors import ArgumentError

    try:
        return list(dict.fromkeys(int(part) for part in _parts(text)))
    except ValueError as error:
        raise ArgumentError(
            f"{option} {text!r}; it must be a whole number, or several with commas, as 1,32"
        ) from error


def _earlier(candidate: Candidate, records: Records, days: float) -> tuple[Latency, float] | None:
    """The latest settled measurement that is not too old, and its age in days."""
    from convarium.costs.latency import Latency

    found = records.latest("latency", **candidate.settings, status="settled")
    if found is None or found[1] > days or not candidate.architecture:
        return None
    try:
        return replace(Latency.from_dict(found[0]), title=candidate.title), found[1]
    except (KeyError, TypeError):  # written by another version
        return None


def _must_fit(candidates: Sequence[Candidate], works: Sequence[Work]) -> None:
    """Ask before: a system without memory ends the process, it does not refuse."""
    from convarium.errors import ArgumentError
    from convarium.limits import free_memory

    free = free_memory()
    for candidate, asked in zip(candidates, works, strict=True):
        if free is not None and candidate.place.type == "cpu" and asked.held > free:
            raise ArgumentError(
                f"{candidate.title} holds at least {asked.held / 1e9:,.1f} GB for a batch of {candidate.batch}, and "
                f"{free / 1e9:,.1f} GB are free; take a smaller batch or a smaller --size"
            )


@contextmanager
def _progress(total: int, seconds: float) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on a terminal, one line elsewhere; both on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or not total:
        if total:
            _say(f"measuring {total} in turns, about {total * seconds:.3g} s at most")
        yield lambda done, everything, title: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=total)
        yield lambda done, everything, title: bar.update(task, completed=done, description=title)


def _with_rooflines(lines: Sequence[Line], records: Records, measure: bool) -> list[Line]:
    """Each line beside the peak of its device, number type and threads."""
    from convarium.costs.peaks import peak, remembered, roofline

    peaks: dict[tuple[str, str, int], Peak | None] = {}
    found = list(lines)
    # The fastest first: where it beats a peak that was taken on a busy machine, that is measured anew for all.
    for index in sorted(range(len(lines)), key=lambda i: -_rate(lines[i])):
        line, latency = lines[index], lines[index].latency
        if line.work.flops is None or latency.status == "unavailable":
            continue
        key = (latency.device, latency.dtype.partition("-")[0], latency.threads)
        if key not in peaks:
            new = peak(*key, records=records, at_least=_rate(line)) if measure else None
            peaks[key] = new or remembered(*key, records)
        if top := peaks[key]:
            near = roofline(line.work.flops, line.work.moved, latency.p50 / 1000, top)
            found[index] = replace(line, peak=top, roofline=near)
    return found


def _rate(line: Line) -> float:
    """FLOP/s; 0 where they are not known."""
    return (line.work.flops or 0) * 1000 / line.latency.p50 if line.latency.p50 > 0 else 0.0


def _ratio(line: Line, first: Line) -> float:
    """Images a second against those of the first line."""
    return line.latency.images_per_second / first.latency.images_per_second


def _fields(line: Line, first: Line) -> dict[str, Any]:
    """A line as JSON has it."""
    ratio = _ratio(line, first)
    return line.latency.to_dict() | {
        "age_days": line.age,
        "ratio": None if math.isnan(ratio) else ratio,
        "flops": line.work.flops,
        "moved": line.work.moved,
        "roofline": asdict(line.roofline) if line.roofline else None,
        "peak": asdict(line.peak) if line.peak else None,
    }


def _setting(latency: Latency, names: Sequence[str]) -> str:
    words = {
        "batch": f"batch {latency.batch}",
        "threads": f"{latency.threads} thread{'s' * (latency.threads != 1)}",
        "dtype": latency.dtype,
        "device": latency.device,
    }
    return ", ".join(words[name] for name in names)


def _print(lines: Sequence[Line]) -> None:
    """Where it was measured and how, then the table."""
    from convarium.costs.latency import DTYPES
    from convarium.costs.machine import this_machine

    first = lines[0].latency
    same = [name for name in SETTINGS if len({getattr(line.latency, name) for line in lines}) == 1]
    varied = [name for name in SETTINGS if name not in same]
    layout = "channels last" if first.channels_last else "channels first"
    print(f"{this_machine()}; torch {first.torch}")
    print(", ".join(filter(None, (_setting(first, same), first.mode, layout))))
    for dtype in dict.fromkeys(line.latency.dtype for line in lines):
        print(f"{dtype}: {DTYPES[dtype]}")
    print()
    heads = ["network", *varied, "p50 ms", "p95 ms", "img/s", "ratio", "GFLOP/s", "of peak", ""]
    print(columns([heads, *(_row(line, lines[0], varied) for line in lines)]))
    print()
    print(
        "ratio: images a second against the first line; of peak: of the FLOP/s measured here, 1 MAC = 2 FLOPs"
    )


def _row(line: Line, first: Line, varied: Sequence[str]) -> list[str]:
    latency, near = line.latency, line.roofline
    remarks = [near.verdict] if near and _sure(line) else []
    if latency.status == "unsettled":
        wide = latency.half_width
        remarks.append("unsettled" + ("" if math.isnan(wide) else f" (+-{wide:.0%})"))
    if latency.status == "unavailable":
        remarks.append(f"unavailable: {latency.reason}")
    if line.age is not None:
        remarks.append(f"measured {line.age:.1f} days ago")
    return [
        latency.title,
        *(str(getattr(latency, name)) for name in varied),
        *map(brief, (latency.p50, latency.p95, latency.images_per_second, _ratio(line, first))),
        brief(near.achieved / 1e9) if near else "",
        f"{near.share:.0%}" if near else "",
        "; ".join(remarks),
    ]


def _sure(line: Line) -> bool:
    """Whether the verdict is the same at both ends of the interval, so that noise does not make it."""
    from convarium.costs.peaks import roofline

    asked, top, near, ends = line.work, line.peak, line.roofline, (line.latency.low, line.latency.high)
    if top is None or near is None or asked.flops is None or any(map(math.isnan, ends)):
        return False
    return all(roofline(asked.flops, asked.moved, end / 1000, top).verdict == near.verdict for end in ends)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
