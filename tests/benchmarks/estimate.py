"""Compare the estimate of a profile's time with a run that was recorded: python -m tests.benchmarks.estimate.

Units are timed on the CPU by the processor's time of one thread, which other processes hardly lengthen.
"""

import json
import sys
import time

from clcae_lib import paths
from clcae_lib.suite.plan import plan
from clcae_lib.suite.run_cost import HOST, count, measure


def main(profile: str = "quick", results: str = "reference") -> None:
    """Print TFLOP, estimated and recorded seconds of each notebook, and their ratio."""
    counts = {
        job.name: count(job) for job in plan(paths.notebooks_dir(), profile, settings=["device=cpu"])[1]
    }
    names = sorted({unit for units in counts.values() for unit in units} - {HOST})
    costs, _, _ = measure("portraits", "cpu", names, clock=time.process_time)
    for name, (gflop, seconds) in costs.items():
        print(f"{name:<28}{gflop:>9.3f} GFLOP {1000 * seconds:>9.2f} ms")
    print(f"\n{'notebook':<28}{'TFLOP':>9}{'estimate':>10}{'recorded':>10}{'ratio':>7}")
    for name, units in counts.items():
        tflop, seconds = (sum(n * costs[unit][k] for unit, n in units.items()) for k in (0, 1))
        recorded = json.loads((paths.results_dir() / results / name / "run.json").read_text())["seconds"]
        print(f"{name:<28}{tflop / 1e3:>9.1f}{seconds:>10.0f}{recorded:>10.0f}{seconds / recorded:>7.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
