"""Vision transformers: equal to torchvision's and timm's, tokens, positions at other sizes."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn
from torchvision.models import VisionTransformer

from convarium.errors import ArgumentError
from convarium.models import create, names, variant, vit, weights
from convarium.models.token_parts import SelfAttention, even_rates, resample


def randomise(net: nn.Module) -> nn.Module:
    """Draw every tensor, so that no zero bias, class token or classifier hides an error."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            scale = max(parameter[0].numel(), 1) ** -0.5 if parameter.ndim > 1 else 0.1
            parameter.normal_(1.0 if name.endswith("norm.weight") else 0.0, scale)
    return net


def build_reference(name: str, size: int, depth: int) -> nn.Module:
    """The reference at a small size and depth, of the row's width."""
    row = variant(name)
    library, theirs = str(row.reference).split(":")
    if library == "timm":
        return randomise(timm.create_model(theirs, img_size=size, depth=depth))
    a = row.arguments
    return randomise(
        VisionTransformer(size, a["patch"], depth, a["heads"], a["width"], 4 * a["width"], num_classes=1000)
    )


def loaded(name: str, theirs: nn.Module, **arguments) -> nn.Module:
    row = variant(name)
    ours = create(name, **arguments)
    rules = row.rules[str(row.reference).split(":")[0]]
    weights.fit(ours, weights.rename(theirs.state_dict(), rules(ours)))
    return ours


# Whole, test_models.py compares them only where it is asked to.
@pytest.mark.parametrize("name", [name for name in names("vit_*") if variant(name).parameters > 100e6])
def test_few_blocks_of_the_largest_give_the_outputs_of_the_reference(name):
    theirs = build_reference(name, 64, 2).eval()
    ours = loaded(name, theirs, size=64, depth=2).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", ["vit_tiny_16", "vit_b_32"])
def test_gradients_are_those_of_the_reference_in_training(name):
    theirs = build_reference(name, 64, 2).train()
    ours = loaded(name, theirs, size=64, depth=2).train()
    x, target = torch.randn(3, 3, 64, 64), torch.tensor([1, 2, 3])
    for net in (ours, theirs):
        nn.functional.cross_entropy(net(x), target).backward()
    rules = variant(name).rules[str(variant(name).reference).split(":")[0]](ours)
    expected = weights.rename({n: p.grad for n, p in theirs.named_parameters()}, rules)
    for key, parameter in ours.named_parameters():
        scale = expected[key].abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-4, atol=2e-5 * scale, msg=key)


def test_attention_is_its_formula():
    attention = SelfAttention(8, 2)
    x = torch.randn(3, 5, 24)
    q, k, v = (part.view(3, 5, 2, 4).transpose(1, 2) for part in x.split(8, dim=-1))
    expected = ((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).reshape(3, 5, 8)
    torch.testing.assert_close(attention(x), expected)


def test_causal_attention_sees_nothing_that_comes_later():
    attention = SelfAttention(8, 2, causal=True)
    x = torch.randn(1, 5, 24)
    before = attention(x)
    x[:, 3:] += 1
    assert torch.equal(attention(x)[:, :3], before[:, :3])


def test_attention_tells_its_products():
    # FlopCounterMode counts two operations a multiply-accumulate.
    from torch.utils.flop_counter import FlopCounterMode

    attention = SelfAttention(192, 3)
    with FlopCounterMode(display=False) as counter:
        attention(torch.empty(1, 197, 576, device="meta"))
    assert attention.macs((1, 197, 576)) == counter.get_total_flops() // 2


def test_heads_must_divide_the_width():
    with pytest.raises(ArgumentError, match="heads = 5; it must divide the width, 192"):
        create("vit_tiny_16", heads=5)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (3, 3), (5, 9)])
def test_positions_are_resampled_as_by_timm(height, width):
    positions = torch.randn(1 + 16, 6)
    expected = resample_abs_pos_embed(positions[None], [height, width], num_prefix_tokens=1)[0]
    torch.testing.assert_close(resample(positions, height, width), expected)


def test_positions_of_the_same_size_are_left_alone():
    positions = torch.randn(1 + 16, 6)
    assert resample(positions, 4, 4) is positions


def test_weights_of_another_size_load_with_positions_resampled():
    theirs = build_reference("vit_tiny_16", 64, 1)
    ours = loaded("vit_tiny_16", theirs, size=96, depth=1)
    expected = resample_abs_pos_embed(theirs.pos_embed, [6, 6], num_prefix_tokens=1)[0]
    torch.testing.assert_close(ours.state_dict()["stem.tokens.positions"], expected)


def test_our_own_file_loads_at_another_size(tmp_path):
    from safetensors.torch import save_file

    small = create("vit_tiny_16", size=32, depth=1, classes=3)
    save_file(small.state_dict(), tmp_path / "w.safetensors")
    large = create("vit_tiny_16", size=64, depth=1, classes=3, weights=tmp_path / "w.safetensors")
    assert large.state_dict()["stem.tokens.positions"].shape == (17, 192)


def test_a_picture_of_another_size_than_built_for_equals_a_net_built_for_it():
    net = create("vit_tiny_16", size=64, depth=1, classes=3).eval()
    randomise(net)
    other = create("vit_tiny_16", size=96, depth=1, classes=3).eval()
    weights.fit(other, weights.rename(net.state_dict(), vit.own(other)))
    x = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(net(x), other(x))


def test_a_size_that_the_patch_does_not_divide_is_refused():
    with pytest.raises(
        ArgumentError, match="size = 100; it must be a multiple of the patch, 16 pixels: 96 or 112"
    ):
        create("vit_b_16", size=100)


def test_drop_path_grows_from_nothing_to_the_rate():
    net = create("vit_tiny_16", drop_path=0.3, depth=4)
    rates = [
        block.attn.body.drop.rate for block in net.stages[0].blocks if "drop" in block.attn.body._modules
    ]
    assert rates == pytest.approx([0.1, 0.2, 0.3])
    assert even_rates(0.3, 1) == [0.0]


def test_drop_path_does_nothing_in_evaluation():
    net = randomise(create("vit_tiny_16", drop_path=0.9, depth=2, size=32, classes=3)).eval()
    plain = create("vit_tiny_16", depth=2, size=32, classes=3).eval()
    weights.fit(plain, net.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(net(x), plain(x))


def test_norms_have_the_eps_of_vit():
    assert {m.eps for m in create("vit_tiny_16").modules() if isinstance(m, nn.LayerNorm)} == {1e-6}


def test_a_fresh_net_starts_with_equal_scores():
    assert torch.equal(
        create("vit_tiny_16", size=32, depth=1)(torch.randn(2, 3, 32, 32)), torch.zeros(2, 1000)
    )
