"""Trials too long for `make test`: `make campaign` prints a row of a table for each, in half an hour."""

import argparse
import sys

from tests.campaign import trials

TRIALS = {
    "hostile weights, every path": trials.hostile_weights,
    "trainings, kill -9 at random": trials.killed_trainings,
    "sweeps, kill -9 of anything": trials.killed_sweeps,
}


def main() -> int:
    """Print the table; return 0 if nothing fell."""
    parser = argparse.ArgumentParser(prog="make campaign", description=__doc__)
    parser.add_argument("--only", default="", help="trials whose names have this in them")
    only, outcomes = parser.parse_args().only, []
    print("| trial | outcome | evidence |\n|---|---|---|")
    for name, trial in TRIALS.items():
        if only not in name:
            continue
        count, fell = trial()
        outcomes.append(not fell)
        shown = "; ".join(fell[:4]).replace("|", "/") + (" ..." if len(fell) > 4 else "")
        said = f"{count} trials" + (f"; {len(fell)} fell: {shown}" if fell else "")
        print(f"| {name} | {'FELL' if fell else 'ok'} | {said} |", flush=True)
    return int(not all(outcomes))


if __name__ == "__main__":
    sys.exit(main())
