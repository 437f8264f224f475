"""Figures of networks such as papers have, made from the code alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from convarium import storage
from convarium.costs.cost import cost
from convarium.draw.anatomy import OfIds, Part, Shape, anatomy, side_by_side
from convarium.draw.blocks import Kind, blocks, kinds
from convarium.draw.layout import Figure
from convarium.draw.overview import overview
from convarium.draw.palette import THEMES
from convarium.draw.sheet import Basis, basis_of, framed, ramp, stacked
from convarium.draw.stages import stages
from convarium.draw.units import outer
from convarium.draw.words import amount, form
from convarium.errors import ArgumentError, unknown_name
from convarium.net import Net

LEVELS = ("net", "stage", "block")
FORMATS = (".svg", ".png", ".pdf")


def figure(
    net: nn.Module,
    picture: Shape,
    title: str,
    level: str = "net",
    part: str | None = None,
    note: str = "",
) -> Figure:
    """A network as a figure.

    Args:
        net: any module that takes pictures; left as it was.
        picture: (channels, height, width).
        title: what it is called.
        level: "net", a row of maps; "stage", each stage in its blocks; "block", a block of each kind in its leaves.
        part: path of the only part to draw, at the levels "stage" and "block".
        note: a line under the title, as the paper.

    Returns:
        Boxes, arrows and texts, for `save`.

    Raises:
        UnknownName: no such level or part.
        ArgumentError: a part at the level "net", or one that is no stage at the level "stage".
    """
    return figure_of(read(net, picture), title, level, part, note)


def figure_of(whole: Part, title: str, level: str = "net", part: str | None = None, note: str = "") -> Figure:
    """A network that is read already as a figure; arguments as in `figure`."""
    basis, body = content(whole, title, level, part)
    below = [line for line in (note, facts(whole)) if line]
    return framed(body, title, below, ramp(basis), notes(whole, level, basis, body))


def check(level: str, part: str | None, theme: str, path: Path) -> None:
    """Refuse at once what `figure` and `save` would refuse after their work.

    Raises:
        UnknownName: no such level or theme.
        ArgumentError: a part at the level "net", or an ending that cannot be written.
    """
    if level not in LEVELS:
        raise unknown_name("level", level, LEVELS)
    if level == "net" and part:
        raise ArgumentError(f"part = {part!r} goes with the levels 'stage' and 'block', not with 'net'")
    if theme not in THEMES:
        raise unknown_name("theme", theme, THEMES)
    if path.is_dir():
        raise ArgumentError(f"{path} is a folder; give the name of a file in it, as {path / 'x.svg'}")
    if path.suffix.lower() not in FORMATS:
        raise ArgumentError(f"{path.name!r} must end in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ArgumentError(f"there is no folder {path.parent}; make it, or choose another one")


def read(net: nn.Module, picture: Shape) -> Part:
    """The network as a tree of parts with their costs; networks that it holds side by side as towers."""
    towers = {name: child for name, child in net.named_children() if isinstance(child, Net)}
    whole = anatomy(net, picture, cost(net, picture).rows)
    if len(towers) < 2:
        return _unwrapped(whole)
    called = {part.name: part for part in whole.parts}
    return side_by_side(net, {name: called.get(name) or _of_ids(name, net) for name, net in towers.items()})


def _unwrapped(whole: Part) -> Part:
    """What holds a single network is that network, whose paths begin with its own parts."""
    while len(whole.parts) == 1 and whole.parts[0].parts and whole.join == "calls":
        (inner,) = whole.parts
        whole = replace(inner.under(f"{inner.path}.", ""), path="", given=whole.given)
    return whole


def _of_ids(name: str, tower: Net) -> Part:
    """A tower that no picture runs through: it is given ids of tokens."""
    holder = OfIds(tower)
    picture = (1, 1, tower.size)
    part = anatomy(holder, picture, cost(holder, picture).rows).find("tower").under("tower", name)
    stem, *rest = part.parts
    return replace(part, given=(tower.size,), parts=(replace(stem, given=(tower.size,)), *rest))


def content(
    whole: Part, title: str, level: str, part: str | None = None, prefix: str = ""
) -> tuple[Basis, Figure]:
    """What a figure's shades are shares of, and the figure without its frame; arguments as in `figure`."""
    check(level, part, "auto", Path("x.svg"))
    if level == "block":
        if part:
            found = whole.find(part)
            return basis_of(found, part), blocks([Kind((found,), 1)], whole, prefix)
        return basis_of(whole, "the block"), blocks(kinds(whole), whole, prefix)
    basis = basis_of(whole, title)
    if whole.join != "towers" or part:
        return basis, _at(whole, basis, level, part, prefix)
    drawn = {tower.name: _at(tower, basis, level, None, f"{prefix}{tower.name}/") for tower in whole.parts}
    return basis, stacked(drawn)


