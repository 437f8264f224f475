"""Pictures that are the same: byte for byte, or saved again in another size, quality, format or brightness.

Near-duplicates are found in two steps, so that not every pair needs to be compared:

1. A 64-bit hash of each thumbnail: the signs of its 64 lowest cosine frequencies without the mean (after
   Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010). Pairs that differ
   in at most `BITS` bits are candidates. They are found exactly: of four bands of 16 bits, at least one
   differs in at most one bit (Norouzi et al., "Fast search in Hamming space with multi-index hashing", 2012).
2. A candidate is a near-duplicate where the two thumbnails correlate by at least `ALIKE`.

Mirrored, turned and strongly cut copies are not found. Nor are blank pictures, which are all alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.fft import dctn

BITS = 7
"""Most bits of 64 by which the hashes of two near-duplicates differ; the search is exact up to 7."""

ALIKE = 0.95
"""Least correlation of the thumbnails of two near-duplicates."""

FLAT = 3.0
"""Thumbnails whose standard deviation is below this many of 255 levels show too little to be compared."""

_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Group:
    """Pictures that belong together.

    Args:
        kind: "identical": the same bytes; "near": each looks like one of them; "chain": each looks
            like its neighbour, but the ends do not look like each other (frames of a film, or drawings that are
            all alike by nature).
        members: at least two indices, rising.
    """

    kind: str
    members: tuple[int, ...]


def find_duplicates(digests: Sequence[bytes | None], thumbs: np.ndarray) -> list[Group]:
    """Group the pictures that are the same.

    Args:
        digests: content hash of each picture; None leaves it out.
        thumbs: uint8 (N, side, side), grey.

    Returns:
        Identical pictures first, then near-duplicates and chains; a group of these holds at least two
        different files, with all their identical copies. Each kind is in the order of its first members.
    """
    same: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        if digest is not None:
            same[digest].append(index)
    firsts = np.array([members[0] for members in same.values()], np.int64)
    copies = {members[0]: members for members in same.values()}
    groups = [Group("identical", tuple(members)) for members in same.values() if len(members) > 1]
    flat = firsts[:0] if not len(firsts) else firsts[_deviation(thumbs, firsts) < FLAT]
    kept = np.setdiff1d(firsts, flat)
    pairs = kept[near_pairs(thumbs[kept])]
    near, links = [], np.bincount(pairs.ravel(), minlength=len(thumbs))
    for linked in connected(pairs.tolist()):
        kind = "chain" if _is_chain(thumbs, np.array(linked), links) else "near"
        near.append(Group(kind, tuple(sorted(copy for first in linked for copy in copies[first]))))
    return groups + sorted(near, key=lambda group: (group.kind == "chain", group.members))


def hashes(thumbs: np.ndarray) -> np.ndarray:
    """The 64-bit hash of each thumbnail, as uint64 (N,).

    Args:
        thumbs: uint8 (N, side, side), side at least 11.
    """
    side = thumbs.shape[1]
    down, right = np.mgrid[:side, :side]
    # From low to high frequencies, the mean left out; the bits go round the four bands,
    # so that no band has only the lowest ones, which many pictures share.
    order = np.lexsort((down.ravel(), (down + right).ravel()))[1:65].reshape(16, 4).T.ravel()
    found = np.empty(len(thumbs), np.uint64)
    for first in range(0, len(thumbs), 4096):
        some = slice(first, first + 4096)
        waves = dctn(thumbs[some].astype(np.float32), axes=(1, 2)).reshape(-1, side * side)
        found[some] = np.frombuffer(np.packbits(waves[:, order] > 0, axis=1).tobytes(), "<u8")
    return found


def near_pairs(thumbs: np.ndarray) -> np.ndarray:
    """Pairs of near-duplicates; of many pictures with one hash, each is paired with the first one only.

    Args:
        thumbs: uint8 (N, side, side), grey, none flat.

    Returns:
        Indices (pairs, 2), the smaller first, sorted, each pair once.
    """
    if len(thumbs) < 2:
        return np.empty((0, 2), np.int64)
    codes, first, group = np.unique(hashes(thumbs), return_index=True, return_inverse=True)
    others = np.setdiff1d(np.arange(len(thumbs)), first)
    found = [_alike(thumbs, np.stack((first[group[others]], others), 1))]
    for left, right in _candidates(codes):
        close = np.bitwise_count(codes[left] ^ codes[right]) <= BITS
        found.append(_alike(thumbs, np.stack((first[left[close]], first[right[close]]), 1)))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def connected(pairs: Sequence[Sequence[int]]) -> list[list[int]]:
    """The sets that pairs join, each sorted, in the order of their first members."""
    leader: dict[int, int] = {}

    def lead(index: int) -> int:
        leader.setdefault(index, index)
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for one, other in pairs:
        low, high = sorted((lead(one), lead(other)))
        leader[high] = low
    sets: dict[int, list[int]] = defaultdict(list)
    for index in sorted(leader):
        sets[lead(index)].append(index)
    return list(sets.values())


def _candidates(codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of different codes of which one band of 16 bits differs in at most one bit, some at a time."""
    for band in range(4):
        values = ((codes >> np.uint64(16 * band)) & np.uint64(0xFFFF)).astype(np.int64)
        order = np.argsort(values, kind="stable")
        ranked = values[order]
        for mask in (0, *(1 << bit for bit in range(16))):
            # Each pair once: within a value by rank, between two values from the smaller one.
            start = np.searchsorted(ranked, ranked ^ mask, "left")
            if not mask:
                start = np.arange(1, len(ranked) + 1)
            length = np.searchsorted(ranked, ranked ^ mask, "right") - start
            length[(ranked ^ mask) < ranked] = 0
            ends = np.cumsum(length)
            cut = 0
            while cut < len(ranked):
                done = ends[cut - 1] if cut else 0
                stop = max(cut + 1, int(np.searchsorted(ends, done + _AT_ONCE, "right")))
                some = length[cut:stop]
                left = np.repeat(np.arange(cut, stop), some)
                step = np.arange(len(left)) - np.repeat(np.cumsum(some) - some, some)
                if len(left):
                    yield order[left], order[start[left] + step]
                cut = stop


def _alike(thumbs: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Those of some pairs whose thumbnails correlate by `ALIKE` or more."""
    kept = [pairs[:0]]
    for first in range(0, len(pairs), 4096):
        some = pairs[first : first + 4096]
        kept.append(some[_correlation(thumbs[some[:, 0]], thumbs[some[:, 1]]) >= ALIKE])
    return np.concatenate(kept)


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's r of each thumbnail (N, side, side) with its partner, or with the only one of `one`."""
    a, b = (t.reshape(len(t), -1).astype(np.float32) for t in (one, other))
    a -= a.mean(1, keepdims=True)
    b -= b.mean(1, keepdims=True)
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-9)


def _deviation(thumbs: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Standard deviation of some thumbnails, in levels of 255."""
    parts = np.array_split(indices, len(indices) // 4096 + 1)
    return np.concatenate([thumbs[part].std((1, 2), dtype=np.float32) for part in parts])


def _is_chain(thumbs: np.ndarray, linked: np.ndarray, links: np.ndarray) -> bool:
    """Whether fewer than half of some linked pictures look like the one that has the most links."""
    middle = linked[links[linked].argmax()]
    alike = _correlation(thumbs[[middle]], thumbs[linked]) >= ALIKE
    return bool(alike.mean() < 0.5)
