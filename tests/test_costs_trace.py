"""The one pass: multiply-accumulates beside torch's own counter and torchvision's figures, and what it must bear."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from convarium.costs.trace import trace
from convarium.errors import ArgumentError
from convarium.models import create, names

ALL = bool(os.environ.get("CONVARIUM_ALL"))
CLASSIFIERS = torchvision.models.list_models(module=torchvision.models)
SAMPLE = [
    "alexnet",
    "convnext_large",
    "efficientnet_b0",
    "googlenet",
    "maxvit_t",
    "mobilenet_v3_large",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x1_0",
    "squeezenet1_0",
    "swin_t",
    "swin_v2_t",
    "vgg19_bn",
    "vit_b_16",
]


def built(name: str, **arguments) -> nn.Module:
    """One of torchvision's classifiers, without memory where its constructor bears it."""
    if name in ("googlenet", "inception_v3"):
        arguments["init_weights"] = False
    try:
        with torch.device("meta"):
            return torchvision.models.get_model(name, **arguments)
    except NotImplementedError:  # regnet reads the values that it draws
        return torchvision.models.get_model(name, **arguments)


def macs(net: nn.Module, *shapes: tuple[int, ...], **options) -> int:
    """Multiply-accumulates of the whole; no operator may be unknown."""
    counted = trace(net, *shapes, **options).counted.values()
    assert not [name for part in counted for name in part.unknown]
    return sum(part.macs for part in counted)


@pytest.mark.parametrize("name", CLASSIFIERS if ALL else SAMPLE)
def test_torchvisions_published_operations(name):
    weights = torchvision.models.get_model_weights(name).DEFAULT
    side = weights.transforms().crop_size[0]
    net = built(name, **({"image_size": side} if name.startswith("vit") else {}))
    assert round(macs(net, (1, 3, side, side)) / 1e9, 3) == weights.meta["_ops"]


@pytest.mark.parametrize(
    "name", CLASSIFIERS if ALL else ["alexnet", "mnasnet0_5", "squeezenet1_0", "vit_b_32"]
)
def test_as_many_as_torchs_own_counter(name):
    net = built(name).eval().to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(2, 3, 224, 224, device="meta"))
    assert macs(net, (2, 3, 224, 224)) == counter.get_total_flops() // 2


@pytest.mark.parametrize("name", names() if ALL else ["lenet5_1998", "alexnet_2012", "convnextv2_atto"])
def test_our_own_networks_as_torchs_counter(name):
    with torch.device("meta"):
        net = create(name).eval()
    shape = (1, net.in_channels, net.size, net.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(shape, device="meta"))
    assert macs(net, shape) == counter.get_total_flops() // 2


