"""Try every row of the campaign on reliability and security again, and print one table.

A row is a set of tests, by their names, or a trial; it fell if one of them did. Half an hour on two cores.
Each row is printed, and written to results/campaign.md, when it ends; results/campaign.log has the tests'
output.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.campaign import trials

LOG = Path("results") / "campaign.log"
#: What was found, and the tests that try it again: files under tests/ with the beginnings of tests' names.
ROWS: dict[str, dict[str, str]] = {
    "H1 malformed websockets; M1 foreign Host": {"browser/test_hostile.py": ""},
    "M2 own photographs, M3 without landmarks": {"notebooks/test_own_photographs.py": ""},
    "M4 sizes from the config": {"unit/test_weights_hostile.py": "sizes_come a_config_of_any"},
    "M5 not finite, whole numbers": {"unit/test_weights_hostile.py": "weights_that_are_not_finite"},
    "M6 names of variants": {"unit/test_suite_parts.py": "a_wrong_sweep"},
    "M7 damaged state": {
        "unit/test_loop.py": "a_state_of damaged_rows",
        "unit/test_checkpoints.py": "a_damaged_or",
    },
    "M8 flipped byte of a state": {"unit/test_checkpoints.py": "a_flipped_bit"},
    "L1 full disk": {"unit/test_checkpoints.py": "a_full_disk", "unit/test_suite_sweep.py": "a_full_disk"},
    "L2 partial files": {"unit/test_loop.py": "partial_files"},
    "L3 metrics.csv after a stop": {"unit/test_loop.py": "a_run_stopped_between"},
    "L4 malformed YAML and JSON": {
        "unit/test_suite_parts.py": "a_wrong_profile a_malformed_setting what_is_not",
        "unit/test_suite_reference.py": "a_damaged_file a_value_of",
        "unit/test_cli.py": "a_wrong_file a_hostile_setting info_names a_list_of_weights",
        "unit/test_worlds_photos.py": "a_damaged_settings the_list_",
        "unit/test_weights_manifest.py": "",
    },
    "L5 files of directions": {"field/test_directions.py": ""},
    "L6 slow refusals": {
        "unit/test_weights_hostile.py": "many_short bombs",
        "unit/test_photos_alignment.py": "a_damaged_file",
        "unit/test_suite_parts.py": "a_wrong_sweep the_time_to_read",
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
        "unit/test_cli.py": "a_long_name",
        "unit/test_suite_runner.py": "a_run_leaves",
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
    "runs: dead kernels, interrupts": {
        "unit/test_suite_runner.py": "an_interrupted a_second_run a_failure a_notebook_without"
    },
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


def try_tests(wanted: dict[str, str]) -> trials.Outcome:
    """Run the tests of a row, and return how many there were and those that fell."""
    words = [f"test_{word}" for names in wanted.values() for word in names.split()]
    words += [Path(file).stem for file, names in wanted.items() if not names]
    files = [f"tests/{file}" for file in wanted]
    with tempfile.TemporaryDirectory() as folder, LOG.open("ab") as log:
        report = Path(folder) / "report.xml"
        options = ["-q", "-n", "0", "-p", "no:cacheprovider", f"--junitxml={report}"]
        options += ["-k", " or ".join(words)]
        command = [sys.executable, "-m", "pytest", *options, *files]
        status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        if not report.is_file():
            return 0, [f"pytest ended with {status}; see {LOG}"]
        cases = list(ElementTree.parse(report).iter("testcase"))
    ran, fell = 0, []
    for case in cases:
        name = f"{case.get('classname')}.{case.get('name')}".removeprefix("tests.")
        marks = {part.tag for part in case}
        if belongs(name, wanted) and "skipped" not in marks:
            ran += 1
            fell += [name.rpartition(".test_")[2]] if marks & {"failure", "error"} else []
    return ran, fell if ran else ["no test ran"]


def rows(only: str, limit: int | None) -> Iterator[tuple[str, int, list[str]]]:
    """Yield the name of each row that is asked for when it ends, how much was tried, and what fell."""
    with ThreadPoolExecutor(2) as pool:
        tests = {pool.submit(try_tests, wanted): name for name, wanted in ROWS.items() if only in name}
        for future in as_completed(tests):
            yield tests[future], *future.result()
    for name in [name for name in TRIALS if only in name]:
        try:
            yield name, *TRIALS[name](**({} if limit is None else {"limit": limit}))
        except Exception as error:  # the other rows are tried all the same
            yield name, 0, [f"{type(error).__name__}: {error}"]


def main() -> int:
    """Print the table; return 0 if nothing fell."""
    parser = argparse.ArgumentParser(prog="make campaign", description=__doc__)
    parser.add_argument("--only", default="", help="rows whose names have this in them, trials among them")
    parser.add_argument("--trials", type=int, help="the most trials of a kind: files, or kills")
    asked, begun, outcomes = parser.parse_args(), time.monotonic(), []
    LOG.parent.mkdir(exist_ok=True)
    LOG.unlink(missing_ok=True)
    with LOG.with_suffix(".md").open("w") as table:

        def write(line: str) -> None:
            for file in (sys.stdout, table):
                print(line, file=file, flush=True)

        write("| row | trials | outcome |\n|---|---|---|")
        for name, count, fell in rows(asked.only, asked.trials):
            outcomes.append(not fell)
            shown = " ".join("; ".join(fell[:4]).replace("|", "/").split())
            said = f"FELL: {len(fell)} ({shown}{' ...' if len(fell) > 4 else ''})" if fell else "ok"
            write(f"| {name} | {count} | {said} |")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        minutes = f"{(time.monotonic() - begun) / 60:.1f} minutes"
        minutes += f", {(used.ru_utime + used.ru_stime) / 60:.1f} of a processor"
        write(f"\n{outcomes.count(False)} of {len(outcomes)} rows fell; {minutes}")
    return int(not outcomes or not all(outcomes))


if __name__ == "__main__":
    sys.exit(main())
