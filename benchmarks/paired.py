"""Compare this checkout with another one: ``python benchmarks/paired.py OTHER [--pairs N] [--scenarios KEY ...]``.

Each pair measures the other checkout and this one directly after each other, every second pair in the other order, so
that a machine whose speed drifts does not decide.  What is printed is the median of the pairs' ratios of CPU per
message: 1.02 means that this checkout costs 2 % more.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import measure
from load import SCENARIOS, Scenario
from measure import Cores, free_port, run_load, run_measured, started, take_cores
from run import make_certificate

HERE = Path(__file__).resolve().parent
# A part of the messages is sent first, so that caches and allocators are warm.
WARM_UP = 10


def cost(checkout: Path, scenario: Scenario, certificate: Path, cores: Cores) -> float:
    """Microseconds of CPU for a message."""
    port = free_port()
    command = [sys.executable, str(checkout / "benchmarks/servers/ours.py"), "--port", str(port)]
    command += ["--hook", scenario.hook, "--tls", scenario.tls, "--certificate", str(certificate)]
    command += ["--auth"] if scenario.auth else []
    measure.HERE = checkout / "benchmarks"
    with started(command, port, cores, silent=scenario.tls == "implicit") as server:
        run_load(scenario.command(port, max(1, scenario.messages // WARM_UP)))
        sample = run_measured(server, scenario.command(port, scenario.messages), scenario.messages)
        server.stop()
    return sample.cpu / sample.messages * 1e6


def main() -> None:
    """Measure, and print a line for each scenario."""
    keys = [scenario.key for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path, help="the folder of the other checkout")
    parser.add_argument("--pairs", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--scenarios", nargs="+", choices=keys, metavar="KEY", help=f"only these of {', '.join(keys)}")
    options = parser.parse_args()
    chosen = [scenario for scenario in SCENARIOS if scenario.key in (options.scenarios or keys)]
    cores = take_cores()
    print(f"{'':44} {'other':>9} {'this':>9}  this / other: median (lowest to highest) of {options.pairs} pairs")
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder))
        for scenario in chosen:
            pairs = []
            for number in range(options.pairs):
                order = (options.other.resolve(), HERE.parent)
                turns = order if number % 2 else order[::-1]
                found = {path: cost(path, scenario, certificate, cores) for path in turns}
                pairs.append([found[path] for path in order])
            ratios = sorted(new / old for old, new in pairs)
            old, new = (statistics.median(column) for column in zip(*pairs, strict=True))
            spread = f"{statistics.median(ratios):.3f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            print(f"{scenario.title:44} {old:7.1f}us {new:7.1f}us  {spread}", flush=True)


if __name__ == "__main__":
    main()
