"""The loss of a step: mixed pictures, weighted classes, and what counts as right."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convarium.training import task as tasks
from convarium.training.task import Classify


class Scores(nn.Module):
    """Gives its pictures' first row as scores, and twice of it from an auxiliary classifier."""

    taps = ("inner",)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, 0]

    def auxiliary(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return self(x), [2 * self(x)]


def given(number: int = 6, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(number, 1, 1, classes, generator=generator), torch.arange(number) % classes


def test_the_loss_of_mixed_pictures_is_that_of_both_labels_in_their_shares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures, labels = given()
    others = labels.flip(0)
    monkeypatch.setattr(tasks, "mixed", lambda p, y, mixup, cutmix: (2 * p, others, 0.3))
    got = Classify(Scores(), 0.1, 0.4, mixup=0.8).step(pictures, labels)
    scores = 2 * pictures[:, 0, 0]

    def loss(factor: float, target: torch.Tensor) -> float:
        return F.cross_entropy(factor * scores, target, label_smoothing=0.1).item()

    want = sum(
        weight * (0.3 * loss(f, labels) + 0.7 * loss(f, others)) for weight, f in ((1, 1.0), (0.4, 2.0))
    )
    assert got["loss"].item() == pytest.approx(want, rel=1e-5)
    assert got["correct"] == (scores.argmax(1) == others).sum()  # theirs is the larger share


@pytest.mark.parametrize("alphas", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_pictures_are_mixed_in_training_only(alphas: dict[str, float]) -> None:
    labels = torch.arange(6)
    pictures = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    plain = Classify(Scores(), auxiliary=0).step(pictures, labels)["loss"]
    task = Classify(Scores(), auxiliary=0, **alphas)
    assert any(not torch.equal(task.step(pictures, labels)["loss"], plain) for _ in range(5))
    task.eval()
    before = torch.get_rng_state()
    assert torch.equal(task.step(pictures, labels)["loss"], plain)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_mixing_and_weights_the_loss_is_torchs_to_the_bit() -> None:
    pictures, labels = given()
    got = Classify(Scores(), 0.1, 0).step(pictures, labels)
    assert torch.equal(got["loss"], F.cross_entropy(pictures[:, 0, 0], labels, label_smoothing=0.1))


def test_a_weighted_picture_counts_alike_in_any_company() -> None:
    pictures, labels = given()
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    task = Classify(Scores(), auxiliary=0, class_weights=weights)
    each = F.cross_entropy(pictures[:, 0, 0], labels, reduction="none") * weights[labels]
    assert task.step(pictures, labels)["loss"].item() == pytest.approx(each.mean().item())
    halves = [task.step(pictures[part], labels[part])["loss"].item() for part in (slice(0, 3), slice(3, 6))]
    assert sum(halves) / 2 == pytest.approx(each.mean().item())


def test_weights_count_in_mixed_pictures_as_in_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, labels = given()
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    monkeypatch.setattr(tasks, "mixed", lambda p, y, mixup, cutmix: (p, y, 0.6))
    mixing = Classify(Scores(), 0.1, 0, mixup=1.0, class_weights=weights)
    plain = Classify(Scores(), 0.1, 0, class_weights=weights)
    torch.testing.assert_close(mixing.step(pictures, labels)["loss"], plain.step(pictures, labels)["loss"])


def test_class_weights_are_no_part_of_the_state_and_go_where_the_task_goes() -> None:
    task = Classify(nn.Linear(2, 3), class_weights=torch.ones(3))
    assert set(task.state_dict()) == {"net.weight", "net.bias"}
    assert task.to("meta").class_weights.is_meta
    assert Classify(nn.Linear(2, 3)).class_weights is None