def _at(net: Part, basis: Basis, level: str, part: str | None, prefix: str) -> Figure:
    """One network, or a tower of it, at the level "net" or "stage"."""
    if level == "net":
        return overview(net, basis, prefix)
    towers = net.parts if net.join == "towers" else (net,)
    found = [panel for tower in towers for panel in outer(tower)]
    if part:
        allowed = {below.path: (name, below) for name, below in found}
        if part not in allowed:
            raise unknown_name("stage", part, allowed)
        found = [allowed[part]]
    return stages(found, basis, prefix)


def facts(whole: Part) -> str:
    """Input, parameters and multiply-accumulates in a line."""
    if whole.join == "towers":
        return "; ".join(f"{tower.name}: {facts(tower)}" for tower in whole.parts)
    said = [f"input {form(whole.given)}", f"{amount(whole.parameters)} parameters"]
    if whole.macs is not None:
        said.append(f"{amount(whole.macs)} MACs")
    return " · ".join(said)


def notes(whole: Part, level: str, basis: Basis, body: Figure) -> list[str]:
    """What the figure's measures mean."""
    said = {
        "net": "A box is what its part puts out: its height grows with the square root of the side in pixels "
        "(T tokens count as a square), its width with that of the channels.",
        "stage": "× n: n blocks alike, drawn once, with the parameters and MACs of all. "
        "+ x: the input is added; |: branches that are concatenated; × gate: the channels are weighed.",
        "block": "One block of each kind. Plus: the two ways are added; times: one way weighs the other; concat: the "
        "channels of all ways, its strip in their proportion; a frame with × n: n parts alike.",
    }[level]
    found = [said]
    frames = {box.name.rpartition("/")[2] for box in body.boxes if box.role == "frame"}
    called = [
        part for part in whole.all if part.join == "calls" and (level != "block" or part.path in frames)
    ]
    foreign = sorted({part.kind for part in called})
    if foreign:
        names = ", ".join(foreign[:4]) + (", …" if len(foreign) > 4 else "")
        frame = " (a dashed frame)" if level == "block" else ""
        found.append(
            f"Inside {names}{frame} the order is that of the calls; how the parts are joined is not known."
        )
    if basis.macs is not None:
        found.append("MACs: multiply-accumulates of convolutions, linear layers and attention's products.")
    return found


def save(drawn: Figure, path: Path, theme: str = "auto") -> None:
    """Write a figure; the same bytes for the same figure.

    Args:
        drawn: from `figure`.
        path: ends in .svg, .png or .pdf; what is there is replaced.
        theme: "light", "dark" or "auto", which follows the reader's screen in SVG and is light in the others.

    Raises:
        ArgumentError: another ending.
        UnknownName: another theme.
        RunError: the file cannot be written.
    """
    check("net", None, theme, path)
    if path.suffix.lower() == ".svg":
        from convarium.draw.svg import svg

        storage.write_text(path, svg(drawn, theme))
    else:
        from convarium.draw import raster

        raster.save(drawn, path, "dark" if theme == "dark" else "light")
