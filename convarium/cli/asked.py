"""What is asked of a trained model on the command line: pictures from wherever they come, and what answers for them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convarium.answering import Answering
    from convarium.classifier import Classifier
    from convarium.data.ahead import Source

UNREADABLE = 3  # exit status when a picture could not be read


def told_by(model: str) -> dict[str, Any]:
    """What a classifier, a run or an export says of itself.

    Raises:
        ConvariumError: it is none of these, with the reason.
    """
    from convarium.deploy import quick

    told = quick.described(Path(model))
    if told is None:
        from convarium.classifier import load

        clf = load(model)  # says what is wrong with it
        return {"classes": clf.classes, "preprocessing": clf.preprocessing.to_dict()}
    return told


def trained(model: str) -> tuple[Classifier, Path, dict[str, Any]]:
    """A classifier on the processor, its file, and what files made from it tell besides.

    Args:
        model: the .safetensors file of a classifier, or the folder of a run.
    """
    from convarium import storage
    from convarium.classifier import load

    clf = load(model, device="cpu")
    source = Path(model, "model.safetensors") if Path(model).is_dir() else Path(model)
    known = {"temperature": clf.temperature, "threshold": clf.threshold}
    return clf, source, {**known, "weights_sha256": storage.sha256(source)}


def answering(model: str, engine: str, sources: Sequence[Source], batch: int | None = None) -> Answering:
    """What answers: without torch where a way is remembered that needs none, and otherwise the classifier.

    Args:
        model: the .safetensors file of a classifier, the folder of a run, or that of an export.
        engine: "auto", "exact", "plain" or the name of a way.
        sources: the pictures that will be asked for.
        batch: as many at once; chosen by their number where None.
    """
    from convarium.deploy import quick

    found = quick.open(model, engine, len(sources), batch)
    if found is not None:
        return found
    from convarium.classifier import load

    clf = load(model)
    for note in clf.hasten(sources, engine, Path(model), batch):
        print(f"note: {note}", file=sys.stderr)
    return clf


def named(source: Source) -> str:
    """The path of a picture; nothing where it came as pixels."""
    return source if isinstance(source, str) else ""


def sources(asked: list[str], deep: bool) -> list[Source]:
    """Everything asked for, in its order, before any of it is answered; standard input in its place.

    Names are kept as text: a million paths would take five times as much.
    """
    from convarium.data.folders import list_pictures
    from convarium.errors import ArgumentError

    found: list[Source] = []
    for item in asked:
        if not item:
            raise ArgumentError("a name of a picture is empty; name a file, a folder or a pattern")
        if item == "-" and deep:
            raise ArgumentError(
                "a picture on standard input is read in 8 bits, and this model takes more; give it as a file"
            )
        found.extend(_standard_input() if item == "-" else map(os.fspath, list_pictures([item], deep)))
    return found


def _standard_input() -> list[Source]:
    """The picture, or the pictures that are named there, one a line or ended by NUL."""
    from convarium.data.decode import decode
    from convarium.errors import DataError, PictureError

    if sys.stdin is None:
        raise DataError("standard input is closed; give files, folders or patterns")
    content = sys.stdin.buffer.read()
    if not content.strip():
        raise DataError(
            "nothing came on standard input; it must be one picture, or names of pictures, one a line"
        )
    try:
        return [decode(content)]
    except PictureError as error:
        by_nul = content.rstrip(b"\n").endswith(b"\0")
        if by_nul:  # as `find -print0` writes them: a name may then hold the end of a line
            names, odd = content.rstrip(b"\n").split(b"\0"), rb"[\x01-\x08\x0b\x0c\x0e-\x1f]"
        else:
            names, odd = [line.strip(b"\r") for line in content.split(b"\n")], rb"[\x00-\x1f]"
        if any(re.search(odd, name) for name in names):
            raise DataError(
                f"what came on standard input is neither a picture ({error}) nor names of pictures"
            ) from error
        return [str(Path(os.fsdecode(name))) for name in names if name]
