"""The loop does what a plain loop does, once a step, and goes on where it stopped."""

from __future__ import annotations

import copy
import json
import math
import signal
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from convarium.data.loader import Batch
from convarium.errors import ArgumentError, Interrupted, RunError, UnknownName, UserError
from convarium.models import create
from convarium.training import checkpoint, loop, optim
from convarium.training.precision import Precision, choose
from convarium.training.recipes import RECIPES, Recipe, recipe
from convarium.training.signals import Stop, listening
from convarium.training.task import Classify
from convarium.training.watch import Watch

PLAIN = Recipe(epochs=2, batch=8, optimizer="sgd", lr=0.05, warmup=0, schedule="constant", clip=0)


class Fixed:
    """Three batches of noise an epoch, the same each time."""

    def __init__(self, size=16, channels=3):
        generator = torch.Generator().manual_seed(1)
        self.pictures = torch.randint(
            0, 256, (24, channels, size, size), generator=generator, dtype=torch.uint8
        )
        self.labels = torch.arange(24) % 10

    def __len__(self):
        return 3

    def batches(self, epoch, start=0):
        for i in range(start, 3):
            rows = torch.arange(8) * 3 + (i + epoch) % 3
            yield Batch(self.pictures[rows], self.labels[rows], rows)


def setting(tmp_path, **changes) -> loop.Setting:
    values = {
        "seed": 0,
        "device": torch.device("cpu"),
        "precision": Precision(False, False, "test"),
        "normalise": lambda x: x.float() / 255 - 0.5,
        "validate": None,
        "state": tmp_path / "last.safetensors",
        "minutes": 60.0,
        "stop": Stop(),
        "watcher": Watch(quiet=True),
    }
    return loop.Setting(**{**values, **changes})


def small(seed=0, **task) -> Classify:
    torch.manual_seed(seed)
    return Classify(create("resnet20", depth=8, size=16), **task)


