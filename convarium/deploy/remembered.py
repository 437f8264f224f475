"""Which way to run a classifier was found the fastest here, and the files with which it starts at once; without torch.

    CACHE/engines/<content of the model's file>/verdicts.json    what was measured
                                                model.onnx       for OpenVINO and ONNX Runtime
                                                openvino-*.blob  compiled

What was measured belongs to the versions of what computes and to this processor; another's is as if it were absent,
and so is what is damaged.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from convarium import storage
from convarium.deploy import processor, runtimes
from convarium.errors import CheckpointError, ConvariumError, RunError

MODEL = "model.onnx"
TORCH = 3.5
"""Seconds that a process takes until torch can compute; what runs without it is that much earlier."""

OPENS = 0.7
"""Seconds until OpenVINO or ONNX Runtime can compute, with the compiled form kept."""

GROWN = 4
"""A job so many times larger than any that was decided for is measured anew: slower set-ups may pay now."""

MODES = {"auto": ("float32", "bfloat16", "float16"), "exact": ("float32",)}
"""Numbers that a way may compute with; any other mode is the name of a way."""

_FORMAT = 1
_VERDICTS = "verdicts.json"
_SETUPS = "setups.json"
_PATIENCE = 10.0  # seconds to wait for another process that writes


@dataclass(frozen=True)
class Remembered:
    """The way that would be done first with a job, by what was measured before.

    Args:
        name: of the way.
        row: what was measured: "images_per_second", "batch", "numbers", "flips", "when", "versions" and others.
        folder: where its files lie.
        compiled: OpenVINO's compiled form; None where there is none.
    """

    name: str
    row: dict[str, Any]
    folder: Path
    compiled: bytes | None = None

    @property
    def needs_torch(self) -> bool:
        """Whether it cannot be opened from here; then choosing takes it by its name."""
        return self.row["library"] == "torch"

    def open(self) -> runtimes.Ready:
        """The way, ready to run.

        Raises:
            CheckpointError: its files are gone or damaged, or it needs torch.
            MissingExtra: its library is not installed any more.
        """
        numbers, batch, threads = self.row["numbers"], self.row["batch"], self.row["threads"]
        if self.needs_torch:
            raise CheckpointError(
                f"{self.name} runs in torch; load the classifier and choose its engine by this name"
            )
        if self.compiled is not None:
            with suppress(CheckpointError):
                return runtimes.imported(self.compiled, numbers, batch, threads)
        model = self.folder / MODEL
        if not whole(model):
            raise CheckpointError(f"{model} is gone or damaged; run `convarium engines` on the model again")
        if self.row["library"] == "openvino":
            ready = runtimes.openvino(model, numbers, batch, threads, self.folder)
            ready.keep()  # or each start would compile it again; where it cannot be kept, it runs all the same
            return ready
        return runtimes.onnxruntime(model, batch, threads)


def find(model_file: Path, mode: str = "auto", count: int = 1, batch: int | None = None) -> Remembered | None:
    """The way that is done first with a job, of those measured before.

    Args:
        model_file: of the classifier, or the folder of its run; found again by its content.
        mode: "auto", "exact" or the name of a way.
        count: pictures of the job.
        batch: as many at once; what is soonest done where None.

    Returns:
        The way, "plain" or another one of torch included; None where nothing is known, or not enough for so large
        a job.
    """
    folder = folder_of(model_file)
    if folder is None or not (folder / _VERDICTS).is_file():
        return None
    content = _read(folder / _VERDICTS)
    decided = content.get("decided", {})
    if mode in MODES and count > GROWN * max(decided.get(_decision(name), 0) for name in (mode, "auto")):
        return None
    rows = [row for row in content.get("rows", []) if _fits(row, mode) and batch in (None, row["batch"])]
    for row in sorted(rows, key=lambda row: seconds(row, count)):
        compiled = None
        if row["library"] == "openvino":
            compiled = runtimes.blob(folder, row["numbers"], row["batch"], row["threads"])
        if row["library"] == "torch" or compiled is not None or whole(folder / MODEL):
            return Remembered(row["name"], row, folder, compiled)
    return None


def seconds(row: Mapping[str, Any], count: int) -> float:
    """What a job would take in a new process, from start to last answer.

    Args:
        row: what was measured.
        count: pictures.
    """
    start = TORCH + row["setup"] if row["library"] == "torch" else OPENS
    fixed = row["library"] == "openvino" or row["name"].startswith("compile")
    computed = math.ceil(count / row["batch"]) * row["batch"] if fixed else count
    return float(start + computed / row["images_per_second"])


def known(model_file: Path, batch: int, device: str = "cpu") -> dict[str, dict[str, Any]]:
    """Everything that was measured here before, also what was refused, by the names of the ways.

    Args:
        model_file: of the classifier, or the folder of its run.
        batch: pictures at once.
        device: where the classifier lies: "cpu", "cuda", ...
    """
    folder = folder_of(model_file)
    rows = _read(folder / _VERDICTS).get("rows", []) if folder else []
    asked = (batch, device)
    return {row["name"]: row for row in rows if _here(row) and (row["batch"], row["device"]) == asked}


def remember(
    model_file: Path,
    mode: str,
    rows: Sequence[Mapping[str, Any]],
    count: float = 1e12,
    device: str = "cpu",
) -> str:
    """Keep what was measured, in the place of what was known of the same ways.

    Args:
        model_file: of the classifier, or the folder of its run.
        mode: in which it was measured.
        rows: of a table, those that were run; "name", "library", "numbers", "batch", "threads", "agrees" and
            "images_per_second" are needed.
        count: pictures of the job for which was decided; without, everything was tried.
        device: where the classifier lay: "cpu", "cuda", ...

    Returns:
        Why it could not be kept; empty where it is.
    """
    folder = folder_of(model_file)
    if folder is None:
        return f"{model_file} cannot be read"
    made = {
        "machine": processor.fingerprint(),
        "versions": processor.versions(),
        "allowed": processor.threads(),
        "device": device,
    }
    new = [{**row, **made} for row in rows]
    try:
        storage.make_folder(folder, storage.ELSEWHERE)
        with _alone(folder):
            content = _read(folder / _VERDICTS)
            replaced = {_key(row) for row in new}
            old = [row for row in content.get("rows", []) if _key(row) not in replaced]
            # Those of other versions will never be true again; those of other machines may share the folder.
            old = [
                row for row in old if row["machine"] != made["machine"] or row["versions"] == made["versions"]
            ]
            decided = dict(content.get("decided", {})) if old else {}
            here = _decision(mode)
            decided[here] = max(count, decided.get(here, 0))
            _write(folder / _VERDICTS, {"decided": decided, "rows": [*old, *new]})
    except (ConvariumError, OSError, NotImplementedError, Timeout) as error:
        return f"what was measured is not kept for the next time: {error}"
    return ""


def forget(model_file: Path) -> bool:
    """Remove all that is kept for a model.

    Args:
        model_file: of the classifier, or the folder of its run.

    Returns:
        Whether there was anything.

    Raises:
        RunError: it cannot be removed.
    """
    import shutil

    folder = folder_of(model_file)
    if folder is None or not folder.is_dir():
        return False
    shutil.rmtree(folder, ignore_errors=True)
    if folder.is_dir():
        raise RunError(f"{folder} cannot be removed; set CONVARIUM_CACHE to a folder that can be written")
    return True


def folder_of(model_file: Path) -> Path | None:
    """Where the files for a model lie, by its content; None where it cannot be read.

    Args:
        model_file: of the classifier, or the folder of its run.
    """
    path = Path(model_file)
    digest = storage.sha256(path / "model.safetensors" if path.is_dir() else path)
    return storage.cache_folder() / "engines" / digest[:32] if digest else None


def expected(name: str, default: float) -> float:
    """Seconds that a way takes to be set up, as last measured on this machine.

    Args:
        name: of the way.
        default: where it has not been measured.
    """
    found = _read(storage.cache_folder() / "engines" / _SETUPS).get(processor.fingerprint(), {}).get(name)
    return float(found) if found else default


def note_setups(measured: Mapping[str, float]) -> None:
    """Keep what setting up took, by names of ways; where the disk cannot be written it is left.

    Args:
        measured: seconds.
    """
    path = storage.cache_folder() / "engines" / _SETUPS
    with suppress(ConvariumError, OSError, NotImplementedError, Timeout):
        storage.make_folder(path.parent, storage.ELSEWHERE)
        with _alone(path.parent):
            content = _read(path)
            here = processor.fingerprint()
            content[here] = {**content.get(here, {}), **measured}
            _write(path, content)


def whole(path: Path) -> bool:
    """Whether a file is as it was when it was sealed, by this version.

    Args:
        path: the file.
    """
    try:
        told = _seal(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return told == _sealed(path)


def seal(path: Path) -> None:
    """Write down beside a file what it holds.

    Args:
        path: the file.
    """
    storage.write_text(_seal(path), _sealed(path))


def _seal(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _sealed(path: Path) -> str:
    """Of the content, and of the versions that wrote it: they decide how a network is written."""
    made = {name: processor.versions()[name] for name in ("convarium", "torch")}
    return f"{storage.sha256(path)} {json.dumps(made, sort_keys=True)}\n"


def _fits(row: Mapping[str, Any], mode: str) -> bool:
    """Whether a row is of here and now, agreed, and may be taken in a mode."""
    allowed = row["numbers"] in MODES[mode] if mode in MODES else row["name"] == mode
    return bool(_here(row) and row["agrees"] and row["images_per_second"] and allowed)


def _here(row: Mapping[str, Any]) -> bool:
    same = row["machine"] == processor.fingerprint() and row["versions"] == processor.versions()
    return bool(same and row["allowed"] == processor.threads())


def _decision(mode: str) -> str:
    """What was decided holds for a mode on this processor, with as many threads."""
    return f"{mode}, {processor.threads()} threads, {processor.fingerprint()}"


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("name", "batch", "device", "allowed", "machine"))


_NEEDED = {"name", "library", "numbers", "batch", "threads", "agrees", "images_per_second", "setup"}


def _read(path: Path) -> dict[str, Any]:
    """The content of a file of ours; nothing where it is absent, damaged or of another format."""
    try:
        told = json.loads(path.read_text("utf-8"))
        content = told["content"]
        if told["format"] != _FORMAT or told["sha256"] != _checksum(content):
            return {}
        if not all(
            row.keys() >= {*_NEEDED, "machine", "versions", "allowed", "device"}
            for row in content.get("rows", [])
        ):
            return {}
        return dict(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    told = {"format": _FORMAT, "sha256": _checksum(content), "content": content}
    storage.write_text(path, json.dumps(told, ensure_ascii=False, indent=1) + "\n")


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process writes in the folder meanwhile."""
    with FileLock(folder / ".lock", timeout=_PATIENCE):
        yield
