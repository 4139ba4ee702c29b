"""Try every row of the campaign on reliability and security again, and print one table.

A row is a set of tests, by their names, or a trial; it fell if one of them did. Half an hour on two cores.
"""

import argparse
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from tests.campaign import trials

#: What was found, and the tests that try it again: files under tests/ with the beginnings of tests' names.
ROWS: dict[str, dict[str, str]] = {
    "H1 malformed websockets; M1 foreign Host": {"browser/test_hostile.py": ""},
    "M2 own photographs, M3 without landmarks": {"notebooks/test_own_photographs.py": ""},
    "M4 sizes from the config": {"unit/test_weights_hostile.py": "sizes_come a_config_of_any"},
    "M5 not finite, whole numbers": {"unit/test_weights_hostile.py": "weights_that_are_not_finite"},
    "M6 names of variants": {"unit/test_suite_parts.py": "a_wrong_sweep"},
    "M7 damaged state": {"unit/test_loop.py": "a_state_of", "unit/test_checkpoints.py": "a_damaged_or"},
    "M8 flipped byte of a state": {"unit/test_checkpoints.py": "a_flipped_bit"},
    "L1 full disk": {"unit/test_checkpoints.py": "a_full_disk", "unit/test_suite_sweep.py": "a_full_disk"},
    "L2 partial files": {"unit/test_loop.py": "partial_files"},
    "L3 metrics.csv after a stop": {"unit/test_loop.py": "a_run_stopped_between"},
    "L4 malformed YAML and JSON": {
        "unit/test_suite_parts.py": "a_wrong_profile a_malformed_setting",
        "unit/test_cli.py": "a_wrong_file a_hostile_setting info_names",
        "unit/test_worlds_photos.py": "a_damaged_settings the_list_says",
        "unit/test_weights_manifest.py": "",
    },
    "L5 files of directions": {"field/test_directions.py": ""},
    "L6 slow refusals": {
        "unit/test_weights_hostile.py": "many_short bombs",
        "unit/test_photos_alignment.py": "a_damaged_file",
        "unit/test_suite_parts.py": "a_wrong_sweep",
    },
    "L8 compressed state": {"unit/test_checkpoints.py": "a_compressed_state"},
    "L9 errors that no cell sees": {
        "unit/test_suite_runner.py": "an_exception whatever_is_wrong",
        "browser/test_lab.py": "",
    },
    "L10 report of a foreign folder": {"unit/test_suite_reference.py": "a_report_of"},
    "L11 places, long names, permissions": {
        "unit/test_weights_manifest.py": "a_wrong",
        "unit/test_checkpoints.py": "round_trip",
        "unit/test_files.py": "atomic_path",
        "field/test_weights.py": "24_",
    },
    "odd images": {"unit/test_photos_reading.py": "", "unit/test_explorer_files.py": ""},
    "states and uploads of the explorer": {
        "unit/test_explorer_state.py": "",
        "unit/test_explorer_app.py": "a_bad_upload a_saved_state a_hundred visitors the_page_runs",
        "browser/test_voila.py": "",
    },
    "sweeps: driver, worker, disk": {
        "unit/test_suite_sweep.py": "a_killed without_room a_run_that one_failing"
    },
    "runs: dead kernels, interrupts": {"unit/test_suite_runner.py": "an_interrupted a_second_run a_failure"},
}
TRIALS = {
    "hostile weights, every path": trials.hostile_weights,
    "trainings, kill -9 at random": trials.killed_trainings,
    "sweeps, kill -9 of anything": trials.killed_sweeps,
}


def belongs(name: str, wanted: dict[str, str]) -> bool:
    """Whether a test, "unit.test_x.test_name[...]", is one of a row's."""
    for file, beginnings in wanted.items():
        module = file.removesuffix(".py").replace("/", ".") + ".test_"
        if name.startswith(module):
            rest = name.removeprefix(module)
            return not beginnings or rest.startswith(tuple(beginnings.split()))
    return False


def run_tests(chosen: dict[str, dict[str, str]], report: Path) -> dict[str, str]:
    """Run the tests of these rows once; return the outcome of each test, "" where it passed."""
    files = sorted({f"tests/{file}" for wanted in chosen.values() for file in wanted})
    wanted = [(Path(file).stem, names.split()) for row in chosen.values() for file, names in row.items()]
    words = {word for stem, names in wanted for word in ([f"test_{name}" for name in names] or [stem])}
    options = ["-q", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider"]
    options += ["-k", " or ".join(sorted(words)), f"--junitxml={report}"]
    subprocess.run([sys.executable, "-m", "pytest", *options, *files], check=False)
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}".removeprefix("tests.")
        bad = [part for part in case if part.tag in ("failure", "error", "skipped")]
        outcomes[name] = bad[0].tag if bad else ""
    return outcomes


def judge(wanted: dict[str, str], outcomes: dict[str, str]) -> tuple[list[str], str]:
    """Return the tests of a row that fell, and how many there were."""
    mine = {test: outcome for test, outcome in outcomes.items() if belongs(test, wanted)}
    ran = {test: outcome for test, outcome in mine.items() if outcome != "skipped"}
    fell = [test.rpartition(".test_")[2] for test, outcome in ran.items() if outcome]
    left_out = f", {len(mine) - len(ran)} left out" if len(mine) > len(ran) else ""
    return fell if ran else ["no test ran"], f"{len(ran)} tests{left_out}"


def rows(only: str) -> Iterator[tuple[str, list[str], str]]:
    """Yield the name of each row that is asked for, what fell, and how much was tried."""
    report = Path("results") / "campaign.xml"
    report.parent.mkdir(exist_ok=True)
    chosen = {name: wanted for name, wanted in ROWS.items() if only in name}
    outcomes = run_tests(chosen, report) if chosen else {}
    print("\n| row | outcome | evidence |\n|---|---|---|")
    for name, wanted in chosen.items():
        yield name, *judge(wanted, outcomes)
    for name, trial in TRIALS.items():
        if only in name:
            count, fell = trial()
            yield name, fell, f"{count} trials"


def main() -> int:
    """Print the table; return 0 if nothing fell."""
    parser = argparse.ArgumentParser(prog="make campaign", description=__doc__)
    parser.add_argument("--only", default="", help="rows whose names have this in them, trials among them")
    begun, outcomes = time.monotonic(), []
    for name, fell, evidence in rows(parser.parse_args().only):
        outcomes.append(not fell)
        shown = "; ".join(fell[:4]).replace("|", "/") + (" ..." if len(fell) > 4 else "")
        said = f"{evidence}; {len(fell)} fell: {shown}" if fell else evidence
        print(f"| {name} | {'FELL' if fell else 'ok'} | {said} |", flush=True)
    count, minutes = outcomes.count(False), (time.monotonic() - begun) / 60
    print(f"\n{count} of {len(outcomes)} rows fell; {minutes:.0f} minutes")
    return int(not all(outcomes))


if __name__ == "__main__":
    sys.exit(main())