def same(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_steps_are_those_of_a_plain_loop(tmp_path):
    task = small()
    bare = copy.deepcopy(task.net)
    loop.fit(task, Fixed(), PLAIN, setting(tmp_path))
    optimizer = torch.optim.SGD(optim.parameter_groups(bare, PLAIN), lr=0.05, momentum=0.9)
    for epoch in range(2):
        for batch in Fixed().batches(epoch):
            optimizer.zero_grad()
            F.cross_entropy(bare(batch.pictures.float() / 255 - 0.5), batch.labels).backward()
            optimizer.step()
    for (name, ours), theirs in zip(task.net.state_dict().items(), bare.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)


def test_bfloat16_steps_go_the_same_way(tmp_path):
    start, exact, quick = small(), small(), small()
    once = replace(PLAIN, epochs=1, momentum=0.0)
    loop.fit(exact, Fixed(), once, setting(tmp_path))
    loop.fit(quick, Fixed(), once, setting(tmp_path, precision=Precision(True, True, "test")))
    moves = [
        torch.cat([(p - q).flatten() for p, q in zip(end.parameters(), start.parameters(), strict=True)])
        for end in (exact, quick)
    ]
    assert F.cosine_similarity(*moves, dim=0) > 0.98
    assert moves[1].norm().item() == pytest.approx(moves[0].norm().item(), rel=0.1)


@pytest.mark.parametrize("stop_at", [1, 3, 4])
@pytest.mark.parametrize(
    "how",
    [
        replace(PLAIN, ema=0.9),
        replace(PLAIN, optimizer="adamw", schedule="cosine", patience=3, label_smoothing=0.1, clip=1.0),
        replace(PLAIN, schedule="plateau", plateau=1),
        replace(PLAIN, optimizer="rmsprop", schedule="exponential"),
    ],
    ids=["ema", "adamw", "plateau", "rmsprop"],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_stopped_run_ends_bit_for_bit_where_an_uninterrupted_one_does(
    tmp_path, how, stop_at, channels_last
):
    way = Precision(channels_last, channels_last, "test")

    def validate(net):
        net.eval()
        with torch.no_grad():
            loss = F.cross_entropy(net(Fixed().pictures.float() / 255 - 0.5), Fixed().labels).item()
        return {"val_loss": loss, "val_top1": 0.5}

    whole = small()
    whole_parts = loop.fit(whole, Fixed(), how, setting(tmp_path, precision=way, validate=validate))

    stop = Stop()

    class Stopper(Watch):
        def step(self, progress, steps_per_epoch, loss):
            if progress.step == stop_at:
                stop.signal = signal.SIGTERM

    state = tmp_path / "cut.safetensors"
    broken = setting(
        tmp_path, precision=way, validate=validate, state=state, stop=stop, watcher=Stopper(quiet=True)
    )
    with pytest.raises(Interrupted, match=f"the state after step {stop_at} is kept"):
        loop.fit(small(), Fixed(), how, broken)
    other = small(seed=5)  # nothing of it may survive
    parts = loop.fit(
        other, Fixed(), how, setting(tmp_path, precision=way, validate=validate, state=state), resume=True
    )
    assert same(other, whole)
    assert same(loop.kept(parts), loop.kept(whole_parts))
    for mine, theirs in zip(parts.progress.history, whole_parts.progress.history, strict=True):
        assert {k: v for k, v in mine.items() if k != "seconds"} == {
            k: v for k, v in theirs.items() if k != "seconds"
        }


def test_early_stopping_keeps_the_best_epoch(tmp_path):
    losses = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    seen = []

    def validate(net):
        seen.append(copy.deepcopy(net.state_dict()))
        return {"val_loss": next(losses), "val_top1": 0.0}

    parts = loop.fit(
        small(), Fixed(), replace(PLAIN, epochs=6, patience=2), setting(tmp_path, validate=validate)
    )
    assert parts.progress.epoch == 4
    kept = loop.kept(parts).state_dict()
    assert all(torch.equal(kept[name], seen[1][name]) for name in kept)


def test_averaged_weights_lag_behind(tmp_path):
    task = small()
    start = {name: value.clone() for name, value in task.net.state_dict().items()}
    parts = loop.fit(task, Fixed(), replace(PLAIN, ema=0.99), setting(tmp_path))
    name = "head.fc.weight"
    moved = (parts.task.net.state_dict()[name] - start[name]).norm()
    averaged = (loop.kept(parts).state_dict()[name] - start[name]).norm()
    assert 0 < averaged < moved


def test_a_loss_that_is_no_number_ends_training_and_keeps_the_state(tmp_path):
    with pytest.raises(UserError, match="training diverged"):
        loop.fit(small(), Fixed(), replace(PLAIN, lr=1e30, epochs=5), setting(tmp_path))


def test_the_callers_generator_is_left_alone(tmp_path):
    task = small()
    before = torch.get_rng_state()
    loop.fit(task, Fixed(), replace(PLAIN, epochs=1), setting(tmp_path))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_full_disk_in_the_middle_does_not_end_training(tmp_path, monkeypatch):
    notes = []
    real = checkpoint.save
    calls = iter([True, False])

    def sometimes(*arguments):
        if next(calls):
            raise RunError("the disk is full")
        real(*arguments)

    monkeypatch.setattr(checkpoint, "save", sometimes)
    watcher = Watch(quiet=True)
    watcher.note = notes.append
    loop.fit(small(), Fixed(), PLAIN, setting(tmp_path, watcher=watcher))
    assert checkpoint.progress(tmp_path / "last.safetensors").finished
    assert "training goes on" in notes[0]


def test_a_full_disk_at_the_end_says_that_the_state_before_is_intact(tmp_path, monkeypatch):
    def full(*arguments):
        raise RunError("the disk is full")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(RunError, match="the state before is intact"):
        loop.fit(small(), Fixed(), replace(PLAIN, epochs=1), setting(tmp_path))


def test_a_damaged_state_is_refused(tmp_path):
    used = setting(tmp_path)
    loop.fit(small(), Fixed(), replace(PLAIN, epochs=1), used)
    used.state.write_bytes(used.state.read_bytes()[:1000])
    with pytest.raises(RunError, match="not a whole state"):
        loop.fit(small(), Fixed(), PLAIN, used, resume=True)


def test_a_state_of_another_network_is_refused(tmp_path):
    used = setting(tmp_path)
    loop.fit(small(), Fixed(), replace(PLAIN, epochs=1), used)
    with pytest.raises(RunError, match="another network"):
        loop.fit(Classify(create("resnet20", depth=14)), Fixed(), PLAIN, used, resume=True)


def test_the_state_is_no_pickle(tmp_path):
    used = setting(tmp_path)
    loop.fit(small(), Fixed(), replace(PLAIN, epochs=1), used)
    length = int.from_bytes(used.state.read_bytes()[:8], "little")
    header = json.loads(used.state.read_bytes()[8 : 8 + length])
    assert json.loads(header["__metadata__"]["convarium_state"])["progress"]["step"] == 3


def test_cosine_warms_up_and_ends_at_nothing():
    how = Recipe(epochs=10, lr=1.0, warmup=1, schedule="cosine")
    rates = [optim.learning_rate(how, step, 10) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 1e-3
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_warm_up_never_takes_more_than_half():
    how = Recipe(epochs=1, lr=1.0, warmup=5)
    assert optim.learning_rate(how, 4, 10) == pytest.approx(1.0)


def test_plateau_divides_by_ten_after_waiting():
    plateau = optim.Plateau(patience=2)
    factors = []
    for error in (0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.3):
        plateau.update(error)
        factors.append(plateau.factor)
    assert factors == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_part_may_learn_at_a_rate_of_its_own(tmp_path):
    class Slow(torch.nn.Linear):
        rate = 0.1

    def moved(part):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), part(3 * 16 * 16, 10))
        before = net[1].weight.detach().clone()
        way = replace(
            PLAIN, epochs=1, momentum=0.0, weight_decay=0.0, clip=0.0, warmup=0.0, schedule="constant"
        )
        one = Fixed()
        loop.fit(Classify(net), one, way, setting(tmp_path))
        return (net[1].weight - before).norm().item()

    assert moved(Slow) == pytest.approx(0.1 * moved(torch.nn.Linear), rel=0.2)


def test_the_exponential_schedule_falls_every_second_epoch():
    recipe = Recipe(schedule="exponential", lr=1.0, warmup=0.0, epochs=6)
    rates = [optim.learning_rate(recipe, step, steps_per_epoch=3) for step in (0, 5, 6, 11, 12)]
    assert rates == pytest.approx([1, 1, 0.94, 0.94, 0.94**2])


def test_auxiliary_classifiers_add_their_weighted_losses():
    class Three(torch.nn.Module):
        taps = ("a", "b")

        def auxiliary(self, x):
            return x, [2 * x, 3 * x]

    scores, labels = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 4])
    loss = [F.cross_entropy(factor * scores, labels, label_smoothing=0.1).item() for factor in (1, 2, 3)]
    got = Classify(Three(), label_smoothing=0.1, auxiliary=0.4).step(scores, labels)
    assert got["loss"].item() == pytest.approx(loss[0] + 0.4 * (loss[1] + loss[2]))
    assert got["correct"] == (scores.argmax(1) == labels).sum()


