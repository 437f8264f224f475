"""Texts to the token ids of CLIP: byte-pair encoding.

Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units", 2016, on bytes as in
Radford et al., "Language Models are Unsupervised Multitask Learners", 2019: a word is its UTF-8 bytes, and
the pair that stands first in a list of merges is joined again and again. The list is a file that OpenAI
published with CLIP (MIT licence); it is not part of this package. Equal, id for id, to open_clip's
tokenizer.

Damaged text ("Ã©" for "é"), curly quotes, ligatures and wide letters are repaired first, as CLIP was
trained, by ftfy. Plain ASCII never needs it, so ftfy is asked for only where a text does.
"""

from __future__ import annotations

import gzip
import html
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from convarium.errors import ArgumentError, CheckpointError, MissingExtra

CONTEXT = 77
VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
VOCABULARY_ADDRESS = f"https://github.com/openai/CLIP/raw/main/clip/{VOCABULARY_FILE}"
START, END = "<start_of_text>", "<end_of_text>"
MERGES = 49_152 - 256 - 2

# The special tokens, English endings, runs of letters and digits (split further below), runs of the rest.
_PIECES = re.compile(rf"{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d|[^\W_]+|(?:[^\w\s]|_)+", re.IGNORECASE)


def find_vocabulary() -> Path:
    """The vocabulary file: in the cache, or within an installed open_clip or clip.

    The cache is the folder `clip` in $CONVARIUM_CACHE, or in ~/.cache/convarium.

    Raises:
        CheckpointError: it is in none of these places.
    """
    cache = Path(os.environ.get("CONVARIUM_CACHE") or Path.home() / ".cache" / "convarium") / "clip"
    folders = [cache]
    for package in ("open_clip", "clip"):
        spec = find_spec(package)  # does not import it
        folders += [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        if (folder / VOCABULARY_FILE).is_file():
            return folder / VOCABULARY_FILE
    raise CheckpointError(
        f"CLIP's vocabulary is not on this machine; get {VOCABULARY_ADDRESS} and put it into {cache}, "
        "or give its path, or install open_clip_torch"
    )


class Tokenizer:
    """Texts to token ids and back.

    Args:
        vocabulary: the file of merges, gzipped; found by `find_vocabulary` where None.

    Raises:
        CheckpointError: there is no such file, or it is another.
    """

    def __init__(self, vocabulary: str | Path | None = None) -> None:
        path = find_vocabulary() if vocabulary is None else Path(vocabulary)
        merges = _read_merges(path)
        self.rank = {pair: rank for rank, pair in enumerate(merges)}
        letters = list(_byte_letters().values())
        units = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges), START, END]
        self.id_of = {unit: number for number, unit in enumerate(units)}
        self.unit_of = units
        self.start, self.end = self.id_of[START], self.id_of[END]
        self._word_ids = lru_cache(maxsize=65_536)(self._merge)

    def __call__(self, texts: str | Iterable[str], truncate: bool = False) -> Tensor:
        """The ids of texts between start and end, filled up with zeros.

        Args:
            texts: one text, or several.
            truncate: cut a text that is too long, keeping the end token; otherwise it is refused.

        Returns:
            (texts, 77), int64.

        Raises:
            ArgumentError: a text is too long, or not a text.
            MissingExtra: a text needs ftfy, which is not installed.
        """
        if not isinstance(texts, Iterable):
            raise ArgumentError(f"got {type(texts).__name__} {texts!r}; give a text or a list of texts")
        texts = [texts] if isinstance(texts, str) else list(texts)
        rows = torch.zeros(len(texts), CONTEXT, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = [self.start, *self.encode(text), self.end]
            if len(ids) > CONTEXT and not truncate:
                raise ArgumentError(
                    f"the text {_shortened(text)!r} has {len(ids) - 2} tokens; at most {CONTEXT - 2} fit. "
                    "Shorten it, or say truncate=True to cut its end"
                )
            if len(ids) > CONTEXT:
                ids = [*ids[: CONTEXT - 1], self.end]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def encode(self, text: str) -> list[int]:
        """The ids of one text of any length, without start and end.

        Raises:
            ArgumentError: it is not a text.
            MissingExtra: it needs ftfy, which is not installed.
        """
        if not isinstance(text, str):
            raise ArgumentError(f"got {type(text).__name__} {text!r}; texts must be strings")
        return [number for piece in pieces(clean(text)) for number in self._word_ids(piece)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, cleaned: lower case, a space after each word.

        Args:
            ids: from `encode`, or a row of a batch; start, end and what follows the end are left out.

        Raises:
            ArgumentError: a number that is no id.
        """
        units = []
        for number in map(int, ids):
            if not 0 <= number < len(self.unit_of):
                raise ArgumentError(f"{number} is no token id; they go from 0 to {len(self.unit_of) - 1}")
            if number == self.end:
                break
            if number != self.start:
                units.append(self.unit_of[number])
        byte_of = {letter: byte for byte, letter in _byte_letters().items()}
        words = "".join(units).split("</w>")
        return " ".join(bytes(byte_of[c] for c in word).decode("utf-8", "replace") for word in words).strip()

    def _merge(self, piece: str) -> tuple[int, ...]:
        if piece in (START, END):
            return (self.id_of[piece],)
        letters = _byte_letters()
        units = [letters[byte] for byte in piece.encode("utf-8")]
        units[-1] += "</w>"
        while len(units) > 1:
            best = min(zip(units, units[1:], strict=False), key=lambda pair: self.rank.get(pair, MERGES))
            if best not in self.rank:
                break
            units = _joined(units, best)
        return tuple(self.id_of[unit] for unit in units)


def clean(text: str) -> str:
    """Repaired, HTML entities resolved twice (as CLIP was trained), single spaces, lower case.

    Raises:
        MissingExtra: the text needs ftfy, which is not installed.
    """
    if not (text.isascii() and "&" not in text and all(c.isprintable() or c in " \t\r\n" for c in text)):
        text = _repair(text)
    return " ".join(html.unescape(html.unescape(text)).split()).lower()


def pieces(text: str) -> Iterator[str]:
    """What is encoded apart: endings such as 's, runs of letters, single digits, runs of all else but spaces.

    open_clip has the library regex do this; both agree on every character that this Python's Unicode tables
    know, but for U+0345, a combining mark that regex takes for a letter.

    Args:
        text: cleaned.

    Yields:
        The pieces in turn; spaces are between them and in none.
    """
    for piece in _PIECES.findall(text):
        if not piece[0].isalnum():
            yield piece
            continue
        for is_number, run in groupby(piece, key=lambda c: unicodedata.category(c)[0] == "N"):
            if is_number:
                yield from run
            else:
                yield "".join(run)


def _repair(text: str) -> str:
    try:
        import ftfy
    except ImportError as error:
        raise MissingExtra(
            f"the text {_shortened(text)!r} is not plain ASCII; reading it as CLIP does needs ftfy, "
            "which is not installed; install it: pip install ftfy"
        ) from error
    return ftfy.fix_text(text)


def _joined(units: list[str], pair: tuple[str, str]) -> list[str]:
    """The units with every occurrence of the pair made one, from the left."""
    result: list[str] = []
    position = 0
    while position < len(units):
        if tuple(units[position : position + 2]) == pair:
            result.append(pair[0] + pair[1])
            position += 2
        else:
            result.append(units[position])
            position += 1
    return result


def _read_merges(path: Path) -> list[tuple[str, str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")[1 : MERGES + 1]  # the first line is the version
    except FileNotFoundError as error:
        raise CheckpointError(f"no vocabulary at {path}; get it from {VOCABULARY_ADDRESS}") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); get it anew from {VOCABULARY_ADDRESS}"
        ) from error
    merges = [(first, second) for first, _, second in (line.partition(" ") for line in lines)]
    if len(merges) != MERGES or not all(first and second for first, second in merges):
        raise CheckpointError(f"{path} is not CLIP's vocabulary; get it from {VOCABULARY_ADDRESS}")
    return merges


@lru_cache(maxsize=1)
def _byte_letters() -> dict[int, str]:
    """A printable letter for each byte, in the order of the ids: its own, or one from 256 on."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
