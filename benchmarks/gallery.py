"""docs/gallery.md and docs/gallery/*.svg: a figure of each family, and of its blocks.

python -m benchmarks.gallery        # about a minute
"""

from __future__ import annotations

from pathlib import Path

import typer
from typer.testing import CliRunner

from convarium.cli import draw
from convarium.models import names, variant

DOCS = Path(__file__).parents[1] / "docs"

HEAD = """# Gallery

Made by `python -m benchmarks.gallery`; do not edit. Each figure is made from the code alone by the command above it;
in a browser the pointer tells paths, shapes and costs. Dark screens get dark figures.
"""

# family: the network that stands for it, where that is not its first one
SHOWN = {
    "lenet": "lenet5",
    "alexnet": "alexnet_2012",
    "nin": "nin_imagenet",
    "vgg": "vgg16",
    "googlenet": "googlenet_2014",
    "resnet": "resnet50",
    "preact": "resnetv2_50",
    "densenet": "densenet121",
    "senet": "seresnet50",
    "vit": "vit_b_16",
    "clip": "clip_vit_b_32",
    "convnext": "convnext_tiny",
}

# Arguments and what is to be seen.
OPENED = {
    "resnet50 --level stage": "stages in their blocks: blocks alike are drawn once",
    "densenet121 --level stage": "each dense layer adds 32 maps to those that it is given",
    "googlenet_2014 --level stage": "nine Inception modules, no two alike",
}
BLOCKS = {
    "resnet50 --level block": "the bottleneck, with a projection and with the identity (figure 5 of the paper)",
    "googlenet_2014 --level block": "Inception, dimensions reduced (figure 2b)",
    "inception_v3 --level block": "five kinds of module (figures 5 to 7 and 10)",
    "seresnet50 --part stages.0.blocks.1": "squeeze and excitation: the gate acts before the sum (figure 3)",
    "mobilenet_v2 --level block": "inverted residuals: narrow ends, a wide middle (figure 4d)",
    "densenet121 --level block": "what is new is put beside what was given (figure 1)",
    "squeezenet1_0 --level block": "Fire: squeeze, then expand twice (figure 1)",
    "convnext_tiny --level block": "depthwise first, norm and activation once (figure 4)",
    "vit_b_16 --level block": "the transformer's encoder (figure 1)",
}
DIFFERENCES = {
    "resnet50 --diff resnext50_32x4d --level block": "the same cost, spent in 32 groups",
    "resnet50 --diff seresnet50 --level block": "the gate is all that is new",
    "mobilenet_v2 --diff mobilenet_v3_large": "fewer stages, a head that pools earlier",
}

app = typer.Typer()
app.command()(draw.run)


def main() -> None:
    """Write the figures and the page."""
    folder = DOCS / "gallery"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    families = {variant(name).family: name for name in reversed(names())} | SHOWN
    order = dict.fromkeys(variant(name).family for name in names())
    whole = {families[family]: variant(families[family]).paper for family in order if family != "linear"}
    page = [HEAD]
    for title, figures in (
        ("Networks", whole),
        ("Stages", OPENED),
        ("Blocks", BLOCKS),
        ("Differences", DIFFERENCES),
    ):
        page.append(f"## {title}\n")
        page += [shown(arguments, caption, folder) for arguments, caption in figures.items()]
    (DOCS / "gallery.md").write_text("\n".join(page), encoding="utf-8", newline="\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{len(list(folder.iterdir()))} figures, {size / 1e3:.0f} kB")


def shown(arguments: str, caption: str, folder: Path) -> str:
    """Draw one figure; what the page says of it."""
    file = "-".join(word.strip("-") for word in arguments.split()) + ".svg"
    done = CliRunner().invoke(app, [*arguments.split(), "-o", str(folder / file)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    name = arguments.split()[0]
    return f"### {name}\n\n{caption}\n\n`convarium draw {arguments}`\n\n![{name}](gallery/{file})\n"


if __name__ == "__main__":
    main()
