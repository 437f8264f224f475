"""OpenVINO and ONNX Runtime run a network without torch; what is damaged is made anew or refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from convarium.classifier import Classifier
from convarium.data.preprocessing import Preprocessing
from convarium.deploy import processor, remembered, runtimes, silent
from convarium.deploy.scored import Workpiece
from convarium.errors import ArgumentError, CheckpointError, MissingExtra
from convarium.models import create

for library in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(library)
try:
    silent.openvino()
except MissingExtra:
    pytest.skip("openvino is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def lenet():
    """A classifier, some prepared pictures and what it gives to them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = create("lenet5", classes=4).eval()
    preprocessing = Preprocessing(size=net.size, mode="L", mean=(0.4,), std=(0.2,))
    clf = Classifier(net, list("abcd"), preprocessing, device="cpu")
    some = np.random.default_rng(0).integers(0, 256, (5, 1, net.size, net.size), dtype=np.uint8)
    with torch.inference_mode():
        scores, features = Workpiece(clf).scored(torch.from_numpy(some))
        assert torch.equal(scores, net(preprocessing.normalise(torch.from_numpy(some))))
    return clf, some, (scores.numpy(), features.numpy())


@pytest.fixture(scope="module")
def model(lenet, tmp_path_factory):
    return Workpiece(lenet[0], tmp_path_factory.mktemp("engine")).onnx()


@pytest.fixture
def compiling(monkeypatch):
    """How often OpenVINO reads a model to compile it."""
    counted = []
    core = silent.core()

    class Counting:
        def read_model(self, *arguments):
            counted.append(arguments)
            return core.read_model(*arguments)

        def __getattr__(self, name):
            return getattr(core, name)

    monkeypatch.setattr(silent, "core", Counting)
    return counted


def near(expected, found, most=1e-5):
    return all(
        np.linalg.norm(a - b) <= most * np.linalg.norm(a) for a, b in zip(expected, found, strict=True)
    )


def test_both_give_scores_and_features(lenet, model):
    _, some, expected = lenet
    for ready in (runtimes.onnxruntime(model, 8, 1), runtimes.openvino(model, "float32", 8, 1)):
        found = ready(some)
        assert near(expected, found) and [part.dtype for part in found] == [np.float32] * 2
        assert ready.batch == 8 and ready.threads == 1
        assert near([part[2:3] for part in expected], ready(some[2:3]))


def test_answers_stay_when_the_next_are_given(lenet, model):
    _, some, _ = lenet
    for ready in (runtimes.onnxruntime(model, 2, 1), runtimes.openvino(model, "float32", 2, 1)):
        first = ready(some[:2])
        before = [part.copy() for part in first]
        ready(some[2:4])
        assert all(np.array_equal(a, b) for a, b in zip(before, first, strict=True))


def test_more_pictures_than_a_batch_are_refused(lenet, model):
    with pytest.raises(ArgumentError, match="5 pictures at once; onnxruntime-fp32 takes 1 to 4"):
        runtimes.onnxruntime(model, 4, 1)(lenet[1])


def test_the_compiled_form_is_kept_and_taken(lenet, model, tmp_path, compiling):
    _, some, expected = lenet
    first = runtimes.openvino(model, "float32", 2, 1, tmp_path)
    assert first.keep() == "" and len(compiling) == 1
    again = runtimes.openvino(model, "float32", 2, 1, tmp_path)
    assert len(compiling) == 1 and again.name == "openvino-fp32"
    # Told nothing, OpenVINO would run it in bfloat16 where the processor has that.
    assert near([part[:2] for part in expected], again(some[:2]))


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_damaged_compiled_form_is_made_anew(lenet, model, tmp_path, compiling, place):
    runtimes.openvino(model, "float32", 2, 1, tmp_path).keep()
    (file,) = tmp_path.glob("*.blob")
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    ready = runtimes.openvino(model, "float32", 2, 1, tmp_path)
    assert len(compiling) == 2 and near([part[:2] for part in lenet[2]], ready(lenet[1][:2]))


def test_a_compiled_form_of_other_versions_or_machines_is_not_opened(lenet, model, tmp_path, monkeypatch):
    runtimes.openvino(model, "float32", 2, 1, tmp_path).keep()
    assert runtimes.blob(tmp_path, "float32", 2, 1) and runtimes.blob(tmp_path, "bfloat16", 2, 1) is None
    monkeypatch.setattr(processor, "fingerprint", lambda: "other")
    assert runtimes.blob(tmp_path, "float32", 2, 1) is None


