"""The table of docs/networks.md: every network, what it is compared with, and by how much they differ.

Outputs are compared on random weights at a small input (see tests/reference.py), CLIP's two towers at their own size;
parameters and multiply-accumulates are counted without memory, by `convarium.costs`.

    python -m benchmarks.proof > docs/networks.md        # some minutes; the largest need 8 GB
"""

from __future__ import annotations

import gc
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from convarium.costs.cost import RULE, cost
from convarium.models import create, names, timm_results, variant
from convarium.models.published import CLIP_NAMES, available
from convarium.models.registry import Variant
from tests.reference import build, fitted, randomise, sizes

HEAD = f"""# Networks

Made by `python -m benchmarks.proof` with torch {torch.__version__.partition("+")[0]}; do not edit.

- reference: another library's network that computes the same. Where no library has it, tests compare it with the
  tables of its paper.
- error: the largest difference of two outputs with the same random weights, relative to the largest output; 0 means
  bit for bit. Of CLIP, the larger one of its two towers.
- parameters: ours are counted; published are those of torchvision's metadata (exact) or of timm's tables of results
  (to 10,000), by the name of the reference. torchvision leaves GoogLeNet's auxiliary classifiers out.
- MACs: ours are counted as `convarium cost` does ({RULE}; no bias, no norm), at the network's own input and of CLIP
  its picture tower; published are those of the source that `convarium show NAME` tells.

Where nothing is published, the field is empty.

| network | year | reference | error | parameters, ours | published | MACs, ours, G | published, G |
|---|---|---|---|---|---|---|---|"""


def main() -> None:
    """Print the page."""
    print(HEAD)
    for name in names():
        print(line(name), flush=True)
        gc.collect()


def line(name: str) -> str:
    """One network's row of the table."""
    row = variant(name)
    with torch.device("meta"):
        net = create(name)
    counted = cost(net, (net.in_channels, net.size, net.size))
    reference, error = compared(row)
    macs = "not counted" if counted.macs is None else giga(counted.macs)
    cells = [f"`{name}`", str(row.year), reference, error, f"{counted.params:,}", published(row), macs]
    return "| " + " | ".join([*cells, "" if row.macs is None else giga(row.macs)]) + " |"


def giga(number: float) -> str:
    """In thousand millions, with three decimals, and six for the smallest."""
    return f"{number / 1e9:.3f}" if number >= 1e8 else f"{number / 1e9:.6f}"


def published(row: Variant) -> str:
    """Parameters that the reference's library states for it; empty where it states none."""
    library, _, theirs = (row.reference or "").partition(":")
    if library == "torchvision":
        known = [w for w in available(row.name) if w.publisher == library and w.size == row.size]
        exact = {weights.parameters for weights in known}
        return " or ".join(f"{count:,}" for count in sorted(exact - {None}))  # type: ignore[type-var]
    results = timm_results.results().values() if library == "timm" else ()
    rounded = {result.parameters for result in results if result.model.partition(".")[0] == theirs}
    return " or ".join(f"{count / 1e6:.2f} M" for count in sorted(rounded))


def compared(row: Variant) -> tuple[str, str]:
    """The reference, and the largest relative error."""
    if row.name in CLIP_NAMES:
        reference = f"open_clip:{CLIP_NAMES[row.name][0]}"
        missing = find_spec("open_clip") is None
        return reference, "open_clip is not installed here" if missing else scientific(compare_clip(row.name))
    return (row.reference, scientific(compare(row.name))) if row.reference else ("the paper", "")


def scientific(error: float) -> str:
    """With one decimal; an exact nothing is 0."""
    return f"{error:.1e}" if error else "0"


def compare(name: str) -> float:
    """Largest difference between ours and the reference, relative to the largest output."""
    side, ours_to, theirs_to = sizes(name)
    theirs = randomise(build(str(variant(name).reference), **theirs_to)).eval()
    ours = fitted(theirs, name, **ours_to).eval()
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return difference(ours(x), theirs(x))


def compare_clip(name: str) -> float:
    """The same of CLIP: the larger difference of the two towers' features, against open_clip's."""
    import open_clip

    from convarium.models import clip, registry, weights

    settings: dict[str, Any] = open_clip.get_model_config(CLIP_NAMES[name][0])
    with torch.device("meta"):
        theirs: Any = open_clip.CLIP(**settings, quick_gelu=True)
    mask = theirs.attn_mask  # of which text token sees which: no part of the state, so not drawn
    randomise(theirs)
    theirs.attn_mask = torch.full(mask.shape, float("-inf")).triu(1)
    theirs.eval()
    ours: nn.Module = registry.build_empty(
        {"name": name, "arguments": {"classes": variant(name).classes, "in_channels": 3, "size": 224}}
    )
    weights.fit(ours, weights.rename(theirs.state_dict(), clip.openai(ours)))
    ours.eval()
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(1, 3, 224, 224, generator=generator)
    words = torch.randint(1, 49_406, (2, 77), generator=generator)
    words[:, 0], words[0, 9], words[0, 10:], words[1, -1] = 49_406, 49_407, 0, 49_407
    with torch.no_grad():
        return max(
            difference(ours.encode_image(pictures), theirs.encode_image(pictures)),  # type: ignore[operator]
            difference(ours.encode_text(words), theirs.encode_text(words)),  # type: ignore[operator]
        )


def difference(got: Tensor, expected: Tensor) -> float:
    """The largest, relative to the largest number expected."""
    return float((got - expected).abs().max() / expected.abs().max())


if __name__ == "__main__":
    main()