class Function(nn.Module):
    """A module of one function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


@pytest.mark.parametrize(
    ("net", "shapes", "expected"),
    [
        (nn.Conv2d(6, 4, (3, 5), 2, 1, dilation=2, groups=2), [(2, 6, 16, 17)], 2 * 4 * 7 * 6 * 3 * 15),
        (nn.Conv2d(3, 4, 3, padding="same"), [(1, 3, 8, 8)], 4 * 64 * 27),
        (nn.Conv1d(3, 4, 3), [(1, 3, 10)], 4 * 8 * 9),
        (nn.Conv3d(2, 4, 3), [(1, 2, 4, 4, 4)], 4 * 8 * 54),
        (nn.ConvTranspose2d(4, 6, 2, 2, groups=2), [(1, 4, 5, 5)], 4 * 25 * 3 * 4),
        (nn.Linear(8, 5), [(2, 7, 8)], 2 * 7 * 5 * 8),
        (Function(lambda a, b: a @ b), [(3, 4, 5), (5, 6)], 3 * 4 * 5 * 6),
        (Function(lambda a, b: torch.einsum("nij,nkj->nik", a, b)), [(2, 3, 4), (2, 5, 4)], 2 * 3 * 5 * 4),
        (Function(lambda a, b, c: torch.baddbmm(a, b, c)), [(2, 3, 4), (2, 3, 5), (2, 5, 4)], 2 * 3 * 4 * 5),
        (Function(F.scaled_dot_product_attention), [(2, 3, 7, 4), (2, 3, 9, 4), (2, 3, 9, 5)], 6 * 7 * 9 * 9),
        (Function(lambda x: F.gelu(F.avg_pool2d(x, 2) * 3).softmax(1).mean((2, 3))), [(1, 3, 8, 8)], 0),
    ],
)
def test_operators(net, shapes, expected):
    assert macs(net, *shapes) == expected


def test_attention_in_evaluation_mode_is_not_hidden_by_the_fast_path():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    # q, k, v and output projections; scores and mixing; the two linears
    assert macs(layer, (2, 9, 16)) == 2 * (9 * 4 * 16 * 16 + 2 * 9 * 9 * 16 + 2 * 9 * 16 * 32)


def test_what_is_not_known_is_named():
    assert trace(nn.Bilinear(4, 5, 6), (2, 4), (2, 5)).counted[""].unknown == ("_trilinear",)


def test_operators_of_other_libraries_are_not_taken_for_torchs():
    def deformed(x: Tensor) -> Tensor:
        offset, weight = x.new_zeros(1, 18, 6, 6), x.new_zeros(4, 3, 3, 3)
        return torchvision.ops.deform_conv2d(x, offset, weight)

    counted = trace(Function(deformed), (1, 3, 8, 8)).counted[""]
    assert counted.unknown == ("torchvision::deform_conv2d",)


def test_parts_count_what_runs_directly_in_them():
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.inner(x), torch.zeros(3, 4))

    counted = trace(nn.Sequential(Part(), nn.ReLU()), (2, 4)).counted
    assert {path: part.macs for path, part in counted.items()} == {"": 0, "0": 24, "0.inner": 32, "1": 0}


def test_written_are_new_tensors_only():
    def several(x: Tensor) -> Tensor:
        y = x.flatten(1).view(2, 3, 4)  # views
        y = y.relu_().add_(1)  # in place
        z = x.new_zeros(5) + torch.zeros_like(x).sum()  # constants
        return (
            torch.cat([y, y.transpose(1, 2).reshape(2, 3, 4)]) * torch.ones(4).exp() + z[0]
        )  # a copy, three new

    assert trace(Function(several), (2, 3, 4)).counted[""].written == 24 + 3 * 48


def test_calls_end_children_first_with_all_tensors():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Function(lambda pair: {"sum": pair[0] + pair[1], "rest": (pair[0],)})

        def forward(self, a: Tensor, b: Tensor) -> dict:
            return self.inner((a, b))

    calls = trace(Two(), (2, 3), (3,)).calls
    seen = [(call.path, call.inputs, call.outputs) for call in calls]
    assert seen == [(path, ((2, 3), (3,)), ((2, 3), (2, 3))) for path in ("inner", "")]


def test_a_module_under_several_names_and_run_several_times():
    shared = nn.Linear(4, 4)
    net = nn.Sequential(nn.Sequential(shared, shared), nn.Sequential(shared))
    found = trace(net, (2, 4))
    assert [call.path for call in found.calls] == ["0.0", "0.0", "0", "1.0", "1", ""]
    assert {path: part.macs for path, part in found.counted.items() if part.macs} == {"0.0": 64, "1.0": 32}


def test_tied_parameters():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    assert macs(net, (2, 4)) == 64


class Careless(nn.Module):
    """Keeps plain tensors, caches and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = torch.ones(4)
        self.register_buffer("count", torch.zeros(4))
        self.drop = nn.Dropout()
        self.cache = None

    def forward(self, x: Tensor) -> Tensor:
        self.cache = x
        self.count += x[0]
        self.register_buffer("late", torch.rand(4))
        if x.shape[1] != 4:
            raise ValueError("4 features, please")
        return self.drop(x) * self.mask


