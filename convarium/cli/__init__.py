"""The command line: one file a verb; each parses, calls the library and prints.

Results go to standard output, progress and messages to standard error. Exit status: 0 done, 2 the user's mistake,
1 ours, 3 (`predict`) some pictures could not be read, 128 + n stopped by signal n.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from contextlib import suppress

import typer

from convarium.cli import (
    bench,
    chart,
    choose,
    compare,
    compare_runs,
    cost,
    demo,
    doctor,
    draw,
    evaluate,
    export,
    fit,
    formula,
    inspect,
    memory,
    pack,
    predict,
    rate,
    show,
    split,
    train,
    weights,
)
from convarium.cli import list as list_verb
from convarium.errors import ConvariumError, Interrupted

READERS = (
    "list",
    "show",
    "cost",
    "formula",
    "memory",
    "fit",
    "evaluate",
    "predict",
    "weights",
    "doctor",
    "compare-runs",
)
"""Verbs that only read: they end quietly when nobody reads their output any more, as Unix tools do."""

app = typer.Typer(
    name="convarium",
    help="Convolutional networks from LeNet-5 on: see them, train them on your pictures, judge and use them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list")(list_verb.run)
app.command("show")(show.run)
app.command("cost")(cost.run)
app.command("formula")(formula.run)
app.command("draw")(draw.run)
app.command("chart")(chart.run)
app.command("memory")(memory.run)
app.command("fit")(fit.run)
app.command("bench")(bench.run)
app.command("compare")(compare.run)
app.command("choose")(choose.run)
app.command("inspect")(inspect.run)
app.command("split")(split.run)
app.command("rate")(rate.run)
app.command("train")(train.run)
app.command("resume")(train.go_on)
app.command("evaluate")(evaluate.run)
app.command("compare-runs")(compare_runs.run)
app.command("predict")(predict.run)
app.command("weights")(weights.run)
app.command("doctor")(doctor.run)
app.command("export")(export.run)
app.command("pack")(pack.run)
app.command("demo")(demo.run)


@app.callback()
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
    if hasattr(signal, "SIGPIPE") and sys.argv[1:2] and sys.argv[1] in READERS:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        app()
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
        _say(f"error: the output cannot be written: {error.strerror}")
        os._exit(2)  # what is still buffered cannot be written either, and Python would complain
    except Exception:
        traceback.print_exc()
        _say("error: this is a fault of Convarium, not yours; please report it with the lines above")
        raise SystemExit(1) from None


def _say(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr, flush=True)
