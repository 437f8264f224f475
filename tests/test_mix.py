"""Mixup and CutMix: what is mixed, in what shares, and from which generator."""

from __future__ import annotations

import pytest
import torch

from convarium.training.mix import cut_mix, mix_up, mixed, shares


def batch(number: int = 8, side: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of one value each, which is their label."""
    labels = torch.arange(number)
    return labels.float().view(-1, 1, 1, 1).expand(-1, 3, side, side).clone(), labels


def test_mixup_adds_the_pictures_in_their_shares() -> None:
    torch.manual_seed(0)
    pictures, labels = batch()
    made, others, share = mixed(pictures, labels, mixup=0.8, cutmix=0)
    assert 0 < share < 1
    assert sorted(others.tolist()) == labels.tolist()
    want = share * labels + (1 - share) * others
    torch.testing.assert_close(made[:, 2, 3, 4], want.float())
    assert (made == made[:, :1, :1, :1]).all()


def test_cutmix_shows_both_pictures_in_their_shares() -> None:
    pictures, labels = batch(side=20)
    for seed in range(30):
        torch.manual_seed(seed)
        made, others, share = mixed(pictures, labels, mixup=0, cutmix=1.0)
        own = made[:, 0] == labels.view(-1, 1, 1)
        assert (own | (made[:, 0] == others.view(-1, 1, 1))).all()
        moved = labels != others
        assert own[moved].float().mean((1, 2)).tolist() == pytest.approx([share] * int(moved.sum()))


def test_the_pictures_that_are_given_are_not_changed() -> None:
    pictures, labels = batch()
    before = pictures.clone()
    for mixup, cutmix in ((1, 0), (0, 1)):
        mixed(pictures, labels, mixup, cutmix)
    assert torch.equal(pictures, before)


def test_cutmix_takes_one_rectangle_from_the_same_place() -> None:
    torch.manual_seed(1)
    pictures = torch.arange(2 * 400.0).view(2, 1, 20, 20)
    made, share = cut_mix(pictures, torch.tensor([1, 0]), 0.6)
    taken = made[0, 0] == pictures[1, 0]
    assert torch.equal(taken, ~(made[0, 0] == pictures[0, 0]))
    rows, columns = taken.any(1), taken.any(0)
    assert torch.equal(taken, rows[:, None] & columns)
    assert share == pytest.approx(1 - taken.float().mean().item())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_whole_pictures_stay_whole(share: float) -> None:
    pictures, _ = batch(2)
    partner = torch.tensor([1, 0])
    made, left = mix_up(pictures, partner, share)
    assert torch.equal(made, pictures if share else pictures[partner])
    assert left == share
    if share:
        made, left = cut_mix(pictures, partner, share)
        assert torch.equal(made, pictures)
        assert left == 1


def test_the_generator_alone_decides_so_that_a_resumed_run_mixes_alike() -> None:
    pictures, labels = batch()
    torch.manual_seed(7)
    first = mixed(pictures, labels, 0.8, 1.0)
    second = mixed(pictures, labels, 0.8, 1.0)
    torch.manual_seed(7)
    again = mixed(pictures, labels, 0.8, 1.0)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert first[2] == again[2] != second[2]


def test_where_both_are_on_each_is_drawn_every_second_time() -> None:
    pictures, labels = batch()
    torch.manual_seed(0)
    blended = 0
    for _ in range(200):
        made, _, _ = mixed(pictures, labels, 1.0, 1.0)
        blended += bool((made != made.round()).any())
    assert 70 < blended < 130


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    pictures, labels = batch(2, 1)
    torch.manual_seed(0)
    seen = torch.tensor([mixed(pictures, labels, alpha, 0)[2] for _ in range(1500)])
    assert seen.mean().item() == pytest.approx(0.5, abs=0.03)
    assert seen.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_a_picture_without_a_partner_stays_as_it_is() -> None:
    pictures, labels = batch(1)
    made, others, _ = mixed(pictures + 3, labels, 0.8, 0)
    torch.testing.assert_close(made, pictures + 3)
    assert others.tolist() == [0]


def test_channels_stay_innermost() -> None:
    pictures, labels = batch()
    pictures = pictures.to(memory_format=torch.channels_last)
    for mixup, cutmix in ((1, 0), (0, 1)):
        made, _, _ = mixed(pictures, labels, mixup, cutmix)
        assert made.is_contiguous(memory_format=torch.channels_last)


def test_shares_of_classes_add_up_to_one() -> None:
    got = shares(torch.tensor([0, 2, 1]), torch.tensor([1, 2, 0]), 0.75, 3)
    assert got.tolist() == [[0.75, 0.25, 0], [0, 0, 1], [0.25, 0.75, 0]]
