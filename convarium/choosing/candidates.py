"""Networks with published accuracy that one could take: ours and timm's, each with its best weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from convarium.costs.choose import Option
from convarium.errors import unknown_name
from convarium.models import front, names, published, timm_results
from convarium.models.published import Published
from convarium.models.registry import Variant, variant


@dataclass(frozen=True)
class Source:
    """How a network that can be chosen is built.

    Args:
        option: its figures.
        weights: the published weights.
        arguments: the network's own, which the weights ask for.
    """

    option: Option
    weights: Published
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The network with fresh weights, in evaluation mode; torch's random numbers stay as they were."""
        with torch.random.fork_rng(devices=[]):
            return front.create(self.option.title, size=self.option.size, **self.arguments).eval()


def candidates(patterns: Sequence[str] = (), timm: bool = True) -> list[Source]:
    """Networks with weights for ImageNet-1k whose accuracy their publisher tells.

    Of several weights of one network at one size the most accurate stand for it.

    Args:
        patterns: shell-style names, as "resnet*" or "timm:vit*"; all where empty.
        timm: also networks that only timm has.

    Returns:
        The networks, ours first.

    Raises:
        UnknownName: a pattern that no network with published accuracy matches.
    """
    found = [*_ours(), *(_timms() if timm or any(p.startswith("timm:") for p in patterns) else ())]
    titles = {source.option.title for source in found}
    for pattern in patterns:
        if not fnmatch.filter(titles, pattern.lower()):
            raise unknown_name("network with published accuracy", pattern, titles)
    wanted = {t for p in patterns for t in fnmatch.filter(titles, p.lower())} if patterns else titles
    return [source for source in found if source.option.title in wanted]


def best(name: str) -> Source | None:
    """A network with its most accurate weights at its usual size; None where no accuracy is published.

    Args:
        name: one of ours, or "timm:NAME" or "torchvision:NAME".
    """
    known = [p for p in published.available(name) if _usable(p)]
    if not known:
        return None
    row = variant(name) if ":" not in name else front.variant(name)
    return max((_source(row, p) for p in known), key=lambda s: s.option.top1)


def _ours() -> Iterator[Source]:
    for name in names():
        row = variant(name)
        yield from _most_accurate(_source(row, p) for p in published.available(name) if _usable(p))


def _timms() -> Iterator[Source]:
    from timm.models import get_pretrained_cfg

    covered = {p.model for name in names() for p in published.available(name) if p.publisher == "timm"}
    rows: list[Source] = []
    for (model, size), result in timm_results.results().items():
        network = model.partition(".")[0]
        configuration = get_pretrained_cfg(model)
        if network in covered or configuration is None or configuration.num_classes != 1000:
            continue
        if configuration.input_size[-1] != size:
            continue
        known = published.of_timm(network, configuration)
        option = Option(
            title=f"timm:{network}",
            weights=known.reference,
            top1=result.top1,
            parameters=result.parameters,
            macs=result.macs,
            size=size,
            source=timm_results.SOURCE,
            licence=known.licence,
        )
        rows.append(Source(option, known))
    yield from _most_accurate(rows)


def _usable(known: Published) -> bool:
    return known.top1 is not None and known.classes == 1000


def _source(row: Variant, known: Published) -> Source:
    result = timm_results.results().get((f"{known.model}.{known.tag}", known.size))
    if result and known.publisher == "timm":
        macs, source = result.macs, timm_results.SOURCE
    else:
        macs, source = _macs(row, known), f"{known.publisher}'s metadata"
    option = Option(
        title=row.name,
        weights=known.reference,
        top1=float(known.top1 or 0),
        parameters=row.parameters,
        macs=macs,
        size=known.size,
        source=source,
        licence=known.licence,
    )
    return Source(option, known, known.arguments)


def _macs(row: Variant, known: Published) -> float:
    """As published for the row where it is for this size, else counted."""
    if row.macs is not None and row.size == known.size:
        return row.macs
    from convarium.costs.cost import cost

    with torch.device("meta"):
        net = front.create(row.name, size=known.size, **known.arguments)
    return float(cost(net, (3, known.size, known.size)).macs or 0)


def _most_accurate(sources: Iterable[Source]) -> list[Source]:
    """One for each network, size and arguments: that of the greatest accuracy, the first of equals."""
    kept: dict[tuple[Any, ...], Source] = {}
    for source in sources:
        key = (source.option.title, source.option.size, tuple(sorted(source.arguments.items())))
        if key not in kept or source.option.top1 > kept[key].option.top1:
            kept[key] = source
    return list(kept.values())
