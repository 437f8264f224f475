"""The machine's facts, its peaks, the roofline by hand, and the file of measurements."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from convarium import limits
from convarium.costs import peaks as peaks_module
from convarium.costs.machine import Machine, this_machine, threads
from convarium.costs.peaks import Peak, peak, remembered, roofline
from convarium.costs.records import Records
from convarium.errors import ArgumentError
from convarium.limits import cores, free_memory, memory

ROOT = Path(__file__).resolve().parent.parent
PEAK = Peak("cpu", "fp32", 1, flops=100e9, bandwidth=10e9)


def machine(**changes: object) -> Machine:
    facts = {
        "cpu": "Xeon",
        "architecture": "x86_64",
        "system": "Linux",
        "cores": 2,
        "memory": 24 * 2**30,
        "flags": ("avx2",),
        "accelerators": (),
    }
    return Machine(**{**facts, **changes})  # type: ignore[arg-type]


# The machine


def test_this_machine_has_a_name_and_a_core():
    here = this_machine()
    assert here.cpu and here.cores >= 1 and str(here).startswith(here.cpu)
    assert len(here.fingerprint) == 12 and int(here.fingerprint, 16) >= 0


def test_like_machines_have_one_fingerprint():
    assert machine().fingerprint == machine(memory=24 * 2**30 + 4096).fingerprint


@pytest.mark.parametrize(
    "change",
    [{"cpu": "Epyc"}, {"cores": 4}, {"memory": 8 * 2**30}, {"flags": ()}, {"accelerators": ("A100",)}],
)
def test_what_differs_in_a_machine_shows_in_its_fingerprint(change):
    assert machine(**change).fingerprint != machine().fingerprint


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}, 3),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, 8),
        ({"cpu.max": "nonsense"}, 8),
        ({}, 8),
    ],
)
def test_the_quota_of_a_container_cuts_the_cores(tmp_path, monkeypatch, files, expected):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(limits, "_groups", lambda: [tmp_path])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert cores() == expected


def test_the_limit_of_a_container_cuts_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_groups", lambda: [tmp_path])
    (tmp_path / "memory.max").write_text("max\n")
    whole = memory()
    (tmp_path / "memory.max").write_text("1048576\n")
    assert memory() == 1048576 and whole != 1048576


def test_free_memory_is_not_more_than_there_is():
    free, whole = free_memory(), memory()
    if free is None or whole is None:
        pytest.skip("the system does not tell")
    assert 0 < free <= whole


def test_threads_are_restored_also_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


# The roofline, by hand: 100 GFLOP/s and 10 GB/s, so the ridge stands at 10 FLOP/byte


def test_much_arithmetic_on_few_bytes_is_compute_bound():
    found = roofline(80e9, 1e9, 1.0, PEAK)
    assert (found.achieved, found.share, found.intensity, found.ridge) == (80e9, 0.8, 80.0, 10.0)
    assert (found.compute_share, found.memory_share) == (0.8, 0.1)
    assert found.verdict == "compute-bound here"


def test_little_arithmetic_on_many_bytes_is_memory_bound():
    found = roofline(10e9, 5e9, 1.0, PEAK)
    assert (found.compute_share, found.memory_share, found.intensity) == (0.1, 0.5, 2.0)
    assert found.verdict == "memory-bound here"


def test_far_below_both_bounds_is_overhead():
    assert roofline(19e9, 1.9e9, 1.0, PEAK).verdict == "overhead-bound here"
    assert roofline(21e9, 1.9e9, 1.0, PEAK).verdict == "compute-bound here"
    assert roofline(1e9, 2.1e9, 1.0, PEAK).verdict == "memory-bound here"


def test_at_the_ridge_both_shares_are_equal():
    found = roofline(50e9, 5e9, 1.0, PEAK)
    assert found.compute_share == found.memory_share == 0.5 and found.intensity == found.ridge


def test_the_time_scales_all_shares():
    slow = roofline(80e9, 1e9, 2.0, PEAK)
    assert (slow.achieved, slow.share, slow.memory_share) == (40e9, 0.4, 0.05)


@pytest.mark.parametrize(
    "numbers", [(1, 1, 0.0), (1, 1, -1.0), (1, 1, float("nan")), (-1, 1, 1.0), (1, -1, 1.0)]
)
def test_impossible_numbers_are_refused(numbers):
    with pytest.raises(ArgumentError, match="the time must be above zero"):
        roofline(*numbers, PEAK)


# Peaks


@pytest.fixture
def records(tmp_path) -> Records:
    return Records(tmp_path / "cache" / "m.jsonl")


def fake(flops: float, bandwidth: float = 1e9):
    measured: list[Peak] = []

    def _measure(device: str, dtype: str, count: int, seconds: float) -> Peak:
        measured.append(Peak(device, dtype, count, flops, bandwidth))
        return measured[-1]

    return measured, _measure


def test_a_peak_is_measured_and_threads_are_left(monkeypatch):
    monkeypatch.setattr(peaks_module, "COPIED", 1 << 22)
    before = torch.get_num_threads()
    found = peak("cpu", "fp32", 1, seconds=0.01)
    assert found.flops > 1e6 and found.bandwidth > 1e6 and found.ridge == found.flops / found.bandwidth
    assert "copy of 4 MiB" in found.how and torch.get_num_threads() == before


def test_a_peak_is_measured_three_times_and_then_remembered(records, monkeypatch):
    for flops in (5e9, 6e9, 4e9, 9e9):
        measured, measuring = fake(flops)
        monkeypatch.setattr(peaks_module, "_measure", measuring)
        found = peak("cpu", "fp32", 1, records=Records(records.file))
        assert len(measured) == (flops != 9e9)
    assert found.flops == 6e9  # the best of the first three
    for other in (("cpu", "fp32", 2), ("cpu", "bf16", 1)):
        assert peak(*other, records=records).flops == 9e9


def test_a_peak_that_was_surpassed_is_measured_anew_and_the_best_is_kept(records, monkeypatch):
    monkeypatch.setattr(peaks_module, "_measure", fake(5e9, 7e9)[1])
    for _ in range(peaks_module.SURE):
        peak("cpu", "fp32", 1, records=records)
    monkeypatch.setattr(peaks_module, "_measure", fake(9e9, 3e9)[1])
    assert peak("cpu", "fp32", 1, records=records, at_least=4e9).flops == 5e9
    best = peak("cpu", "fp32", 1, records=records, at_least=8e9)
    assert (best.flops, best.bandwidth) == (9e9, 7e9)


@pytest.mark.parametrize("other", [{"machine": "x"}, {"torch": "1.0"}, {"flops": None}, {"flops": "fast"}])
def test_peaks_of_other_machines_or_versions_and_nonsense_are_not_used(records, monkeypatch, other):
    monkeypatch.setattr(peaks_module, "_measure", fake(5e9)[1])
    peak("cpu", "fp32", 1, records=records)
    row = json.loads(records.file.read_text())
    records.file.write_text(json.dumps({**row, **other}) + "\n")
    assert remembered("cpu", "fp32", 1, records) is None


def test_a_peak_of_an_unknown_type_is_refused():
    with pytest.raises(ArgumentError, match="'int8'"):
        peak("cpu", "int8", 1)


# Records


def dated(days: float, **fields: object) -> dict:
    return {"date": (datetime.now(UTC) - timedelta(days=days)).isoformat(), **fields}


def test_the_latest_that_fits_is_found_with_its_age(records):
    for days, value in ((3, "old"), (1, "new"), (2, "middle")):
        assert records.append("latency", dated(days, model="a", size=(3, 8, 8), value=value))
    records.append("latency", dated(0, model="b", size=(3, 8, 8), value="other"))
    records.append("peak", dated(0, model="a", size=(3, 8, 8), value="other kind"))
    row, age = records.latest("latency", model="a", size=(3, 8, 8))
    assert row["value"] == "new" and age == pytest.approx(1, abs=0.01) and "kind" not in row
    assert records.latest("latency", model="a", size=(3, 9, 9)) is None
    assert records.latest("latency", model="a", missing=None) is None


def test_where_there_is_no_file_there_is_nothing_and_no_complaint(records):
    assert records.find("latency") == [] and records.notes == [] and not records.file.parent.exists()


def test_damaged_lines_are_skipped_and_said_once(records):
    records.append("latency", {"value": 1})
    with records.file.open("ab") as file:
        file.write(b'{"kind": "latency", "val\n\xff\xfe\n[1]\n\n7\n')
    records.append("latency", {"value": 2})
    assert [row["value"] for row in records.find("latency")] == [1, 2]
    assert records.find("latency") and len(records.notes) == 1
    assert "4 damaged line(s)" in records.notes[0] and "2, 3, 4, 6" in records.notes[0]


def test_a_line_without_its_end_does_not_take_the_next_with_it(records):
    records.append("latency", {"value": 1})
    with records.file.open("ab") as file:
        file.write(b'{"kind": "latency", "va')  # a process was killed here
    records.append("latency", {"value": 2})
    assert [row["value"] for row in records.find("latency")] == [1, 2]


def test_a_folder_that_cannot_be_made_is_no_error_and_said_once(tmp_path):
    (tmp_path / "cache").write_text("a file")
    records = Records(tmp_path / "cache" / "m.jsonl")
    assert not records.append("latency", {}) and not records.append("latency", {})
    assert len([note for note in records.notes if "not kept" in note]) == 1
    assert "CONVARIUM_CACHE" in records.notes[0]


def test_a_read_only_disk_is_no_error(records, monkeypatch):
    records.append("latency", {"value": 1})
    before = records.file.read_bytes()

    def refuse(*args: object, **kwargs: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    assert not records.append("latency", {"value": 2})
    assert "Read-only file system" in records.notes[0]
    assert records.file.read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_folder_without_permission_is_no_error(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o500)
    records = Records(folder / "m.jsonl")
    assert not records.append("latency", {}) and "not kept" in records.notes[0]


def test_a_full_disk_leaves_no_half_line(records, monkeypatch):
    records.append("latency", {"value": 1})
    before = records.file.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[:5]))
    assert not records.append("latency", {"value": 2})
    monkeypatch.undo()
    assert records.file.read_bytes() == before and "disk is full" in records.notes[0]


def test_two_processes_append_at_once_and_no_line_is_lost(tmp_path):
    file = tmp_path / "m.jsonl"
    code = (
        "import importlib.util, sys; from pathlib import Path\n"
        "spec = importlib.util.spec_from_file_location('records', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "r = module.Records(Path(sys.argv[2]))\n"
        "assert all(r.append('latency', {'who': sys.argv[3], 'i': i, 'pad': 'x' * 9000}) for i in range(100))\n"
    )
    source = ROOT / "convarium" / "costs" / "records.py"  # by its path: it needs no torch
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(source), str(file), who], cwd=ROOT) for who in "ab"
    ]
    assert [process.wait(60) for process in started] == [0, 0]
    records = Records(file)
    found = [(row["who"], row["i"]) for row in records.find("latency")]
    assert sorted(found) == sorted((who, i) for who in "ab" for i in range(100)) and records.notes == []


def test_the_cache_folder_is_the_one_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVARIUM_CACHE", str(tmp_path / "кэш"))
    assert Records().file == tmp_path / "кэш" / "measurements.jsonl"
    monkeypatch.delenv("CONVARIUM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Records().file == tmp_path / ".cache" / "convarium" / "measurements.jsonl"
