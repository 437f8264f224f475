"""convarium bench: its table, its JSON, what it keeps and takes again, what it refuses."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import typer
from typer.testing import CliRunner

from convarium.cli import bench
from convarium.costs import machine, peaks
from convarium.costs.candidate import Candidate
from convarium.costs.latency import Latency
from convarium.costs.peaks import Peak, roofline
from convarium.errors import ArgumentError, UnknownName
from convarium.models import create

app = typer.Typer()
app.command()(bench.run)


@dataclass
class Done:
    status: int
    lines: list[str]
    error: str

    @property
    def rows(self) -> list[dict]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and a peak that takes no time to measure."""
    monkeypatch.setenv("CONVARIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(peaks, "_measure", lambda d, t, n, s: Peak(d, t, n, 100e9, 10e9))
    return tmp_path / "cache" / "measurements.jsonl"


@pytest.fixture
def measured(cache):
    """Status, lines of standard output and standard error of `convarium bench`."""

    def run(*arguments: str) -> Done:
        done = CliRunner().invoke(app, [*arguments], catch_exceptions=True)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Done(done.exit_code, done.stdout.splitlines(), done.stderr)

    return run


def latency(title: str, p50: float = 1.0, low: float = 0.9, high: float = 1.1, **changes: object) -> Latency:
    settings = Candidate(title, create("lenet5"), (1, 28, 28), threads=1).settings
    figures = {"p50": p50, "p95": high, "low": low, "high": high, "images_per_second": 1000 / p50}
    rest = {"runs": 9, "turns": 9, "warmup": 2, "status": "settled", "reason": "", "spread": 0.03}
    words = {"device_name": "x", "mode": "eager", "how": "x", "date": "2026-01-01T00:00:00+00:00"}
    return Latency(title=title, **{**settings, **figures, **rest, **words, **changes})


def line(title: str, *args: float, age: float | None = None, **changes: object) -> bench.Line:
    return bench.Line(latency(title, *args, **changes), age, bench.Work(10**6, 10**5, 10**5))


# The whole verb


def test_the_table_has_a_line_for_each_combination_in_order(measured):
    done = measured("lenet5", "linear", "--batch", "1,2", "--threads", "1", "--seconds", "0.02")
    assert done.status == 0
    assert "torch" in done.lines[0] and "1 thread, fp32, cpu, eager, inference_mode" in done.lines[1]
    head = next(i for i, text in enumerate(done.lines) if text.startswith("network"))
    heads = ["network", "batch", "p50", "ms", "p95", "ms", "img/s", "ratio", "GFLOP/s", "of", "peak"]
    assert done.lines[head].split() == heads
    rows = [text.split() for text in done.lines[head + 1 : head + 5]]
    assert [row[:2] for row in rows] == [["lenet5", "1"], ["linear", "1"], ["lenet5", "2"], ["linear", "2"]]
    assert rows[0][5] == "1"
    assert all(row[7].endswith("%") for row in rows)


def test_json_has_every_figure_with_its_settings(measured, cache):
    done = measured("lenet5", "--dtype", "fp32,bf16", "--seconds", "0.02", "--json", "--size", "32")
    first, second = done.rows
    assert (first["title"], first["dtype"], second["dtype"]) == ("lenet5", "fp32", "bf16")
    assert first["picture"] == [1, 32, 32] and first["batch"] == 1 and first["age_days"] is None
    assert first["ratio"] == 1.0
    assert second["ratio"] == pytest.approx(second["images_per_second"] / first["images_per_second"])
    assert first["flops"] == second["flops"] > 0 and first["moved"] == 2 * second["moved"] > 0
    expected = roofline(
        first["flops"], first["moved"], first["p50"] / 1000, Peak("cpu", "fp32", 1, 100e9, 10e9)
    )
    assert first["roofline"]["achieved"] == pytest.approx(expected.achieved)
    assert first["roofline"]["verdict"] == expected.verdict
    assert first["peak"]["flops"] == 100e9
    assert f"2 of 2 measurements are kept in {cache}" in done.error


def test_a_hurried_measurement_is_marked_and_no_verdict_rests_on_it(measured):
    done = measured("lenet5", "linear", "--seconds", "0.000001")
    rows = [text for text in done.lines if text.startswith(("lenet5 ", "linear "))]
    assert len(rows) == 2 and all("unsettled" in row and "bound" not in row for row in rows)
    assert "no fastest is shown" in done.lines[-1]
    assert "quieter machine" in done.error


def test_what_is_kept_says_how_it_was_measured(measured, cache):
    measured("lenet5", "--batch", "3", "--seconds", "0.02")
    kept = [row for row in map(json.loads, cache.read_text().splitlines()) if row["kind"] == "latency"]
    assert len(kept) == 1
    assert kept[0]["batch"] == 3 and kept[0]["machine"] == machine.this_machine().fingerprint
    assert json.loads(kept[0]["architecture"])["name"] == "lenet5" and kept[0]["date"] and kept[0]["how"]


def settle(cache, **changes: object) -> None:
    """Make all that is kept settled, with these changes."""
    rows = [json.loads(text) for text in cache.read_text().splitlines()]
    done = [{**row, "status": "settled", **changes} if row["kind"] == "latency" else row for row in rows]
    cache.write_text("".join(json.dumps(row) + "\n" for row in done))


def test_a_settled_measurement_is_taken_again(measured, cache):
    measured("lenet5", "--seconds", "0.02")
    settle(cache, p50=12.345)
    done = measured("lenet5", "--seconds", "0.02", "--reuse", "1", "--json")
    assert done.rows[0]["p50"] == 12.345 and 0 <= done.rows[0]["age_days"] < 0.1
    assert "measuring" not in done.error and "kept" not in done.error
    assert any("measured 0.0 days ago" in text for text in measured("lenet5", "--reuse", "1").lines)


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        (["--reuse", "1", "--batch", "2"], {}),
        (["--reuse", "1", "--size", "32"], {}),
        (["--reuse", "1", "--channels-last"], {}),
        (["--reuse", "1", "--dtype", "bf16"], {}),
        (["--reuse", "1"], {"date": "2020-01-01T00:00:00+00:00"}),
        (["--reuse", "1"], {"machine": "another"}),
        (["--reuse", "1"], {"torch": "1.0"}),
        (["--reuse", "1"], {"status": "unsettled"}),
        (["--reuse", "1"], {"p95": [], "picture": None}),
        ([], {}),
    ],
)
def test_another_or_an_old_measurement_is_not_taken(measured, cache, arguments, changes):
    measured("lenet5", "--seconds", "0.02")
    settle(cache, **{"p50": 12.345, **changes})
    done = measured("lenet5", "--seconds", "0.02", "--json", *arguments)
    assert done.rows[0]["p50"] != 12.345 and done.rows[0]["age_days"] is None


