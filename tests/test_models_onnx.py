"""Every family goes into an ONNX file, its tensors under our paths, that two other engines run to the same scores."""

from __future__ import annotations

import contextlib
import functools
import os
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

from convarium.deploy import onnx_file, openvino_file, silent
from convarium.errors import MissingExtra
from tests.tiny import TINY, tiny

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
try:
    silent.openvino()
except MissingExtra as error:
    pytest.skip(str(error), allow_module_level=True)


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


class Scores(nn.Module):
    """A network under the name that the exporter knows it by."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, pictures):
        return self.net(pictures)


ALWAYS = ("resnet", "mobilenet_v3", "densenet", "convnext", "vit", "inception_v2")
"""Families whose parts are those of all; the others are run where CONVARIUM_ALL=1 is set."""


@pytest.mark.parametrize("family", TINY)
def test_onnx_runtime_and_openvino_give_the_same_scores(family):
    if family not in ALWAYS and not os.environ.get("CONVARIUM_ALL"):
        pytest.skip("where CONVARIUM_ALL=1 is set")
    name, size, options = TINY[family]
    # OpenVINO takes no window that is larger than its picture, which Inception's last one would be.
    with patch.dict(TINY, {family: (name, 64 if family == "inception_v2" else size, options)}):
        net = tiny(family).eval().requires_grad_(False)
    x = torch.randn(3, net.in_channels, net.size, net.size)
    with torch.no_grad():
        expected = net(x).numpy()
    made = onnx_file.model(Scores(net), x[:2], {0: torch.export.Dim("batch", min=1)})
    stored = {tensor.name for tensor in made.graph.initializer}
    # CLIP's forward is its image tower. Batch norms are folded away, convolutions keep their names.
    parts = {name for name, _ in net.named_parameters() if family != "clip" or name.startswith("image.")}
    assert {name for name in parts if net.get_parameter(name).ndim == 4} <= stored
    assert not any(name.startswith("net.") for name in stored)

    content = made.SerializeToString()
    session = onnxruntime.InferenceSession(content)
    runs = {
        "ONNX Runtime": lambda pictures: session.run(None, {"pictures": pictures})[0],
        "OpenVINO": openvino_file.runner(openvino_file.read(content)),
    }
    scale = np.abs(expected).max()
    for name, run in runs.items():
        for batch in (1, 3):
            got = run(x[:batch].numpy())
            np.testing.assert_allclose(got, expected[:batch], rtol=1e-5, atol=2e-5 * scale, err_msg=name)
