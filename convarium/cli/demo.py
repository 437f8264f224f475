"""convarium demo: real digits, LeNet-5, a report, in one go."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import typer


def run(
    out: Path = typer.Option(None, help="Folder of the run; a new one below runs/ by default."),
    seed: int = typer.Option(0, help="Of weights, order, augmentation and split."),
    as_json: bool = typer.Option(False, "--json", help="End with one JSON object."),
) -> None:
    """Train LeNet-5 on the real handwritten digits that come with scikit-learn, and write a report."""
    import torch

    from convarium import api, classifier
    from convarium.cli.train import tell
    from convarium.data.builtin import write_digits
    from convarium.training.run import RunFolder, new_folder

    started = time.perf_counter()
    # So small a network gains nothing from a second thread, and on a busy machine threads that wait for each other
    # would make seconds into minutes.
    torch.set_num_threads(1)
    folder = out or new_folder(Path("runs"), "demo")
    RunFolder(folder).must_be_new()
    digits = write_digits(folder / "digits", seed)
    print(f"1797 handwritten digits of 8 x 8 pixels lie in {digits}", file=sys.stderr)
    finished = api.train(digits, "lenet5", folder, seed=seed, precision="fp32", quiet=False, epochs=12)
    samples = sorted((digits / "val").glob("*/*.png"))[::45]
    said = classifier.load(finished.model).predict(samples, top=3)
    seconds = round(time.perf_counter() - started, 3)
    if as_json:
        tell(finished, True, seconds=seconds, predictions=[p.to_dict() for p in said])
        return
    print("\nsome of the held-out digits, and what the trained network says of them:")
    for prediction in said:
        name, probability, _ = prediction[0]
        print(f"  {prediction.path}: {name} ({probability:.1%})")
    print()
    tell(finished, False)
    print(f"time    {seconds:.0f} s")
    print(f"\nNow open {finished.report}, or try your own pictures: convarium train FOLDER --model resnet20")
