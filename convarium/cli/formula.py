"""convarium formula: the lectures' formulas, worked with the user's numbers."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import typer

# Options that are called otherwise than in code.
_WORDS = {"in_channels": "in", "out_channels": "out", "n_byte": "bytes"}


def run(
    name: str = typer.Argument(None, help="Of the formula, as conv; all are listed without it."),
    in_channels: str = typer.Option(None, "--in", help="Channels or features in."),
    out_channels: str = typer.Option(None, "--out", help="Channels or features out."),
    kernel: str = typer.Option(None, help="Sides of the kernel, as 3 or 1x7; of layers in turn, as 7,3,3."),
    size: str = typer.Option(None, help="Sides of the input in pixels, as 224 or 224x320."),
    stride: str = typer.Option(None, help="Step in pixels; of layers in turn, as 2,2,1."),
    padding: str = typer.Option(None, help="Pixels on each side."),
    dilation: str = typer.Option(None, help="Distance of the kernel's points."),
    groups: str = typer.Option(None, help="Groups of channels that do not see each other."),
    ceil: bool = typer.Option(None, "--ceil/--floor", help="Whether windows that are not whole count."),
    bias: bool = typer.Option(None, "--bias/--no-bias", help="Whether each output has one."),
    tokens: str = typer.Option(None, help="Tokens of a sample."),
    width: str = typer.Option(None, help="Channels of a token, or inside a bottleneck."),
    n_byte: str = typer.Option(None, "--bytes", help="Bytes of a number, 4 in float32."),
    layers: str = typer.Option(None, help="Number of layers."),
    reduction: str = typer.Option(None, help="How many times fewer channels a gate has inside."),
    parameters: str = typer.Option(None, help="Of the network."),
    activations: str = typer.Option(None, help="Elements of all feature maps of one picture."),
    batch: str = typer.Option(None, help="Pictures at once."),
    states: str = typer.Option(None, help="Numbers that the optimizer keeps a parameter: 0, 1 or 2."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a line: one for each result."),
) -> None:
    """Print a formula of the lectures, the numbers put in, and the result."""
    given = {k: v for k, v in locals().items() if k not in ("name", "as_json") and v is not None}
    from convarium.costs.worked import EXAMPLES
    from convarium.errors import ArgumentError, unknown_name

    if name is None:
        if given:
            raise ArgumentError("which formula? `convarium formula` lists them")
        _list(EXAMPLES, as_json)
        return
    if name not in EXAMPLES:
        raise unknown_name("formula", name, EXAMPLES, "(`convarium formula` lists all)")
    example = EXAMPLES[name]
    takes = inspect.signature(example).parameters
    for argument in given:
        if argument not in takes:
            allowed = ", ".join(map(_option, takes))
            raise ArgumentError(f"formula {name} takes no {_option(argument)}; it takes {allowed}")
    lines = example(**{key: _value(key, text, str(takes[key].annotation)) for key, text in given.items()})
    if as_json:
        for line in lines:
            print(json.dumps(vars(line)))
        return
    title, _, default = (example.__doc__ or "").splitlines()[0].partition(" (default: ")
    print(f"{title} (default: {default}" if default and not given else f"{title.rstrip('.')}.")
    for line in lines:
        value = f"{line.value:,}" if isinstance(line.value, int) else f"{line.value:.4g}"
        lead = " " * (len(line.name) + 2)
        print(
            f"\n  {line.name} = {line.formula}\n{lead} = {line.numbers}\n{lead} = {value} {line.unit}".rstrip()
        )
    source = re.search(r"Source: (.*?)\.?$", " ".join((example.__doc__ or "").split()))
    if source:
        print(f"\nsource: {source[1]}")
    print(f"\nevery number can be given, by\n{', '.join(map(_option, takes))}")


def _list(examples: dict[str, Any], as_json: bool) -> None:
    for name, example in examples.items():
        title = (example.__doc__ or "").splitlines()[0].partition(" (default")[0].rstrip(".")
        takes = list(map(_option, inspect.signature(example).parameters))
        if as_json:
            print(json.dumps({"name": name, "title": title, "options": takes}))
        else:
            print(f"{name:<11} {title}")
    if not as_json:
        print(
            "\n`convarium formula NAME` shows one with the numbers of a known network; give your own by its options"
        )


def _option(argument: str) -> str:
    word = _WORDS.get(argument, argument)
    return f"--{word}"


def _value(argument: str, text: str | bool, kind: str) -> Any:
    """What an option says, as the example wants it: one number, two sides, or one number a layer."""
    from convarium.errors import ArgumentError

    if isinstance(text, bool):
        return text
    form, split, words = r"\d+", "", "a whole number, as 3"
    if "Sequence" in kind:
        form, split, words = r"\d+(,\d+)*", ",", "whole numbers, one a layer, as 7,3,3"
    elif "Sides" in kind:
        form, split, words = r"\d+(x\d+)?", "x", "one or two sides, as 3 or 1x7"
    least = 0 if argument in ("padding", "states", "parameters", "activations") else 1
    plain = text.replace("_", "").replace(" ", "")
    if not re.fullmatch(form, plain) or any(int(n) < least for n in re.findall(r"\d+", plain)):
        raise ArgumentError(f"{_option(argument)} {text}; it must be {words}, {least} at least")
    numbers = [int(n) for n in re.findall(r"\d+", plain)]
    return numbers if split == "," else tuple(numbers) if len(numbers) == 2 else numbers[0]