@pytest.mark.parametrize("features", [4, 5])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_network_is_left_as_it_was(features, device):
    net = nn.Sequential(Careless(), nn.Linear(4, 4).requires_grad_(False)).to(device)
    net[0].drop.eval()
    before = {name: dict(m.__dict__) for name, m in net.named_modules()}
    tensors = list(net.state_dict(keep_vars=True).items())
    state = torch.get_rng_state()
    if features == 4:
        trace(net, (2, 4))
    else:
        with pytest.raises(ArgumentError):
            trace(net, (2, 5))
    assert {name: dict(m.__dict__) for name, m in net.named_modules()} == before
    assert all(a is b for (_, a), (_, b) in zip(net.state_dict(keep_vars=True).items(), tensors, strict=True))
    assert [m.training for m in net.modules()] == [True, True, False, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert not any("_seen" in t.__dict__ for t in net.buffers())
    assert torch.equal(torch.get_rng_state(), state)
    assert device == "meta" or torch.equal(net[0].count, torch.zeros(4))


def test_dtype_is_of_this_pass_only():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    expected = torch.bfloat16

    def look(module: nn.Module, args: tuple[Tensor]) -> None:
        assert args[0].dtype is module.weight.dtype is expected

    net[3].register_forward_pre_hook(look)
    half = macs(net, (1, 3, 8, 8), dtype=torch.bfloat16)
    expected = torch.float32
    assert macs(net, (1, 3, 8, 8)) == half
    assert {p.dtype for p in net.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("net", "shape", "words"),
    [
        (torchvision.models.squeezenet1_0, (1, 3, 16, 16), ["part features.", "pool", "1 x 1", "too small"]),
        (lambda: nn.Sequential(nn.Conv2d(3, 2, 9)), (1, 3, 8, 8), ["part 0", "9 x 9", "too small"]),
        (lambda: nn.Sequential(nn.Conv2d(3, 2, 3)), (1, 1, 8, 8), ["part 0", "1 channels", "for 3"]),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 2)),
            (1, 3, 2, 2),
            ["part 1", "12 features", "for 9"],
        ),
        (lambda: Function(lambda x: x if x.sum() > 0 else -x), (1, 3, 2, 2), ["itself", "values"]),
        (lambda: Function(lambda x: x.view(7)), (1, 3, 2, 2), ["itself", "1x3x2x2"]),
    ],
)
def test_what_cannot_run_says_where_and_why(net, shape, words):
    with torch.device("meta"):
        network = net()
    with pytest.raises(ArgumentError) as error:
        trace(network, shape)
    assert [word for word in words if word not in str(error.value)] == []


def test_lazy_parameters_are_refused():
    with warnings.catch_warnings(action="ignore"):
        net = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ArgumentError, match="lazy"):
        trace(net, (1, 3))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "convnextv2_atto", "vit_tiny_16"])
def test_shapes_are_those_of_a_real_pass(name):
    with torch.device("meta"):
        net = create(name)
    expected = {}
    for path, module in net.named_modules():
        module.register_forward_hook(
            lambda m, a, out, path=path: expected.__setitem__(path, tuple(out.shape))
        )
    with torch.no_grad():
        net.eval()(torch.empty(2, 3, net.size, net.size, device="meta"))
    calls = trace(net, (2, 3, net.size, net.size)).calls
    assert {call.path: call.outputs[0] for call in calls} == expected


def test_torchs_compiler_is_not_loaded():
    """It takes two seconds, ten times as long as the pass."""
    code = """
import sys, torch
from convarium.costs.trace import trace
from convarium.models import create
for name in ("resnet18", "mobilenet_v3_small", "convnextv2_atto", "vit_tiny_16", "googlenet_2014"):
    with torch.device("meta"):
        net = create(name)
    before = "torch._dynamo" in sys.modules
    trace(net, (1, 3, 224, 224))
    assert before == ("torch._dynamo" in sys.modules), name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_transform_that_multiplies_is_named_and_not_called_free():
    class Fourier(nn.Module):
        def forward(self, x):
            return torch.fft.irfft2(torch.fft.rfft2(x))

    assert any("fft" in name for name in trace(Fourier(), (1, 3, 8, 8)).counted[""].unknown)
