"""Live memory in the progress line: what a card says, what is left where it does not, and that training never stops."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from convarium.training.gauge import EVERY, GIB, Gauge
from convarium.training.watch import Watch

UUID = "12345678-1234-1234-1234-123456789abc"


class Card:
    """A management library with one card."""

    def __init__(self) -> None:
        self.used = 12 * GIB
        self.asked: list[str] = []
        self.refused: set[str] = set()

    def _look(self, what: str) -> None:
        self.asked.append(what)
        if what in self.refused:
            raise RuntimeError("Insufficient Permissions")

    def nvmlInit(self) -> None:
        self._look("init")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self._look("handle")
        assert uuid == f"GPU-{UUID}"
        return "handle"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        self._look("memory")
        return SimpleNamespace(used=self.used, total=80 * GIB)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        self._look("busy")
        return SimpleNamespace(gpu=97)


@pytest.fixture
def card(monkeypatch):
    """A card that the library knows, and torch too."""
    made = Card()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=UUID))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70 * GIB, 80 * GIB))
    return made


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


CUDA = torch.device("cuda", 0)


def test_a_card_says_memory_and_how_busy_it_is(card):
    assert Gauge(CUDA).text() == "12.0 of 80.0 GiB, 97 % busy"


def test_it_is_asked_once_a_second(card):
    clock = Clock()
    gauge = Gauge(CUDA, clock)
    gauge.text()
    card.used = 20 * GIB
    assert gauge.text().startswith("12.0")
    clock.now += EVERY
    assert gauge.text().startswith("20.0")


def test_a_slice_of_a_card_says_its_memory_alone(card):
    card.refused = {"busy"}
    assert Gauge(CUDA).text() == "12.0 of 80.0 GiB"


@pytest.mark.parametrize("refused", ["init", "handle", "memory"])
def test_torch_is_asked_where_the_library_refuses(card, refused):
    card.refused = {refused}
    assert Gauge(CUDA).text() == "10.0 of 80.0 GiB"


def test_torch_is_asked_where_there_is_no_library(card, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Gauge(CUDA).text() == "10.0 of 80.0 GiB"


def test_a_card_that_is_lost_is_not_asked_again(card):
    clock = Clock()
    gauge = Gauge(CUDA, clock)
    gauge.text()
    card.refused = {"memory"}
    clock.now += EVERY
    assert gauge.text() == ""
    asked = len(card.asked)
    clock.now += EVERY
    assert gauge.text() == ""
    assert len(card.asked) == asked


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says it without more libraries")
def test_a_processor_says_what_the_process_holds():
    number, unit = Gauge(torch.device("cpu")).text().split()
    assert unit == "GiB"
    assert float(number) > 0.05


def test_other_devices_say_nothing():
    assert Gauge(torch.device("meta")).text() == ""


def test_the_progress_line_shows_it(card):
    watch = Watch(epochs=2)
    shown: dict[str, Any] = {}
    watch._bar = SimpleNamespace(update=lambda task, **what: shown.update(what))  # type: ignore[assignment]
    watch._gauge = Gauge(CUDA)
    watch.step(SimpleNamespace(epoch=0, batch=3), 10, torch.tensor(1.5))  # type: ignore[arg-type]
    assert shown["description"] == "epoch 1/2  loss 1.500  12.0 of 80.0 GiB, 97 % busy"