def test_a_compiled_form_that_openvino_refuses_is_made_anew(lenet, model, tmp_path):
    content = b"nothing that it knows"
    name = runtimes._title("float32", 2, 1)
    runtimes._write(tmp_path / name, runtimes._digest(content), content)
    assert runtimes.blob(tmp_path, "float32", 2, 1) == content
    ready = runtimes.openvino(model, "float32", 2, 1, tmp_path)
    assert near([part[:2] for part in lenet[2]], ready(lenet[1][:2]))


def test_where_it_cannot_be_kept_it_runs_and_says_so(lenet, model, tmp_path):
    (tmp_path / "file").touch()
    ready = runtimes.openvino(model, "float32", 2, 1, tmp_path / "file")
    assert ready.keep().startswith("the compiled form is not kept: ")
    assert near([part[:2] for part in lenet[2]], ready(lenet[1][:2]))


@pytest.mark.parametrize("content", [b"", b"no graph", None])
def test_a_damaged_model_is_refused_in_words(tmp_path, model, content):
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(model.read_bytes()[:5000] if content is None else content)
    with pytest.raises(CheckpointError, match="model.onnx cannot be run"):
        runtimes.openvino(damaged, "float32", 2, 1)
    with pytest.raises(CheckpointError, match="model.onnx cannot be run"):
        runtimes.onnxruntime(damaged, 2, 1)


def test_a_sealed_file_that_changed_is_not_whole(model, tmp_path):
    copy = tmp_path / "model.onnx"
    copy.write_bytes(model.read_bytes())
    assert not remembered.whole(copy)
    remembered.seal(copy)
    assert remembered.whole(copy)
    copy.write_bytes(model.read_bytes()[:-1] + b"\0")
    assert not remembered.whole(copy)


WITHOUT_TORCH = """
import sys
import numpy as np
from pathlib import Path
from convarium.deploy import remembered, runtimes

found = remembered.find(Path(sys.argv[1]), "auto", 3)
scores, features = found.open()(np.zeros((3, 1, int(sys.argv[2]), int(sys.argv[2])), np.uint8))
runtimes.onnxruntime(found.folder / "model.onnx", 4, 1)
heavy = {"torch", "torchvision", "scipy", "sklearn", "matplotlib", "openvino.tools.ovc", "openvino_telemetry"}
print(found.name, scores.shape, sorted(heavy & set(sys.modules)))
"""


def test_what_is_remembered_runs_without_torch(lenet, tmp_path, monkeypatch):
    clf, some, _ = lenet
    monkeypatch.setenv("CONVARIUM_CACHE", str(tmp_path / "cache"))
    file = clf.save(tmp_path / "model.safetensors")
    folder, threads = remembered.folder_of(file), processor.threads()
    ready = runtimes.openvino(Workpiece(clf, folder).onnx(), "float32", 4, threads, folder)
    assert ready.keep() == ""
    row = {"name": ready.name, "library": "openvino", "numbers": "float32", "batch": 4, "threads": threads}
    row |= {"setup": 1.0, "agrees": True, "images_per_second": 100.0}
    assert remembered.remember(file, "auto", [row]) == ""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, file, str(clf.preprocessing.size)],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "openvino-fp32 (3, 4) []", done.stderr


ON_ANOTHER_STACK = """
import ctypes, faulthandler, gc, re, sys
from pathlib import Path
from convarium.deploy import runtimes

class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

faulthandler.enable()
first, second = (runtimes.openvino(Path(sys.argv[1]), "float32", batch, 1) for batch in (1, 2))
del first
gc.collect()
del second
gc.collect()
stack = Stack()
assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
maps = re.findall("^([0-9a-f]+)-([0-9a-f]+) rw", Path("/proc/self/maps").read_text(), re.M)
top = stack.start + stack.size - 1
print(any(int(low, 16) <= top < int(high, 16) for low, high in maps))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_signals_can_still_be_handled_after_networks_have_gone(model):
    command = [sys.executable, "-c", ON_ANOTHER_STACK, model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "True\n", done.stderr
