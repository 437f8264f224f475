"""Networks of other libraries to compare ours with, every tensor drawn so that no part is zero or an identity."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convarium.models import registry, variant, weights
from convarium.net import Net

# Drawn once and read from a random place on: a hundred million normal numbers would take a second each time.
POOL = torch.randn(2_000_003, generator=torch.Generator().manual_seed(84))


def build(reference: str, **arguments) -> nn.Module:
    """The network that a row names as its reference, as "torchvision:resnet18", without memory: see `randomise`."""
    library, name = reference.split(":")
    with torch.device("meta"):
        if library == "torchvision":
            import torchvision

            extra = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
            return torchvision.models.get_model(name, weights=None, **extra, **arguments)
        import timm

        return timm.create_model(name, pretrained=False, **arguments)


def randomise(net: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter and buffer, so that nothing that starts at zero or one hides an error.

    Weights are normal with variance 2 / fan-in; factors (of norms, layer scales, running variances) lie between
    0.5 and 1.5; biases and running means are normal with deviation 0.1; tokens and positions with 0.5.
    """
    if any(p.is_meta for p in net.parameters()):
        net.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if tensor.is_floating_point():
                last = name.rpartition(".")[2]
                factors = tensor.numel() == max(tensor.shape, default=1)
                if "bias" in last or last == "running_mean":
                    _fill(tensor, generator, 0.1)
                elif factors:
                    _fill(tensor, generator, 0.15)
                    tensor.clamp_(-0.5, 0.5).add_(1)
                elif "weight" in last:
                    _fill(tensor, generator, (2 / tensor[0].numel()) ** 0.5)
                else:
                    _fill(tensor, generator, 0.5)
            else:
                tensor.zero_()  # counters
    return net


def _fill(tensor: Tensor, generator: torch.Generator, deviation: float) -> None:
    flat, done = tensor.view(-1), 0
    at = int(torch.randint(len(POOL), (), generator=generator))
    while done < len(flat):
        piece = POOL[at : at + len(flat) - done]
        torch.mul(piece, deviation, out=flat[done : done + len(piece)])
        done, at = done + len(piece), 0


def sizes(name: str) -> tuple[int, dict[str, int], dict[str, int]]:
    """The smallest side that a row is compared at, and what ours and the reference must be told for it."""
    row = variant(name)
    side = min(row.least, row.size)
    if row.family != "vit":  # whose tensors depend on the size
        return side, {}, {}
    library = str(row.reference).split(":")[0]
    return side, {"size": side}, {"image_size" if library == "torchvision" else "img_size": side}


def fitted(theirs: nn.Module, name: str, **arguments) -> Net:
    """Our network, never initialised, with the tensors of theirs: shared, not copied, by the rules of the row."""
    row = variant(name)
    given = {"classes": row.classes, "in_channels": row.in_channels, "size": row.size, **arguments}
    ours = registry.build_empty({"name": name, "arguments": given})
    rules = row.rules[str(row.reference).split(":")[0]]
    weights.fit(ours, weights.rename(theirs.state_dict(), rules(ours) if callable(rules) else rules))
    return ours


def pair(name: str, **arguments) -> tuple[Net, nn.Module]:
    """Our network and its reference with the same random tensors, which each owns for itself."""
    theirs = randomise(build(str(variant(name).reference)))
    ours = fitted(theirs, name, **arguments)
    for tensor in [*ours.parameters(), *ours.buffers()]:
        tensor.data = tensor.data.clone()
    return ours, theirs
