"""ConvNeXt: equal to torchvision's, timm's and the authors' naming; layer scale, GRN, drop path."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from convarium.errors import ArgumentError
from convarium.models import convnext, create, names, variant, weights
from convarium.models.convnext import GlobalResponseNorm
from tests.reference import build, randomise

DEPTHS = (1, 2, 1, 1)


def build_reference(name: str) -> nn.Module:
    """The reference with few blocks, of the row's widths, every tensor drawn."""
    library, theirs = str(variant(name).reference).split(":")
    widths = variant(name).arguments["widths"]
    if library == "timm":
        return randomise(build(f"timm:{theirs}", depths=DEPTHS))
    ends = [*widths[1:], None]
    return randomise(ConvNeXt([CNBlockConfig(*row) for row in zip(widths, ends, DEPTHS, strict=True)]))


def loaded(name: str, theirs: nn.Module, **arguments) -> nn.Module:
    """Ours with tensors of its own."""
    with torch.device("meta"):
        ours = create(name, depths=DEPTHS, **arguments)
    library = str(variant(name).reference).split(":")[0]
    state = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    weights.fit(ours, weights.rename(state, variant(name).rules[library]))
    return ours


# Whole, test_models.py compares them only where it is asked to.
@pytest.mark.parametrize("name", [name for name in names("convnext*") if variant(name).parameters > 100e6])
def test_few_blocks_of_the_largest_give_the_outputs_of_the_reference(name):
    theirs = build_reference(name).eval()
    ours = loaded(name, theirs).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", ["convnext_atto", "convnext_tiny", "convnextv2_atto"])
def test_gradients_are_those_of_the_reference_in_training(name):
    theirs = build_reference(name).train()
    ours = loaded(name, theirs).train()
    x, target = torch.randn(3, 3, 64, 64), torch.tensor([1, 2, 3])
    for net in (ours, theirs):
        nn.functional.cross_entropy(net(x), target).backward()
    library = str(variant(name).reference).split(":")[0]
    grads = {n: p.grad for n, p in theirs.named_parameters()}
    expected = weights.rename(grads, variant(name).rules[library])
    for key, parameter in ours.named_parameters():
        scale = expected[key].abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-4, atol=1e-4 * scale, msg=key)


def as_authors(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state of ours under the authors' names, written out here apart from the rules."""
    parts = {"conv": "dwconv", "norm": "norm", "fc1": "pwconv1", "fc2": "pwconv2"}
    result = {}
    for name, value in state.items():
        words = name.split(".")
        if words[0] == "stem":
            new = f"downsample_layers.0.{('conv', 'norm').index(words[1])}.{words[2]}"
        elif words[0] == "head":
            new = name if words[1] == "fc" else f"norm.{words[2]}"
            new = new.replace("head.fc", "head")
        elif words[2] == "downsample":
            new = f"downsample_layers.{words[1]}.{('norm', 'conv').index(words[3])}.{words[4]}"
        else:
            place, part, kind = f"stages.{words[1]}.{words[3]}", words[5], words[6]
            if part == "scale":
                new = f"{place}.gamma"
            elif part == "grn":
                new = f"{place}.grn.{'gamma' if kind == 'weight' else 'beta'}"
                value = value.view(1, 1, 1, -1)
            else:
                new = f"{place}.{parts[part]}.{kind}"
        result[new] = value
    return result


@pytest.mark.parametrize("name", ["convnext_atto", "convnextv2_atto"])
def test_the_authors_names_fit(name):
    net = create(name)
    state = net.state_dict()
    renamed = weights.rename(as_authors(state), convnext.AUTHORS)
    assert weights.differences(net, renamed) == []
    assert all(torch.equal(renamed[key], state[key]) for key in state)


def test_global_response_norm_is_its_formula():
    norm = GlobalResponseNorm(6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 4, 5, 6)
    length = x.square().sum((1, 2), keepdim=True).sqrt()
    expected = norm.weight * (x * length / (length.mean(-1, keepdim=True) + 1e-6)) + norm.bias + x
    torch.testing.assert_close(norm(x), expected)


def test_a_fresh_second_version_has_no_layer_scale_and_grn_as_the_identity():
    net = create("convnextv2_atto")
    assert not any(isinstance(m, convnext.LayerScale) for m in net.modules())
    x = torch.randn(1, 3, 3, 160)
    assert torch.equal(net.part("stages.0.blocks.0.body.grn")(x), x)


def test_fresh_layer_scales_are_small():
    assert create("convnext_atto").state_dict()["stages.0.blocks.0.body.scale.weight"].unique().tolist() == [
        pytest.approx(1e-6)
    ]


def test_the_norm_stands_after_the_pool():
    parts = list(dict(create("convnext_atto").head.named_children()))
    assert parts == ["pool", "flatten", "norm", "fc"]


def test_drop_path_grows_over_all_stages_and_ends_at_the_rate():
    net = create("convnext_atto", drop_path=0.2)
    rates = [
        block.body["drop"].rate if "drop" in block.body._modules else 0.0
        for stage in net.stages
        for block in stage.blocks
    ]
    with torch.device("meta"):
        theirs = torchvision.models.convnext_tiny(stochastic_depth_prob=0.2)
    steps = [m.stochastic_depth.p for m in theirs.modules() if hasattr(m, "stochastic_depth")]
    assert rates == pytest.approx([0.2 * i / 11 for i in range(12)])
    assert steps == pytest.approx([0.2 * i / 17 for i in range(18)])


def test_drop_path_draws_as_the_reference_does():
    theirs = ConvNeXt([CNBlockConfig(8, None, 2)], stochastic_depth_prob=0.5, num_classes=3)
    randomise(theirs)
    ours = create("convnext_atto", depths=(2,), widths=(8,), drop_path=0.5, classes=3)
    rules = [(r"classifier", None), *convnext.TORCHVISION]
    weights.fit(ours, weights.rename(theirs.state_dict(), rules))
    x = torch.randn(16, 3, 32, 32)
    torch.manual_seed(5)
    expected = theirs(x)
    torch.manual_seed(5)
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rate", [1.0, -0.1])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ArgumentError, match="drop_path"):
        create("convnext_atto", drop_path=rate)


def test_depths_without_widths_are_refused():
    with pytest.raises(ArgumentError, match="3 depths and 4 widths"):
        create("convnext_atto", depths=(1, 1, 1))
