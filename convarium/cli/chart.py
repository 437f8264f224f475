"""convarium chart: figures of the field's history and of networks, as pictures and as tables."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from convarium.costs.cost import Cost, Part
    from convarium.costs.field import Field
    from convarium.draw.plot_accuracy import Point
    from convarium.draw.plot_layers import Depth, Layer
    from convarium.models.published import Published

KINDS = ("accuracy", "history", "layers", "field")


def run(
    kind: str = typer.Argument(help="accuracy, history, layers or field."),
    names: list[str] = typer.Argument(
        None,
        help="Networks: for accuracy patterns, as 'resnet*' or 'torchvision:*' (all of ours by default); for "
        "layers one, for field several names, files or runs.",
    ),
    out: Path = typer.Option(
        None,
        "-o",
        "--out",
        help="Picture: .svg, .png or .pdf; by default KIND.svg, here, if --csv is not given.",
    ),
    csv: str = typer.Option(
        None, "--csv", help="Write the figures and their sources as a table; - to print it."
    ),
    title: str = typer.Option(None, help="Another title than the chart's own."),
    theme: str = typer.Option("light", help="light or dark."),
    all_weights: bool = typer.Option(
        False,
        "--all-weights",
        help="accuracy: a point for every published set of weights, not one a network.",
    ),
    size: int = typer.Option(None, help="layers and field: side of the input in pixels.", min=1),
) -> None:
    """Draw accuracy against operations, the winners of ImageNet's challenge, layers or receptive fields."""
    from convarium import storage
    from convarium.draw import plots
    from convarium.draw.plot_layers import field, layers
    from convarium.draw.plot_theme import image, theme_of
    from convarium.errors import ArgumentError, unknown_name

    names = names or []
    if kind not in KINDS:
        raise unknown_name("kind of chart", kind, KINDS)
    if all_weights and kind != "accuracy":
        raise ArgumentError(f"--all-weights is for accuracy, not for {kind}")
    if size and kind not in ("layers", "field"):
        raise ArgumentError(f"--size is for layers and field, not for {kind}")
    theme_of(theme)
    if out is None and csv is None:
        out = Path(f"{kind}.svg")
    form = _writable(out, "-o")[1:] if out else ""
    if csv not in (None, "-"):
        _writable(Path(csv), "--csv")
    if kind == "accuracy":
        from convarium.draw.plot_accuracy import accuracy

        rows: Sequence[Any] = _points(names or ["*"], all_weights)
        chart = accuracy(rows, theme, title) if out else None
    elif kind == "history":
        from convarium.draw.history import WINNERS

        if names:
            raise ArgumentError(f"history takes no names, but got {', '.join(names)}")
        rows = WINNERS
        chart = plots.history(rows, theme, title) if out else None
    elif kind == "layers":
        if len(names) != 1:
            raise ArgumentError(f"layers takes one network, but got {', '.join(names) or 'none'}")
        rows, footer = _layers(names[0], size)
        chart = layers(names[0], rows, footer, theme, title) if out else None
    else:
        if not names:
            raise ArgumentError(
                "field takes at least one network, as in `convarium chart field vgg16 resnet50`"
            )
        rows, footer = _depths(names, size)
        chart = field(rows, footer, theme, title) if out else None
    if csv == "-":
        print(plots.table(rows), end="")
    elif csv:
        storage.write_text(Path(csv), plots.table(rows))
        print(csv)
    if chart and out:
        content = image(chart, form)
        storage.write(out, lambda path: path.write_bytes(content))
        for note in chart.notes:
            print(note, file=sys.stderr)
        print(out, file=sys.stderr if csv == "-" else sys.stdout)


