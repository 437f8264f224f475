"""Predicted against measured memory: one child process a row, the allocator's record as the judge.

`allocated` is the most bytes of torch's allocator at once (what is predicted); `process` is how far the process grew,
which holds what the allocator does not see: oneDNN's and MKL's own buffers, pages that the C library keeps, the
profiler.

    python -m benchmarks.memory [NAME ...] [--batch 1,8,16] [--size 224] [--dtype float32] [--mode inference,training]
"""

from __future__ import annotations

import argparse
import time

import torch

from convarium.cli.subject import subject
from convarium.costs.measured_memory import measure
from convarium.costs.memory import memory
from convarium.errors import ConvariumError

NAMES = ("resnet50", "vgg19", "densenet121", "mobilenet_v2", "efficientnet_b0", "vit_b_16", "convnext_tiny")
MIB = 2**20


def main() -> None:
    """Print one line a row, then the largest error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--batch", default="1,8,16")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--mode", default="inference,training")
    parser.add_argument("--optimizer", default="momentum")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(
        f"{asked.threads} threads, torch {torch.__version__}, {asked.device}, {asked.optimizer}, {asked.size} px"
    )
    print(
        f"{'network':<18}{'batch':>6}  {'mode':<10}{'dtype':<10}"
        f"{'predicted':>10}{'allocated':>10}{'ratio':>8}{'process':>9}{'predict s':>10}{'run s':>7}   MiB"
    )
    worst = 0.0
    for name in asked.names:
        found = subject(name, size=None if asked.size == 224 else asked.size)
        for batch in map(int, asked.batch.split(",")):
            for mode in asked.mode.split(","):
                for dtype in asked.dtype.split(","):
                    how = {
                        "batch": batch,
                        "training": mode == "training",
                        "dtype": dtype,
                        "optimizer": asked.optimizer,
                        "device": asked.device,
                    }
                    start = time.perf_counter()
                    said = memory(found.net, found.picture, **how)
                    middle = time.perf_counter()
                    row = f"{name:<18}{batch:>6}  {mode:<10}{dtype:<10}{said.peak / MIB:>10.1f}"
                    try:
                        got = measure(found.net, found.picture, **how)
                    except ConvariumError as error:
                        print(f"{row}   {error}", flush=True)
                        continue
                    ratio = said.peak / got.allocated
                    worst = max(worst, abs(ratio - 1))
                    process = "" if got.grown is None else f"{got.grown / MIB:.1f}"
                    print(
                        f"{row}{got.allocated / MIB:>10.1f}{ratio:>8.4f}{process:>9}{middle - start:>10.2f}"
                        f"{time.perf_counter() - middle:>7.1f}",
                        flush=True,
                    )
    print(f"largest error {worst:.1%}")


if __name__ == "__main__":
    main()
