"""GoogLeNet against torchvision, and the paper's net against its table 1, row by row."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from convarium.errors import ArgumentError, WeightsMismatch
from convarium.models import create, googlenet, variant, weights
from tests.reference import pair, randomise

# Table 1: where the row stands, output side, channels, parameters in K, operations in M.
ROWS = {
    "convolution 7x7": ("stem.conv1", 112, 64, 2.7, 34),
    "3a": ("stages.0.blocks.0", 28, 256, 159, 128),
    "3b": ("stages.0.blocks.1", 28, 480, 380, 304),
    "4a": ("stages.1.blocks.0", 14, 512, 364, 73),
    "4b": ("stages.1.blocks.1", 14, 512, 437, 88),
    "4c": ("stages.1.blocks.2", 14, 512, 463, 100),
    "4d": ("stages.1.blocks.3", 14, 528, 580, 119),
    "4e": ("stages.1.blocks.4", 14, 832, 840, 170),
    "5a": ("stages.2.blocks.0", 7, 832, 1072, 54),
    "5b": ("stages.2.blocks.1", 7, 1024, 1388, 71),
    "linear": ("head.fc", 1, 1000, 1000, 1),
}
POOLS = {"stem.pool1": (56, 64), "stem.pool2": (28, 192), "stages.1.downsample": (14, 480)}


@cache
def on_meta(name: str, **arguments):
    """The network without memory, built once for all tests, which leave it as it was."""
    with torch.device("meta"):
        return create(name, **arguments)


def shapes(net: nn.Module, size: int = 224) -> dict[str, torch.Size]:
    """The shape that each inner part gives, by its path."""
    seen = {}
    handles = [
        part.register_forward_hook(lambda _, __, out, path=path: seen.update({path: out.shape}))
        for path, part in net.named_modules()
        if path
    ]
    net.eval()(torch.empty(1, 3, size, size, device="meta"))
    for handle in handles:
        handle.remove()
    return seen


def weights_of(part: nn.Module) -> int:
    """Weights of convolutions and linears, without biases."""
    return sum(m.weight.numel() for m in part.modules() if isinstance(m, nn.Conv2d | nn.Linear))


def test_table_1_output_sizes():
    seen = shapes(on_meta("googlenet_2014"))
    got = {row: tuple(seen[path]) for row, (path, *_) in ROWS.items()}
    table = {row: (1, channels, side, side) for row, (_, side, channels, _, _) in ROWS.items()}
    assert got == {**table, "linear": (1, 1000)}


def test_table_1_output_sizes_of_pools():
    seen = shapes(on_meta("googlenet_2014"))
    assert {path: (seen[path][2], seen[path][1]) for path in POOLS} == POOLS
    assert seen["stages.2.downsample"] == (1, 832, 7, 7)


@pytest.mark.parametrize("row", [row for row in ROWS if row not in ("4c", "5a")])
def test_table_1_parameters(row):
    path, _, _, thousands, _ = ROWS[row]
    assert weights_of(on_meta("googlenet_2014").part(path)) / 1024 == pytest.approx(thousands, rel=0.02)


def test_table_1_second_convolution_with_its_reduction():
    net = on_meta("googlenet_2014")
    parameters = weights_of(net.part("stem.conv2")) + weights_of(net.part("stem.conv3"))
    assert parameters / 1024 == 112
    assert round(parameters * 56**2 / 1e6) == 360


@pytest.mark.parametrize("row", [row for row in ROWS if row != "5a"])
def test_table_1_operations_to_the_million(row):
    path, side, _, _, millions = ROWS[row]
    operations = weights_of(on_meta("googlenet_2014").part(path)) * side**2 / 1e6
    assert abs(operations - millions) <= 1


def test_table_1_contradicts_itself_in_4c():
    # 463K parameters on 14 x 14 would be 93M operations, not the 100M printed; the channels give 100M.
    assert weights_of(on_meta("googlenet_2014").part("stages.1.blocks.2")) / 1024 == pytest.approx(497.5)
    assert round(463 * 1024 * 14**2 / 1e6) == 93


def test_table_1_row_5a_is_that_of_48_reduced_channels():
    with torch.device("meta"):
        printed = googlenet.Inception(832, googlenet.TABLE["5a"], googlenet.biased)
        meant = googlenet.Inception(832, (256, 160, 320, 48, 128, 128), googlenet.biased)
    assert round(weights_of(printed) * 49 / 1e6) == 51
    assert round(weights_of(meant) * 49 / 1e6) == 54
    assert weights_of(meant) / 1024 == pytest.approx(1072, rel=0.01)


def test_a_dense_first_convolution_is_not_table_1s():
    net = on_meta("googlenet_2014", separable=False)
    assert weights_of(net.part("stem.conv1")) == 9408
    assert sum(p.numel() for p in net.parameters()) == 13_378_280


def test_the_paper_has_real_5x5s_and_torchvision_has_not():
    kernels = {
        name: on_meta(name).part("stages.0.blocks.0.branch5x5.conv.conv").kernel_size
        for name in ("googlenet_2014", "googlenet")
    }
    assert kernels == {"googlenet_2014": (5, 5), "googlenet": (3, 3)}


def test_auxiliary_classifiers_are_the_papers():
    net = on_meta("googlenet_2014").eval()
    seen = []
    handles = [c.pool.register_forward_hook(lambda _, __, out: seen.append(out.shape[1:])) for c in net.aux]
    net.auxiliary(torch.empty(1, 3, 224, 224, device="meta"))
    for handle in handles:
        handle.remove()
    assert seen == [(512, 4, 4), (528, 4, 4)]
    assert net.aux[0].conv.conv.out_channels == 128
    assert net.aux[0].fc1.out_features == 1024
    assert (net.aux[0].dropout.p, net.head.dropout.p) == (0.7, 0.4)


@pytest.mark.parametrize("name", ["googlenet_2014", "googlenet"])
def test_naive_modules_add_their_inputs_channels(name):
    channels = {path: shape[1] for path, shape in shapes(on_meta(name, naive=True)).items()}
    growth = [channels[path] for row, (path, *_) in ROWS.items() if row[0] in "345"]
    assert growth == [416, 832, 1280, 1728, 2176, 2640, 3344, 4048, 4944]


def test_the_naive_net_costs_many_times_more():
    naive, reduced = (
        sum(weights_of(net.part(path)) * side**2 for path, side, *_ in list(ROWS.values())[1:10])
        for net in (on_meta("googlenet_2014", naive=True), on_meta("googlenet_2014"))
    )
    assert naive > 8 * reduced


def test_training_equals_torchvision_with_all_gradients():
    ours, theirs = pair("googlenet", dropout=0.0, aux_dropout=0.0)
    for module in theirs.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x = torch.randn(2, 3, 64, 64)
    expected, expected2, expected1 = theirs(x)
    got, aux = ours.auxiliary(x)
    assert len(aux) == 2
    for mine, other in ((got, expected), (aux[0], expected1), (aux[1], expected2)):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
    (got.square().sum() + sum(a.square().sum() for a in aux)).backward()
    (expected.square().sum() + expected1.square().sum() + expected2.square().sum()).backward()
    gradients = {n: p.grad for n, p in theirs.named_parameters()}
    gradients = weights.rename(gradients, googlenet.torchvision(ours))
    assert set(gradients) == {n for n, _ in ours.named_parameters()}
    for name, parameter in ours.named_parameters():
        scale = gradients[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-4 * scale, msg=name)


def test_forward_gives_the_heads_scores_in_either_mode_and_no_gradient_to_aux():
    net = create("googlenet_2014", classes=3, size=96, dropout=0.0)
    x = torch.randn(2, 3, 96, 96)
    out = net(x)
    assert out.shape == (2, 3)
    assert torch.equal(out, net.auxiliary(x)[0])
    out.sum().backward()
    without = {n for n, p in net.named_parameters() if p.grad is None}
    assert without == {n for n, _ in net.named_parameters() if n.startswith("aux.")}


def test_every_parameter_gets_a_gradient_through_auxiliary():
    net = create("googlenet_2014", classes=3, size=96)
    logits, aux = net.auxiliary(torch.randn(2, 3, 96, 96))
    loss = sum(nn.functional.cross_entropy(scores, torch.tensor([0, 2])) for scores in (logits, *aux))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_without_auxiliary_classifiers_theirs_are_dropped_by_name():
    theirs = pair("googlenet")[1]
    net = create("googlenet", aux=False)
    weights.fit(net, weights.rename(theirs.state_dict(), googlenet.torchvision(net)))
    assert not any(name.startswith("aux") for name in net.state_dict())
    assert net.eval().auxiliary(torch.randn(1, 3, 64, 64))[1] == []


def test_with_auxiliary_classifiers_a_file_without_them_is_refused():
    net = on_meta("googlenet")
    state = on_meta("googlenet", aux=False).state_dict()
    with pytest.raises(WeightsMismatch, match=r"missing    aux\.0\.conv\.conv\.weight"):
        weights.fit(net, state)


def test_transform_input_equals_torchvisions():
    ours, theirs = pair("googlenet", transform_input=True)
    theirs.transform_input = True
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs.eval()(x)
        torch.testing.assert_close(
            ours.eval()(x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item()
        )
        assert not torch.allclose(create("googlenet", aux=False).eval()(x), expected)


def test_pictures_that_are_not_allowed_are_refused():
    with pytest.raises(ArgumentError, match="pictures of 3 channels, not 1"):
        create("googlenet", transform_input=True, in_channels=1)
    with pytest.raises(ArgumentError, match="size = 78; .* at least 79 pixels: build it with aux=False"):
        create("googlenet_2014", size=78)
    on_meta("googlenet_2014", size=79).auxiliary(torch.empty(1, 3, 79, 79, device="meta"))
    with pytest.raises(ArgumentError, match="aux_dropout = 1.5"):
        create("googlenet", aux_dropout=1.5)


def test_fresh_weights_are_torchvisions_in_spread():
    net = create("googlenet", aux=False)
    assert net.part("stem.conv3.conv").weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert variant("googlenet").reference == "torchvision:googlenet"
    randomise(net)  # leaves nothing unset
    assert all(torch.isfinite(t).all() for t in net.state_dict().values())
