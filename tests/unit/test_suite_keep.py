"""Keeping a run's report as the committed reference."""

import pytest

from clcae_lib.suite import SuiteError
from clcae_lib.suite.keep import keep_report
from clcae_lib.suite.runner import run_suite
from tests.notebooks_in_small import record
from tests.unit.test_suite_runner import FIGURE


def test_what_is_kept_is_the_report_without_the_notebooks(suite):
    suite({"01_a": [FIGURE]})
    run = run_suite("quick")
    target = run.folder.parent / "reference"
    (target / "01_a").mkdir(parents=True)
    (target / "01_a" / "old.png").write_bytes(b"stale")
    page = keep_report(run.folder).read_text()
    assert sorted(file.name for file in (target / "01_a").iterdir()) == [
        "a_line.png",
        "figures.json",
        "metrics.json",
        "run.json",
    ]
    assert "It rises." in page
    assert ".ipynb" not in page
    assert "run.log" not in page


def test_only_a_complete_run_is_kept(suite):
    suite({"01_a": [record("01_a", "1"), "raise ValueError('no')"]})
    run = run_suite("quick")
    with pytest.raises(SuiteError, match="01_a"):
        keep_report(run.folder)
    with pytest.raises(SuiteError, match="clcae run"):
        keep_report(run.folder.parent / "nothing")
