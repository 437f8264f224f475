"""Every family goes into an ONNX file that another engine runs to the same scores, its tensors under our paths."""

from __future__ import annotations

import contextlib
import functools
from unittest.mock import patch

import pytest
import torch

from tests.tiny import TINY, tiny

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module", autouse=True)
def operators_are_listed_once():
    """torch lists all its ONNX operators anew in every export: a second each, a third of this file's time.

    The class is torch's own affair; should it go elsewhere, the tests are only slower.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, AttributeError):
            from torch.onnx._internal.exporter._registration import ONNXRegistry

            listed = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
            stack.enter_context(patch.object(ONNXRegistry, "from_torchlib", listed))
        yield


@pytest.mark.parametrize("family", TINY)
def test_onnx(family):
    net = tiny(family).eval()
    x = torch.randn(2, net.in_channels, net.size, net.size)
    batch = {0: torch.export.Dim("batch", min=2, max=64)}
    with torch.no_grad():
        expected = net(x)
        program = torch.onnx.export(
            net, (x,), dynamo=True, optimize=False, verbose=False, dynamic_shapes=(batch,)
        )
    stored = {tensor.name for tensor in program.model_proto.graph.initializer}
    # CLIP's forward is its image tower.
    parts = {name for name, _ in net.named_parameters() if family != "clip" or name.startswith("image.")}
    assert parts - stored == set()

    program.optimize()
    onnx.checker.check_model(program.model_proto, full_check=True)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    pictures = session.get_inputs()[0].name
    (got,) = session.run(None, {pictures: x.numpy()})
    scale = expected.abs().max().item()
    torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-5, atol=1e-5 * scale)
    (more,) = session.run(None, {pictures: torch.cat([x, x[:1]]).numpy()})
    assert more.shape == (3, *expected.shape[1:])