def test_training_googlenet_reaches_its_auxiliary_classifiers():
    task = Classify(create("googlenet_2014", classes=3, size=96))
    task.step(torch.randn(2, 3, 96, 96), torch.tensor([0, 2]))["loss"].backward()
    assert all(p.grad is not None for p in task.net.aux.parameters())
    without = Classify(create("googlenet_2014", classes=3, size=96), auxiliary=0)
    without.step(torch.randn(2, 3, 96, 96), torch.tensor([0, 2]))["loss"].backward()
    assert all(p.grad is None for p in without.net.aux.parameters())


def test_norms_and_biases_are_not_decayed_unless_asked():
    net = create("resnet20", depth=8)
    groups = optim.parameter_groups(net, Recipe(weight_decay=0.1))
    assert all(p.ndim >= 2 for p in groups[0]["params"]) and groups[0]["weight_decay"] == 0.1
    assert all(p.ndim < 2 for p in groups[1]["params"]) and groups[1]["weight_decay"] == 0.0
    assert len(optim.parameter_groups(net, Recipe(decay_all=True))) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("lr", 0.0), ("epochs", 0), ("momentum", 1.0), ("optimizer", "adam"), ("ema", 1.0), ("lr", math.nan)],
)
def test_a_recipe_refuses_what_is_not_allowed(field, value):
    with pytest.raises(ArgumentError, match=f"{field} = {value!r}; it must be"):
        recipe(**{field: value})


def test_unknown_recipes_and_settings_are_refused_by_name():
    with pytest.raises(UnknownName, match="did you mean resnet2015"):
        recipe("resnet2014")
    with pytest.raises(UnknownName, match="momentum"):
        recipe(momentun=0.9)


def test_a_recipe_is_frozen():
    with pytest.raises(AttributeError):
        RECIPES["scratch"].lr = 1.0


def test_choosing_leaves_the_task_as_it_was():
    task = small()
    before = copy.deepcopy(task)
    choose("auto", task, (512, 3, 16, 16), 10, torch.device("cpu"))
    assert same(task, before) and all(p.grad is None for p in task.parameters())


def test_signals_are_noted_and_handlers_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with listening() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted) as raised:
            stop.check("kept")
    assert raised.value.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
