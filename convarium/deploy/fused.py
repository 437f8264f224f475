"""A network rewritten for inference: batch norms folded into convolutions, activations and sums computed with them.

The graph comes from torch.fx, which walks through our joins as through any module's forward; leaves stay calls. What
cannot be traced stays as it is. On processors with oneDNN, a convolution takes the activation behind it, or the sum
behind it and that sum's activation, along: the plane is then written once instead of three times. These operators are
private to torch (its compiler uses them), so every rewritten network is compared with the plain one before it is used.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

# Activations that oneDNN computes with a convolution: its name, numbers, algorithm.
_ACTS: dict[type[nn.Module], tuple[str, list[float], str]] = {
    nn.ReLU: ("relu", [], ""),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], ""),
    nn.Hardswish: ("hardswish", [], ""),
    nn.SiLU: ("swish", [], ""),
    nn.Sigmoid: ("sigmoid", [], ""),
    nn.Tanh: ("tanh", [], ""),
}
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
_ADDS = {operator.add, operator.iadd, torch.add, "add", "add_"}


class _Tracer(fx.Tracer):
    """Goes through everything that has parts; what has none is a leaf."""

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return next(module.children(), None) is None


def traced(net: nn.Module) -> fx.GraphModule | None:
    """A copy of the network as a graph over its leaves; None where its forward cannot be followed.

    Args:
        net: in evaluation mode; left as it was.
    """
    copied = copy.deepcopy(net).eval()
    tracer = _Tracer()
    try:
        graph = tracer.trace(copied)
    except Exception:  # whatever a forward does that no symbol can stand for
        return None
    return fx.GraphModule(tracer.root, graph)


def folded(graph: fx.GraphModule) -> fx.GraphModule:
    """Batch norms that directly follow a convolution or a linear layer become part of its weights; what does nothing
    in evaluation goes.

    Args:
        graph: from `traced`; changed.

    Returns:
        The same graph.
    """
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        norm = _module(node, modules)
        if isinstance(norm, _NOTHING):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            continue
        if not isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)) or norm.running_mean is None:
            continue
        before = node.args[0]
        part = _module(before, modules)
        if part is None or len(before.users) > 1 or type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d):
            continue
        if isinstance(part, nn.Conv2d):
            made: nn.Module = fuse_conv_bn_eval(part, norm)
        elif isinstance(part, nn.Linear):
            made = fuse_linear_bn_eval(part, norm)
        else:
            continue
        _put(graph, modules, str(before.target), made)
        node.replace_all_uses_with(before)
        graph.graph.erase_node(node)
    return _tidied(graph)


def with_onednn(graph: fx.GraphModule) -> fx.GraphModule:
    """Convolutions of a folded graph take the activation or the sum behind them along, by oneDNN.

    Args:
        graph: from `folded`, its weights in the number format in which it will run; changed.

    Returns:
        The same graph.
    """
    modules = dict(graph.named_modules())
    order = {node: i for i, node in enumerate(graph.graph.nodes)}
    for node in list(graph.graph.nodes):
        part = _module(node, modules)
        if type(part) is not nn.Conv2d or part.padding_mode != "zeros" or isinstance(part.padding, str):
            continue
        other, user = None, _only_user(node)
        if user is not None and user.target in _ADDS and len(user.args) == 2 and not user.kwargs:
            rest = user.args[1] if user.args[0] is node else user.args[0]
            # The other summand must be there when the convolution runs; of two convolutions the later one sums.
            if isinstance(rest, fx.Node) and rest is not node and order[rest] < order[node]:
                other, user = rest, _swallow(node, user)
        act: tuple[str, list[float], str] = ("none", [], "")
        known = _ACTS.get(type(_module(user, modules)))  # type: ignore[arg-type]
        if user is not None and known and (other is None or known[0] == "relu"):
            act = known
            _swallow(node, user)
        _put(graph, modules, str(node.target), _Conv(part, act, other is not None))
        if other is not None:
            node.args = (*node.args, other)
    return _tidied(graph)


class _Conv(nn.Module):
    """act(conv(x)) or act(conv(x) + other) as one call of oneDNN, its weight laid out for it beforehand."""

    def __init__(self, conv: nn.Conv2d, act: tuple[str, list[float], str], sums: bool) -> None:
        super().__init__()
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.act, self.sums = act, sums
        with torch.no_grad():
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(
                conv.weight.detach(), *self.geometry, None
            )
        self.bias = None if conv.bias is None else conv.bias.detach()

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        call = torch.ops.mkldnn._convolution_pointwise
        if not self.sums:
            return call(x, self.weight, self.bias, *self.geometry, *self.act)
        name, numbers, algorithm = self.act
        unary = (None, [], None) if name == "none" else (name, numbers, algorithm)
        return call.binary(x, other, self.weight, self.bias, *self.geometry, "add", 1.0, *unary)


def _module(node: Any, modules: dict[str, nn.Module]) -> nn.Module | None:
    called = isinstance(node, fx.Node) and node.op == "call_module"
    return modules.get(str(node.target)) if called else None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _swallow(node: fx.Node, user: fx.Node) -> fx.Node | None:
    """Let a node stand for its only user, too; the user that then is its only one."""
    user.replace_all_uses_with(node)
    node.graph.erase_node(user)
    return _only_user(node)


def _put(graph: fx.GraphModule, modules: dict[str, nn.Module], path: str, made: nn.Module) -> None:
    graph.set_submodule(path, made)
    modules[path] = made


def _tidied(graph: fx.GraphModule) -> fx.GraphModule:
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()
    return graph