def _writable(path: Path, option: str) -> str:
    """The ending of a file that can be written; the disk is looked at before anything is computed."""
    from convarium.draw.plot_theme import FORMATS
    from convarium.errors import ArgumentError

    ending = path.suffix.lower()
    if option == "-o" and ending[1:] not in FORMATS:
        endings = ", ".join(f".{form}" for form in FORMATS)
        raise ArgumentError(f"{option} {path}: a picture's name must end in one of {endings}")
    if path.is_dir():
        raise ArgumentError(f"{option} {path} is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise ArgumentError(f"{option} {path}: there is no folder {path.parent}; make it, or choose another")
    return ending


def _points(patterns: Sequence[str], all_weights: bool) -> list[Point]:
    """Networks with an accuracy on ImageNet-1k that somebody published, in the order asked for.

    Raises:
        UnknownName: a pattern fits no network.
        ArgumentError: none of them has such a figure.
    """
    from convarium.errors import ArgumentError

    found: dict[tuple[str, str], Point] = {}
    without: list[str] = []
    for name in dict.fromkeys(name for pattern in patterns for name in _matching(pattern)):
        points = list(_of_network(name, all_weights))
        found.update({(point.name, point.weights): point for point in points})
        if not points:
            without.append(name)
    if not found:
        raise ArgumentError(
            f"no accuracy on ImageNet-1k is known for {_some(without)}; `convarium list --sort top1` shows ours, "
            "`convarium weights NAME` what publishers tell"
        )
    if without:
        print(f"left out, no accuracy on ImageNet-1k is known: {_some(without)}", file=sys.stderr)
    return list(found.values())


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _matching(pattern: str) -> list[str]:
    import fnmatch

    from convarium.errors import unknown_name
    from convarium.models import foreign, names

    if foreign.is_foreign(pattern.lower()):
        library = pattern.lower().partition(":")[0]
        known = foreign.names(library)
        found = [name for name in known if fnmatch.fnmatchcase(name, pattern.lower())]
        hint = f"(`convarium list '{library}:*'` shows all)"
    else:
        found, known, hint = names(pattern), names(), "(`convarium list` shows all)"
    if not found:
        raise unknown_name("network", pattern, known, hint)
    return found


def _of_network(name: str, all_weights: bool) -> Iterator[Point]:
    """The points of one network: its row's published figure, or one for each set of weights."""
    from convarium.draw.plot_accuracy import Point
    from convarium.models import foreign, published, variant

    if foreign.is_foreign(name) or all_weights:
        sets = [
            known
            for known in published.available(name)
            if known.publisher in foreign.LIBRARIES and known.top1 is not None and known.classes == 1000
        ]
        best = {_default(sets)} if sets else set()
        yield from (_of_weights(name, known) for known in sets if all_weights or known.reference in best)
        if sets or foreign.is_foreign(name):
            return
    row = variant(name)
    if row.top1 is None or row.classes != 1000:
        return
    named = re.search(r"torchvision.*(IMAGENET1K_\w+)", row.source)
    yield Point(
        name=name,
        family=_family(row.family),
        macs=round(row.macs) if row.macs else _counted(name),
        parameters=row.parameters,
        top1_percent=row.top1,
        weights=f"torchvision {named[1]}" if named else "",
        source=row.source,
        macs_source="published" if row.macs else "counted by Convarium",
    )


def _of_weights(name: str, known: Published) -> Point:
    """A point for a library's weights, with the operations that it tells for the size of their input."""
    from torchvision.models import get_model_builder, get_model_weights

    from convarium.draw.plot_accuracy import Point
    from convarium.models import foreign, timm_results, variant

    if known.publisher == "timm":
        result = timm_results.results()[f"{known.model}.{known.tag}", known.size]
        macs, parameters, source = result.macs, result.parameters, timm_results.SOURCE
        module = re.sub(r"v?\d+[a-z]*$", "", known.model.partition("_")[0])
    else:
        meta = get_model_weights(known.model)[known.tag].meta
        macs, parameters = meta["_ops"] * 1e9, meta["num_params"]
        source = f"torchvision's metadata of {known.model}, {known.tag}; recipe: {known.about or 'not told'}"
        module = get_model_builder(known.model).__module__.rpartition(".")[2]
    return Point(
        name=name,
        family=_family(module if foreign.is_foreign(name) else variant(name).family),
        macs=round(macs),
        parameters=round(parameters),
        top1_percent=float(known.top1 or 0),
        weights=f"{known.publisher} {known.tag}",
        source=source,
        macs_source="published",
    )


def _default(sets: Sequence[Published]) -> str:
    """The set of weights that torchvision holds for the best; without one, the most accurate."""
    from torchvision.models import get_model_weights

    held = [known.model for known in sets if known.publisher == "torchvision"]
    if held:
        return f"torchvision:{get_model_weights(held[0]).DEFAULT.name}"
    return max(sets, key=lambda known: known.top1 or 0).reference


def _family(file: str) -> str:
    """One name for the versions of a family: "mobilenet" for mobilenet_v1 and mobilenetv2."""
    return {"vision_transformer": "vit", "swin_transformer": "swin"}.get(file, re.sub(r"_?v?\d+$", "", file))


def _cost(name: str, size: int | None) -> Cost:
    from convarium.cli.subject import subject
    from convarium.costs.cost import cost

    found = subject(name, size=size)
    return cost(found.net, found.picture)


def _counted(name: str) -> int:
    """Operations as Convarium counts them, where nobody published any."""
    return _cost(name, None).macs or 0


def _own(rows: Sequence[Part]) -> Iterator[tuple[Part, int, int]]:
    """Every part with the parameters and operations that it has beside those of the parts below it."""
    below: dict[str, list[Part]] = {}
    for part in rows[1:]:
        below.setdefault(part.path.rpartition(".")[0], []).append(part)
    for part in rows:
        inside = below.get(part.path, [])
        params = part.params - sum(child.params for child in inside)
        macs = (part.macs or 0) - sum(child.macs or 0 for child in inside)
        yield part, max(params, 0), max(macs, 0)  # below 0 where parts share a tensor


def _kind(part: Part) -> str:
    """A layer in few words: a convolution by its kernel and channels, others by their class."""
    kernel = re.search(r"kernel_size=\((\d+), (\d+)\)", part.detail)
    if kernel and part.shape:
        return f"{kernel[1]}x{kernel[2]}, {part.shape[0]}"
    return part.kind


def _layers(name: str, size: int | None) -> tuple[list[Layer], str]:
    """All parts of a network with parameters or operations of their own, and how they were counted."""
    from convarium.costs.cost import RULE
    from convarium.draw.plot_layers import Layer
    from convarium.errors import ArgumentError

    cost = _cost(name, size)
    rows = [
        Layer(
            path=_path(part),
            stage=_stage(_path(part)),
            kind=_kind(part),
            shape=" x ".join(map(str, part.shape or ())),
            parameters=params,
            macs=macs,
        )
        for part, params, macs in _own(cost.rows)
        if params or macs
    ]
    if not rows:
        raise ArgumentError(f"{name} has no layer with weights to show")
    told = [f"Input {_by(cost.picture)}", RULE, *cost.notes]
    return rows, " ".join(f"{text[:1].upper()}{text[1:].rstrip('.')}." for text in told)


def _path(part: Part) -> str:
    """Where a part is; what wraps another library's network is left out."""
    return part.path.removeprefix("net.")


def _stage(path: str) -> str:
    """ "stages.0" of "stages.0.blocks.1.conv", "features.3" of "features.3", "layer1" of "layer1.0.conv1"."""
    first, _, rest = path.partition(".")
    number = rest.partition(".")[0]
    return (
        f"{first}.{number}"
        if first in ("stages", "features", "blocks", "layers") and number.isdigit()
        else first
    )


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _plane(part: Part) -> bool:
    """Whether a part gives a plane or tokens; the inside of a gate is pooled to one place that sees everything."""
    shape = part.shape or ()
    field = part.fields and part.fields.without_gates
    return len(shape) > 1 and not (shape[1:] == (1, 1) and field and field.whole)


def _depths(names: Sequence[str], size: int | None) -> tuple[list[Depth], str]:
    """The receptive fields of the layers that give planes or tokens, network by network."""
    from convarium.costs.fold import several
    from convarium.draw.plot_layers import Depth
    from convarium.errors import ArgumentError

    rows: list[Depth] = []
    left_out: list[str] = []
    for name in dict.fromkeys(names):
        cost = _cost(name, size)
        layers = [(part, macs) for part, _, macs in _own(cost.rows) if (macs or part.leaf) and _plane(part)]
        unknown = [_path(part) for part, macs in layers if macs and _field(part) is None]
        if _field_of_last(cost) is None:
            raise ArgumentError(_no_field(name, cost, unknown, sum(bool(macs) for _, macs in layers)))
        if unknown:
            left_out.append(f"left out, no field is known: {several(unknown)} of {name}.")
        planes = [
            (_path(part), _kind(part), field, bool(macs) or not part.leaf)
            for part, macs in layers
            if (field := _field(part)) is not None
        ]
        last = max((place for place, plane in enumerate(planes) if plane[3]), default=-1)
        seen = [plane[:3] for plane in planes if plane[3]]
        pools = [plane[:3] for plane in planes[last + 1 :] if not plane[2].whole]
        if seen and pools and not seen[-1][2].whole and pools[-1][2].size != seen[-1][2].size:
            seen.append(
                pools[-1]
            )  # what stands between the last layer and the classifier, as VGG's fifth pool
        found = [
            Depth(name, number, path, kind, *field.size, max(cost.picture[1:]))
            for number, (path, kind, field) in enumerate(seen, start=1)
        ]
        rows += found
    return rows, " ".join(
        (
            "Padding included; the largest field up to each layer. Gates that are pooled over the whole plane "
            "(squeeze-and-excitation) are left out: the field of the convolutions alone. all: the whole picture, "
            "whatever its size. The last point is the last plane before the classifier.",
            *(text[0].upper() + text[1:] for text in left_out),
        )
    )


def _field(part: Part) -> Field | None:
    """What a layer sees, gates left out; None where it is not known."""
    return part.fields.without_gates if part.fields else None


def _field_of_last(cost: Cost) -> Field | None:
    """What the last plane sees."""
    return cost.receptive_field.without_gates if cost.receptive_field else None


def _no_field(name: str, cost: Cost, unknown: Sequence[str], layers: int) -> str:
    """Why a network's growth of fields cannot be drawn, and which parts it is."""
    from convarium.costs.cost import NO_FIELD
    from convarium.costs.fold import several

    why = next((note.removeprefix(NO_FIELD) for note in cost.notes if note.startswith(NO_FIELD)), None)
    which = f", nor that of {len(unknown)} of its {layers} layers ({several(unknown)})" if unknown else ""
    return f"{name}: the receptive field of its last plane is not known{which}: {why or cost.notes[0]}"
