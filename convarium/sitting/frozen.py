"""The classifier alone learns: each picture goes through the frozen network once, and its features are kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import PIL
import torch
from torch import Tensor, nn

from convarium import storage
from convarium.costs.machine import threads
from convarium.data.augment import SETS, Augment
from convarium.data.loader import Batch, Checked, Loader
from convarium.data.pictures import PictureSet, contents
from convarium.data.preprocessing import Preprocessing
from convarium.deploy import halves, kept, processor
from convarium.deploy.job import BATCH as AT_ONCE
from convarium.deploy.job import Chosen
from convarium.errors import ArgumentError
from convarium.judge import scoring
from convarium.judge.metrics import brief
from convarium.judge.scoring import BATCH, Given, in_eval_mode
from convarium.net import Net
from convarium.sitting.learn import Decided, kept_decisions, setting_of, task_of
from convarium.sitting.state import Sitting, Trained
from convarium.training import loop, signals
from convarium.training.checkpoint import Parts
from convarium.training.precision import Precision
from convarium.training.recipes import Recipe, recipe

TRIED = 16
"""Training pictures, spread over all, on which ways are compared."""

CHUNK = 1024
"""Pictures after whose features they are written down."""


def learn_classifier(now: Sitting, net: Net, preprocessing: Preprocessing, stop: signals.Stop) -> Trained:
    """Train the classifier on features of pictures, and nothing else.

    Args:
        now: the sitting.
        net: with the weights that stay; its classifier is trained in place.
        preprocessing: of the pictures.
        stop: looked at while features are computed and after each step.

    Returns:
        The network, and what it gives to the held-out pictures.

    Raises:
        ArgumentError: this network's classifier cannot be trained alone.
    """
    frozen = _Frozen(now, net, preprocessing, stop)
    now.watch.note(
        f"{now.config['architecture']['name']}, frozen, on {len(now.sets['train'].good):,} pictures of "
        f"{len(now.found.classes)} classes, {len(now.sets['val'].good):,} held out; its classifier learns from kept "
        f"features for {now.recipe.epochs} epochs"
    )
    features = {part: frozen.features(part) for part in now.sets}
    if frozen.computed:
        now.watch.note(
            f"features of {frozen.computed:,} pictures in {frozen.spent:.1f} s, after {frozen.choosing:.1f} s of "
            f"choosing how: {frozen.how}"
        )
    recipe, reason = now.recipe, f"of the classifier; features: {frozen.how}"
    batch = recipe.batch or min(BATCH, len(now.sets["train"].good))
    way = kept_decisions(now, lambda: Decided(Precision(False, False, reason), batch, recipe.epochs)).way
    parts = _fitted(now, frozen.tail, features, now.recipe, way, stop)
    frozen.tail.load_state_dict(loop.kept(parts).state_dict())
    given = {part: _given(frozen.tail, features[part][0], now.device) for part in features}
    notes = [*frozen.notes, *filter(None, (parts.progress.ended,))]
    return Trained(net, parts.progress, way, given, tuple(notes))


def head_first(now: Sitting, net: Net, preprocessing: Preprocessing, stop: signals.Stop) -> None:
    """Train the classifier on kept features before everything learns, so that no good weight is thrown about.

    Args:
        now: the sitting, at its beginning.
        net: its classifier is trained in place.
        preprocessing: of the pictures.
        stop: looked at while features are computed and after each step.
    """
    frozen = _Frozen(now, net, preprocessing, stop)
    features = {part: frozen.features(part) for part in ("train", "val")}
    shared = {name: getattr(now.recipe, name) for name in ("label_smoothing", "balance", "views")}
    how = replace(recipe("probe"), epochs=now.recipe.head, **shared)
    began = time.perf_counter()
    state = now.folder.state.with_name("classifier.safetensors")
    way = Precision(False, False, "features are kept")
    # Seconds long, and always done from its beginning: nothing of it is resumed.
    task = task_of(now, frozen.tail, how)
    setting = replace(_setting(now, way, features, stop), state=state, watcher=_Silent())
    with threads(1):
        parts = loop.fit(task, _Views(now, features["train"], how), how, setting)
    frozen.tail.load_state_dict(loop.kept(parts).state_dict())
    state.unlink(missing_ok=True)
    top1 = parts.progress.history[-1]["val_top1"]
    now.watch.note(
        f"first the classifier alone, {how.epochs} epochs on kept features in "
        f"{time.perf_counter() - began:.1f} s: {top1:.1%} of the validation pictures"
    )


class _Frozen:
    """A network in two: what stays, whose outputs are kept, and what learns."""

    def __init__(self, now: Sitting, net: Net, preprocessing: Preprocessing, stop: signals.Stop) -> None:
        self.now, self.preprocessing, self.stop = now, preprocessing, stop
        self.trunk, self.tail = halves.trunk(net).eval(), halves.tail(net)
        two = preprocessing.normalise(self._some(2).to(now.device))
        try:
            with in_eval_mode(net), torch.inference_mode():
                middle = self.trunk(two)
                expected, found = net(two), self.tail(middle)
            apart = found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3, atol=1e-4)
        except RuntimeError:  # what stands between them does not run by itself
            apart = True
        if apart:
            raise ArgumentError(
                f"the classifier of {now.config['architecture']['name']} is not its last part, so it cannot be trained "
                "alone; take the recipe finetune with --head 0, or scratch"
            )
        self.shape = middle.shape[1:]
        self.bf16 = now.config["precision"] != "fp32"
        # The versions of what computes and of what decodes; one architecture's tensors may fit another.
        versions = {
            **processor.versions(),
            "convarium": "",
            "torch": torch.__version__,
            "Pillow": PIL.__version__,
        }
        told = (now.config["architecture"], versions, self.bf16)
        title = kept.identity(self.trunk, preprocessing.to_dict(), *told)
        self.kept = kept.Kept(storage.cache_folder() / "features" / title)
        self.engine: Chosen | None = None
        self.computed = 0  # pictures that went through the network
        self.spent, self.choosing = 0.0, 0.0  # seconds that took, and those until it was known how
        self.notes: list[str] = []

    @property
    def how(self) -> str:
        """How features were computed, in words."""
        if self.engine is None:
            return "all kept from before"
        return f"{self.engine}; relative difference from plain float32 {halves.difference(self.engine):.1e}"

    def features(self, part: str) -> list[Tensor]:
        """Features of a part's pictures; of training pictures also of their augmented views.

        Args:
            part: of the data.

        Returns:
            float32 (N, ...), one a view.
        """
        return [self._view(part, view) for view in range(self._views(part))]

    def _views(self, part: str) -> int:
        return self.now.recipe.views if part == "train" else 1

    def _some(self, most: int) -> Tensor:
        train = self.now.sets["train"]
        count = len(train.good)
        few = _part_of(train, range(0, count, max(1, count // most))[:most])
        loader = Loader(few.good, self.preprocessing, batch=most, seed=0, prepared=few.prepared)
        return next(loader.batches(0)).pictures

    def _view(self, part: str, view: int) -> Tensor:
        augment = self._augment(view)
        names = self._names(self.now.sets[part].good, view, augment)
        found = self.kept.find(names)
        missing = [i for i, name in enumerate(names) if name not in found]
        if missing:
            self._compute(part, view, augment, missing, names, found)
        return torch.from_numpy(np.stack([found[name] for name in names]))

    def _augment(self, view: int) -> Augment | None:
        return SETS[self.now.config["augment"]] if view else None

    def _missing(self) -> int:
        """Pictures that are still to go through the network, of all parts and views."""
        named = [
            self._names(checked.good, view, self._augment(view))
            for part, checked in self.now.sets.items()
            for view in range(self._views(part))
        ]
        found = self.kept.find([name for names in named for name in names])
        return sum(name not in found for names in named for name in names)

    def _names(self, pictures: PictureSet, view: int, augment: Augment | None) -> list[str]:
        """By content; where chance comes in, by what rules it, too."""
        digests = [digest for _, digest in contents(pictures.pictures)]
        if not view:
            return digests
        ruled = kept.identity(
            nn.Identity(), augment.to_dict() if augment else None, self.now.config["seed"], view
        )
        return [
            f"{digest} {ruled} {picture.key}"
            for digest, picture in zip(digests, pictures.pictures, strict=True)
        ]

    def _compute(
        self,
        part: str,
        view: int,
        augment: Augment | None,
        missing: list[int],
        names: Sequence[str],
        found: dict[str, np.ndarray],
    ) -> None:
        """Fill in what is missing; what is done is kept from time to time, so that little is lost."""
        few = _part_of(self.now.sets[part], missing)
        if self.engine is None:
            began = time.perf_counter()
            self.engine = self._chosen()
            self.choosing = time.perf_counter() - began
        loader = Loader(
            few.good,
            self.preprocessing,
            batch=self.engine.ready.batch,
            seed=self.now.config["seed"],
            augment=augment,
            workers=self.now.workers(few),
            prepared=few.prepared,
        )
        ready, fresh = self.engine.ready, dict[str, np.ndarray]()
        began = time.perf_counter()
        what = f"features of {part} pictures" + (f", view {view + 1}" if view else "")
        with self.now.watch.bar(what) as shown:

            def rows() -> Iterator[np.ndarray]:
                for batch in loader.batches(view):
                    self.stop.check("the features so far are kept")
                    yield from ready(batch.pictures.numpy())[0].reshape(-1, *self.shape)

            try:
                for done, (place, row) in enumerate(zip(missing, rows(), strict=True), start=1):
                    fresh[names[place]] = row
                    shown(done, len(missing))
                    if len(fresh) == CHUNK:
                        found |= fresh
                        self._keep(fresh)
                        fresh = {}
            finally:
                self._keep(fresh)
        self.computed += len(missing)
        self.spent += time.perf_counter() - began
        found |= fresh

    def _chosen(self) -> Chosen:
        """The fastest way, found when the run began: a resumed one must compute what is missing in the same."""
        file = self.now.folder.state.with_name("engine.txt")
        # Not by what is missing: of another number at once, sums are formed in another order.
        batch = min(AT_ONCE, sum(len(checked.good) for checked in self.now.sets.values()))
        with self.now.watch.bar("finding the fastest way") as shown:

            def on_trial(name: str) -> None:
                shown(0, 1)
                self.stop.check("no features were computed yet: the fastest way was still being looked for")

            found = halves.chosen(
                self.trunk,
                self.preprocessing,
                self.now.device,
                self._some(TRIED).numpy(),
                self._missing(),
                batch,
                exact=not self.bf16,
                name=file.read_text("utf-8") if file.exists() else None,
                on_trial=on_trial,
            )
        for note in found.notes:
            self.now.watch.note(f"note: {note}")
        storage.write_text(file, found.name)
        return found

    def _keep(self, rows: dict[str, np.ndarray]) -> None:
        why = self.kept.add(rows)
        if why and why not in self.notes:
            self.notes.append(why)
            self.now.watch.note(f"note: features are not kept for the next time: {why}")


class _Views:
    """Batches of features for the loop, in the order in which pictures would come: each epoch has the next view."""

    def __init__(self, now: Sitting, views: list[Tensor], how: Recipe) -> None:
        train = now.sets["train"].good
        self.views = views
        self.loader = Loader(
            train,
            now.preprocessing(),
            batch=min(how.batch or BATCH, len(train)),
            seed=now.config["seed"],
            shuffle=True,
            balance=how.balance == "sampling",
        )
        self.labels = torch.tensor([picture.label for picture in train.pictures])

    def __len__(self) -> int:
        return len(self.loader)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch."""
        rows = self.views[epoch % len(self.views)]
        for index in self.loader.order(epoch).split(self.loader.batch)[start:]:
            yield Batch(rows[index], self.labels[index], index)


