"""The folder of a run: its settings, its records, its lock.

config.toml         what was asked for: enough to go on, or to do it again
metrics.jsonl       one record an epoch
split.csv           which picture was used for what (where pictures are files)
damaged.txt         pictures left out, with the reason
state/              what a killed run goes on from
model.safetensors   the classifier, once training is finished
evaluation.json     how it fared on the held-out pictures
answers.csv         what was said of each of them
predictions.png     some of them, with what they are and what they were said to be
report.html         the report
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tomli_w
from filelock import FileLock, Timeout

from convarium import storage
from convarium.errors import RunError
from convarium.training import checkpoint

WANTED: dict[str, type | tuple[type, ...]] = {
    **{
        "data": str,
        "classes": list,
        "fraction": float,
        "seed": int,
        "fit": str,
        "augment": str,
        "precision": str,
    },
    **{"minutes": (int, float), "architecture": dict, "recipe": dict},
}
"""What config.toml must say."""

ALLOWED: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("val", "cache", "weights", "weights_sha256"), str),
    **{
        "budget": (int, float),
        "preprocessing": dict,
        "fold": list,
        "workers": int,
        "tensorboard": bool,
        "deep": bool,
    },
}
"""What it may say besides."""


class RunFolder:
    """Where the files of one run lie.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_file = folder / "config.toml"
        self.metrics_file = folder / "metrics.jsonl"
        self.split_file = folder / "split.csv"
        self.damaged_file = folder / "damaged.txt"
        self.state = folder / "state" / "last.safetensors"
        self.model = folder / "model.safetensors"
        self.evaluation = folder / "evaluation.json"
        self.answers = folder / "answers.csv"
        self.grid = folder / "predictions.png"
        self.report = folder / "report.html"

    @contextmanager
    def held(self) -> Iterator[None]:
        """While inside, no other process trains in this folder; a killed process holds nothing.

        Raises:
            RunError: another process holds it, or the folder cannot be written.
        """
        storage.make_folder(self.folder)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunError(
                f"another process is training in {self.folder}; wait for it, or choose another --out"
            ) from error
        except OSError as error:
            raise RunError(
                f"cannot write in {self.folder}: {error.strerror}; choose another --out"
            ) from error
        try:
            self._sweep()
            yield
        finally:
            lock.release()

    def _sweep(self) -> None:
        """Remove what a process that was killed while it wrote has left; nobody else writes here now."""
        for folder in (self.folder, self.state.parent):
            for left in folder.glob(".*.tmp"):
                if re.fullmatch(r"\..+\.\d+\.tmp", left.name):
                    with suppress(OSError):
                        left.unlink()

    def start(self, config: dict[str, Any], needed: int) -> None:
        """Begin a new run here.

        Args:
            config: written to config.toml; entries that are None are left out.
            needed: bytes that the run will write, for a first look at the disk.

        Raises:
            RunError: there is a run already, or the disk is too full.
        """
        self.must_be_new()
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise RunError(
                f"the disk of {self.folder} has {free / 1e6:,.0f} MB free and the run will need about "
                f"{needed / 1e6:,.0f} MB; free some space, or choose another --out"
            )
        storage.make_folder(self.state.parent)
        storage.write_text(self.config_file, tomli_w.dumps(without_none(config)))

    def must_be_new(self) -> None:
        """Refuse a folder in which something was trained already.

        Raises:
            RunError: there is a run.
        """
        if self.state.exists() or self.model.exists():
            raise RunError(
                f"{self.folder} holds a run already; go on with `convarium resume {shlex.quote(str(self.folder))}`, "
                "or choose another --out"
            )

    def config(self) -> dict[str, Any]:
        """What config.toml says.

        Raises:
            RunError: there is no run here, or the file is damaged.
        """
        try:
            config = tomllib.loads(self.config_file.read_bytes().decode("utf-8", "surrogateescape"))
        except FileNotFoundError as error:
            raise RunError(f"no run at {self.folder}: it has no config.toml") from error
        except (OSError, ValueError) as error:
            raise RunError(f"{self.config_file} cannot be read ({error})") from error
        for name, kind in {**WANTED, **{n: k for n, k in ALLOWED.items() if n in config}}.items():
            fits = isinstance(config.get(name), kind)
            if name == "architecture" and fits:
                fits = {"name", "arguments"} <= config[name].keys() and isinstance(
                    config[name]["arguments"], dict
                )
            if name in ("minutes", "budget") and fits:
                fits = config[name] > 0
            if not fits:
                raise RunError(
                    f"{self.config_file} lacks a usable {name!r}; put it back as it was, or start a new run"
                )
        return config

    @property
    def finished(self) -> bool:
        """Whether training is done and everything is written."""
        written = all(path.exists() for path in (self.model, self.evaluation, self.report))
        return written and self.state.exists() and checkpoint.progress(self.state).finished

    def record(self, history: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl anew, so that it never disagrees with the state.

        Raises:
            RunError: the disk is full or read-only.
        """
        storage.write_text(self.metrics_file, "".join(json.dumps(record) + "\n" for record in history))

    def list_damaged(self, damaged: list[tuple[str, str]]) -> None:
        """Write damaged.txt, a file and its reason a line; without damaged files there is none."""
        if damaged:
            lines = (f"{_one_line(key)}\t{_one_line(reason)}\n" for key, reason in damaged)
            storage.write_text(self.damaged_file, "".join(lines))


def new_folder(parent: Path, name: str) -> Path:
    """Make the first folder of NAME-1, NAME-2, ... that is not there yet.

    Args:
        parent: where.
        name: what the run is about.

    Returns:
        The new folder.
    """
    storage.make_folder(parent)
    number = 1
    while True:
        folder = parent / f"{name}-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        except OSError as error:
            raise RunError(f"cannot make {folder}: {error.strerror}; choose a place with --out") from error
        else:
            return folder


def _one_line(text: str) -> str:
    """Line ends and tabs, which file names may hold, written out."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def without_none(value: Any) -> Any:
    """A value as TOML can tell it: entries of mappings that are None are left out, tuples are lists."""
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    return list(value) if isinstance(value, tuple) else value
