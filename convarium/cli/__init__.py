"""The command line: one file a verb; each parses, calls the library and prints.

Results go to standard output, progress and messages to standard error. Exit status: 0 done, 2 the user's mistake,
1 ours, 3 (`predict`, `features`) some pictures could not be read, 128 + n stopped by signal n.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import typer

from convarium.errors import ConvariumError, Interrupted

_app = typer.Typer(
    name="convarium",
    help="Convolutional networks from LeNet-5 on: see them, train them on your pictures, judge and use them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS = {
    "list": "list.run",
    "show": "show.run",
    "cost": "cost.run",
    "formula": "formula.run",
    "draw": "draw.run",
    "chart": "chart.run",
    "memory": "memory.run",
    "fit": "fit.run",
    "bench": "bench.run",
    "compare": "compare.run",
    "choose": "choose.run",
    "inspect": "inspect.run",
    "split": "split.run",
    "rate": "rate.run",
    "train": "train.run",
    "resume": "train.go_on",
    "evaluate": "evaluate.run",
    "compare-runs": "compare_runs.run",
    "predict": "predict.run",
    "features": "features.run",
    "engines": "engines.run",
    "weights": "weights.run",
    "doctor": "doctor.run",
    "export": "export.run",
    "quantise": "quantise.run",
    "pack": "pack.run",
    "demo": "demo.run",
}
"""Each verb, in the order of `--help`, and the function in its file."""


def _register(asked: Sequence[str]) -> None:
    """Declare the verb that is asked for, or all of them: reading every verb's options takes a tenth of a second."""
    verb = next((word for word in asked if not word.startswith("-")), None)
    for name in [verb] if verb in VERBS else VERBS:
        file, function = VERBS[name].split(".")
        _app.command(name)(getattr(importlib.import_module(f"convarium.cli.{file}"), function))


def __getattr__(name: str) -> typer.Typer:
    if name != "app":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    _register(())
    return _app


@_app.callback()
def _global(
    version: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True),
) -> None:
    if version:
        from convarium import __version__

        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; never shows a traceback for the user's own mistake."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as when the caller closed it
            # A name that the terminal cannot show must not end a run.
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        _register(sys.argv[1:])
        try:
            _app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except Interrupted as error:
        _say(str(error))
        raise SystemExit(128 + error.signal) from None
    except KeyboardInterrupt:
        _say("stopped")
        raise SystemExit(130) from None
    except ConvariumError as error:
        _say(f"error: {error}")
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EPIPE) or error.filename:
            raise
        if error.errno == errno.EPIPE:
            # Quietly, as Unix tools end when nobody reads on; but never by the signal, which would also end a run
            # whose helper process, as a compiler's, has gone.
            os._exit(1)
        _say(f"error: the output cannot be written: {error.strerror}")
        os._exit(2)  # what is still buffered cannot be written either, and Python would complain
    except Exception:
        traceback.print_exc()
        _say("error: this is a fault of Convarium, not yours; please report it with the lines above")
        raise SystemExit(1) from None


def _say(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr, flush=True)
