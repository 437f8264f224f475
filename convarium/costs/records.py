"""Measurements are kept: one file of JSON lines in the user's cache folder, to which many processes may append."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from convarium.storage import cache_folder

PATIENCE = 5.0  # seconds to wait for another process that writes


class Records:
    """The file of measurements.

    Nothing here raises: a measurement is worth printing also where it cannot be kept.

    Args:
        file: the file; `measurements.jsonl` in $CONVARIUM_CACHE, or in ~/.cache/convarium, where None.

    Attributes:
        notes: what a user should be told, each said once: that records are not kept, or that lines were damaged.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or cache_folder() / "measurements.jsonl"
        self.notes: list[str] = []

    def append(self, kind: str, fields: Mapping[str, Any]) -> bool:
        """Add one record in one step.

        Args:
            kind: of the record, as "latency".
            fields: what JSON can hold.

        Returns:
            Whether it is kept; if not, `notes` says why.
        """
        line = json.dumps({"kind": kind, **fields}, allow_nan=False).encode() + b"\n"
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.file}.lock", timeout=PATIENCE):
                self._write(line)
        except Timeout:
            self._note(f"measurements are not kept: another process holds {self.file}.lock")
        except (OSError, NotImplementedError) as error:
            self._note(
                f"measurements are not kept: {self.file} cannot be written "
                f"({getattr(error, 'strerror', None) or error}); set CONVARIUM_CACHE to a folder that can"
            )
        else:
            return True
        return False

    def find(self, kind: str, **wanted: Any) -> list[dict[str, Any]]:
        """All records of a kind whose fields have these values, the oldest first; lists equal tuples.

        Args:
            kind: of the records.
            wanted: names and values of fields.

        Returns:
            The records without their kind.
        """
        asked = {name: list(value) if isinstance(value, tuple) else value for name, value in wanted.items()}
        return [
            row
            for row in self._rows()
            if row.pop("kind") == kind and all(name in row and row[name] == v for name, v in asked.items())
        ]

    def latest(self, kind: str, **wanted: Any) -> tuple[dict[str, Any], float] | None:
        """The newest record of a kind whose fields have these values.

        Args:
            kind: of the record.
            wanted: names and values of fields.

        Returns:
            The record and its age in days; None where there is none.
        """
        dated = [(moment, row) for row in self.find(kind, **wanted) if (moment := _moment(row)) is not None]
        if not dated:
            return None
        moment, row = max(dated, key=lambda pair: pair[0])
        return row, max(0.0, (datetime.now(UTC) - moment).total_seconds() / 86_400)

    def _write(self, line: bytes) -> None:
        handle = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(handle).st_size
            if size:
                os.lseek(handle, size - 1, os.SEEK_SET)
                if os.read(handle, 1) != b"\n":  # a process was killed while it wrote: its line stays alone
                    line = b"\n" + line
            if os.write(handle, line) != len(line):  # the disk is full: take back what was written
                os.truncate(handle, size)
                raise OSError("the disk is full")
        finally:
            os.close(handle)

    def _rows(self) -> list[dict[str, Any]]:
        try:
            lines = self.file.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            self._note(f"earlier measurements are not used: {self.file} cannot be read ({error.strerror})")
            return []
        rows, damaged = [], []
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError:  # not JSON, or not UTF-8
                row = None
            if isinstance(row, dict) and "kind" in row:
                rows.append(row)
            elif line.strip():
                damaged.append(number)
        if damaged:
            which = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
            self._note(f"{len(damaged)} damaged line(s) of {self.file} were skipped: {which}")
        return rows

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _moment(row: Mapping[str, Any]) -> datetime | None:
    """When a record was made; None where it does not say so."""
    try:
        found = datetime.fromisoformat(row["date"])
    except (KeyError, TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
