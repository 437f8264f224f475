"""What counting costs: time, memory and the answer, beside torchinfo, fvcore and calflops, and torch's own counter.

    python -m benchmarks.costs [--networks resnet152,vgg19,convnext_large,vit_b_16] [--runs 3]

Each figure is from a fresh process: imports are done before the clock starts, building the network counts. Peers are
used as their pages say, on the processor, on torchvision's networks. Install them with the extra `peers`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

PROGRAMS = {
    "convarium": (
        "import torch, convarium; from convarium import api, models; from convarium.costs import cost as _",
        "c = convarium.cost(NAME); macs, note = c.macs, c.status",
    ),
    "torchinfo": (
        "import torch, torchvision, torchinfo",
        "net = torchvision.models.get_model(NAME); "
        "macs, note = torchinfo.summary(net, (1, 3, 224, 224), verbose=0).total_mult_adds, ''",
    ),
    "fvcore": (
        "import torch, torchvision, logging; logging.disable(); from fvcore.nn import FlopCountAnalysis",
        "net = torchvision.models.get_model(NAME).eval(); "
        "found = FlopCountAnalysis(net, torch.zeros(1, 3, 224, 224)); "
        "found.unsupported_ops_warnings(False); macs, note = found.total(), ''",
    ),
    "calflops": (
        "import torch, torchvision; from calflops import calculate_flops",
        "net = torchvision.models.get_model(NAME); "
        "macs = calculate_flops(net, (1, 3, 224, 224), print_results=False, print_detailed=False, "
        "output_as_string=False)[1]; note = ''",
    ),
    "FlopCounterMode": (
        "import torch, torchvision; from torch.utils.flop_counter import FlopCounterMode",
        "net = torchvision.models.get_model(NAME).eval()\n"
        "with FlopCounterMode(display=False) as counter, torch.no_grad(): net(torch.zeros(1, 3, 224, 224))\n"
        "macs, note = counter.get_total_flops() // 2, ''",
    ),
}

CHILD = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
NAME = {name!r}
{imports}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
{work}
seconds = time.perf_counter() - start
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([seconds, grown * 1024 / 1e6, float(macs), note]))
"""


def measure(tool: str, name: str) -> tuple[float, float, float, str] | str:
    """Seconds, megabytes of memory grown, MACs and a note; or why there is none."""
    imports, work = PROGRAMS[tool]
    code = CHILD.format(name=name, imports=imports, work=work)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1][:70]
    return tuple(json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="resnet152,vgg19,convnext_large,vit_b_16")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    print(f"{'network':16}{'tool':18}{'seconds':>9}{'of torchinfo':>14}{'MB':>8}{'GMAC':>9}")
    for name in asked.networks.split(","):
        # In turns, so that a busy moment hits all alike.
        rounds = [{tool: measure(tool, name) for tool in PROGRAMS} for _ in range(asked.runs)]
        peer = statistics.median(r["torchinfo"][0] for r in rounds if not isinstance(r["torchinfo"], str))
        for tool in PROGRAMS:
            found = [r[tool] for r in rounds]
            if isinstance(found[0], str):
                print(f"{name:16}{tool:18}  {found[0]}")
                continue
            seconds = statistics.median(f[0] for f in found)
            memory = statistics.median(f[1] for f in found)
            print(
                f"{name:16}{tool:18}{seconds:9.3f}{seconds / peer:14.3f}{memory:8.0f}{found[0][2] / 1e9:9.2f}"
                f"  {found[0][3]}"
            )


if __name__ == "__main__":
    main()
