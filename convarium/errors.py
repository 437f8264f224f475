"""Everything that Convarium raises on purpose.

    ConvariumError
    ├── UserError                 the user's mistake or surroundings: exit status 2
    │   ├── UnknownName           no such network, recipe or class (also a LookupError)
    │   ├── ArgumentError         a value that is not allowed (also a ValueError)
    │   ├── DataError             a data set that cannot be used
    │   │   └── PictureError      one picture that cannot be read
    │   ├── CheckpointError       a file of weights that cannot be used
    │   │   └── WeightsMismatch   its tensors do not fit the network
    │   ├── RunError              a run folder that cannot be used, a full disk
    │   └── MissingExtra          an optional library is not installed (also an ImportError)
    └── Interrupted               stopped by a signal, state saved: exit status 128 + signal

A message says what was got, what is allowed, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConvariumError(Exception):
    """Base of all errors raised on purpose."""


class UserError(ConvariumError):
    """Something only the user can mend."""


class UnknownName(UserError, LookupError):
    """A name that is not in its list."""


class ArgumentError(UserError, ValueError):
    """A value that is not allowed."""


class DataError(UserError):
    """A data set that cannot be used."""


class PictureError(DataError):
    """One picture that cannot be read."""


class CheckpointError(UserError):
    """A file of weights that cannot be used."""


class WeightsMismatch(CheckpointError):
    """Tensors that do not fit the network."""


class RunError(UserError):
    """A run folder that cannot be used."""


class MissingExtra(UserError, ImportError):
    """An optional library is not installed."""


class Interrupted(ConvariumError):
    """Stopped by a signal after the state was saved."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def unknown_name(kind: str, got: str, allowed: Iterable[str], hint: str = "") -> UnknownName:
    """The error for a name that is not in its list, with the nearest names.

    Args:
        kind: what is named, as in "network".
        got: the name asked for.
        allowed: all names that exist.
        hint: what to do to see them all.

    Returns:
        An `UnknownName`, to be raised by the caller.
    """
    allowed = sorted(allowed)
    near = difflib.get_close_matches(got, allowed, n=3, cutoff=0.6)
    if near:
        choice = "did you mean " + " or ".join(near) + "?"
    elif len(allowed) <= 12:
        choice = "there are: " + ", ".join(allowed)
    else:
        choice = f"there are {len(allowed)} of them"
    return UnknownName(f"no {kind} is called {got!r}; {choice}" + (f" {hint}" if hint else ""))