def test_records_that_cannot_be_kept_are_said_and_no_error(measured, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    done = measured("lenet5", "--seconds", "0.02")
    assert done.status == 0 and done.error.count("measurements are not kept") == 1


def test_ctrl_c_prints_what_was_measured_so_far(measured, monkeypatch, cache):
    @contextmanager
    def interrupting(total, seconds):
        told = []

        def tell(done: int, everything: int, title: str) -> None:
            told.append(title)
            if len(told) == 3:  # both are warm, one had its turn
                raise KeyboardInterrupt

        yield tell

    monkeypatch.setattr(bench, "_progress", interrupting)
    done = measured("lenet5", "linear", "--seconds", "5", "--json")
    assert done.status == bench.STOPPED and "stopped" in done.error
    assert sorted(row["p50"] is None for row in done.rows) == [False, True]
    assert {row["status"] for row in done.rows} == {"unsettled", "unavailable"}
    assert "none is called the fastest" in done.error and "1 of 2 measurements are kept" in done.error


def test_a_network_that_cannot_be_run_is_named_and_ends_with_status_2(measured, monkeypatch):
    def fail(self, x):
        raise MemoryError

    monkeypatch.setattr("convarium.net.Net.forward", fail)
    monkeypatch.setattr(bench, "work", lambda candidate: bench.Work(1, 1, 1))
    done = measured("lenet5", "--seconds", "0.02")
    assert done.status == 2
    assert any("unavailable: too little memory for this batch" in text for text in done.lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch", "0"], "batch of 0"),
        (["--batch", "1,x"], "--batch '1,x'; it must be a whole number"),
        (["--batch", ""], "--batch ''"),
        (["--threads", "100000"], "100000 threads; this process may use"),
        (["--dtype", "int8"], "'int8'; it must be one of fp32"),
        (["--device", "cuda:77"], "measure on cpu"),
        (["--device", "abacus"], "it must be cpu, cuda"),
        (["--seconds", "0"], "must be above 0"),
        (["--seconds", "nan"], "must be above 0"),
        (["--batch", "1000000000"], "GB are free; take a smaller batch"),
    ],
)
def test_what_cannot_be_is_refused(measured, cache, arguments, said):
    with pytest.raises(ArgumentError, match=said):
        measured("lenet5", *arguments)
    assert not cache.exists()


def test_an_unknown_network_is_refused(measured):
    with pytest.raises(UnknownName, match="lenet5"):
        measured("lenet55")


# Which is the fastest


def test_the_fastest_is_named_where_intervals_lie_apart():
    (text,) = bench.verdicts([line("a", 2.0, 1.9, 2.1), line("b", 1.0, 0.9, 1.1)])
    assert text.startswith("batch 1, 1 thread, fp32, cpu: b is the fastest, 1 ms against 2 ms of a")


def test_no_fastest_is_named_where_intervals_overlap_or_are_not_known():
    (text,) = bench.verdicts(
        [line("a", 1.0, 0.9, 1.2), line("b", 1.1, 1.1, 1.3), line("c", 9.0, math.nan, math.nan)]
    )
    assert "no fastest is shown" in text and "tell a from b, c" in text


def test_one_that_could_not_be_measured_leaves_the_answer_open():
    lost = line("b", math.nan, math.nan, math.nan, status="unavailable", runs=0)
    assert "none is called the fastest" in bench.verdicts([line("a"), lost])[0]


def test_only_networks_with_the_same_settings_are_compared():
    assert bench.verdicts([line("a", batch=1), line("b", batch=2)]) == []
    assert len(bench.verdicts([line(t, batch=n) for t in "ab" for n in (1, 2)])) == 2


def test_older_figures_in_a_comparison_are_said():
    assert "not measured side by side" in bench.verdicts([line("a"), line("b", age=2.0)])[0]


def test_a_verdict_must_hold_at_both_ends_of_the_interval():
    peak = Peak("cpu", "fp32", 1, 1e9, 1e9)
    work = bench.Work(10**6, 10**5, 0)  # 1 ms at the peak
    wide = replace(line("a", 4.0, 3.0, 8.0), work=work, peak=peak)
    tight = replace(line("a", 4.0, 3.9, 4.1), work=work, peak=peak)
    near = roofline(*work[:2], 0.004, peak)
    assert near.verdict == "compute-bound here"
    assert not bench._sure(replace(wide, roofline=near)) and bench._sure(replace(tight, roofline=near))
