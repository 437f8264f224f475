"""The table of docs/networks.md: every network, what it is compared with, and by how much they differ.

Outputs are compared on random weights at a small input (see tests/reference.py); parameters and multiply-accumulates
are counted without memory. MACs are torch's FlopCounterMode / 2: convolutions, linears and attention products.

    python -m benchmarks.proof > docs/networks.md        # some minutes; the largest need 8 GB
"""

from __future__ import annotations

import gc

import torch
from torch.utils.flop_counter import FlopCounterMode

from convarium.models import create, names, variant
from convarium.net import meta_call
from tests.reference import build, fitted, randomise, sizes

HEAD = f"""# Networks

Made by `python -m benchmarks.proof` with torch {torch.__version__.partition("+")[0]}; do not edit.

`difference` is the largest difference of two outputs with the same random weights, relative to the largest output;
0 means bit for bit. Where no library has the network, tests compare it with the tables of its paper. MACs: one
multiply-add counts as one; convolutions, linears and attention products; no bias, no norm. `published` is what the
source beside the row in the code states.

| network | year | reference | difference | parameters | MACs, G | published, G |
|---|---|---|---|---|---|---|"""


def main() -> None:
    """Print the page."""
    print(HEAD)
    for name in names():
        row = variant(name)
        with torch.device("meta"):
            net = create(name)
        parameters = sum(p.numel() for p in net.parameters())
        published = "" if row.macs is None else giga(row.macs)
        difference = "" if row.reference is None else f"{compare(name):.1e}".replace("0.0e+00", "0")
        print(
            f"| `{name}` | {row.year} | {row.reference or 'the paper'} | {difference} | {parameters:,} | "
            f"{giga(macs(net))} | {published} |",
            flush=True,
        )
        gc.collect()


def giga(number: float) -> str:
    """In thousand millions, with three decimals, and six for the smallest."""
    return f"{number / 1e9:.3f}" if number >= 1e8 else f"{number / 1e9:.6f}"


def macs(net: torch.nn.Module) -> int:
    """Multiply-accumulates of one picture, counted by torch on tensors without data."""
    with FlopCounterMode(display=False) as counter:
        meta_call(net, "forward", (1, net.in_channels, net.size, net.size))
    return counter.get_total_flops() // 2


def compare(name: str) -> float:
    """Largest difference between ours and the reference, relative to the largest output."""
    side, ours_to, theirs_to = sizes(name)
    theirs = randomise(build(str(variant(name).reference), **theirs_to)).eval()
    ours = fitted(theirs, name, **ours_to).eval()
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(x)
        return float((ours(x) - expected).abs().max() / expected.abs().max())


if __name__ == "__main__":
    main()