class _Silent:
    """A watcher that says nothing."""

    def step(self, *args: object) -> None: ...

    def epoch(self, *args: object) -> None: ...

    def note(self, *args: object) -> None: ...


def _fitted(
    now: Sitting,
    tail: nn.Module,
    features: dict[str, list[Tensor]],
    how: Recipe,
    way: Precision,
    stop: signals.Stop,
) -> Parts:
    # One thread: these products are so small that two would mostly wait for each other.
    with now.watch.bar("training the classifier"), threads(1):
        return loop.fit(
            task_of(now, tail, how),
            _Views(now, features["train"], how),
            how,
            _setting(now, way, features, stop),
            now.resume,
        )


def _setting(
    now: Sitting, way: Precision, features: dict[str, list[Tensor]], stop: signals.Stop
) -> loop.Setting:
    val = now.sets["val"].good
    labels = np.array([picture.label for picture in val.pictures])

    def validate(network: nn.Module) -> dict[str, float]:
        return brief(_given(network, features["val"][0], now.device).probabilities, labels)

    return setting_of(now, way, _unchanged, validate, stop)


def _unchanged(features: Tensor) -> Tensor:
    return features


def _given(tail: nn.Module, features: Tensor, device: torch.device) -> Given:
    return scoring.joined(scoring.given(tail, tail, features.split(BATCH), _unchanged, device))


def _part_of(checked: Checked, positions: Sequence[int]) -> Checked:
    """Some pictures of a set, with what is prepared of them."""
    good = PictureSet(checked.good.classes, tuple(checked.good.pictures[i] for i in positions))
    prepared = None if checked.prepared is None else checked.prepared[torch.as_tensor(list(positions))]
    return replace(checked, good=good, prepared=prepared)
