"""The estimate of a run: units of work are counted as the table says, and the lines say what they cost."""

import math
import re

import pytest
import torch
import yaml
from typer.testing import CliRunner

from clcae_lib import paths
from clcae_lib.cli import app
from clcae_lib.suite import SuiteError, run_cost, runner
from clcae_lib.suite.plan import plan, read_suite
from clcae_lib.suite.run_cost import Cost, count, lines
from clcae_lib.worlds import get_world
from tests.notebooks_in_small import PARAMETERS, record, write_notebook

COSTS = {"step": Cost(5.0, 0.01), "rendered_image": Cost(0.0, 0.5), run_cost.HOST: Cost(0.0, 1.0)}
DECLARED = "steps = 10\nimages = 3\nlr = 0.5\nfactors = ['yaw', 'age']\nname = ''\n"
DECLARED += "methods = []\noptimisation_steps = 0\n"


def jobs_of(suite, table, *settings):
    """The jobs of a suite of one notebook with this table of work."""
    folder = suite({"01_a": [record("01_a", "1")]}, profile={"estimate": True, "timeout": 60})
    write_notebook(folder / "01_a.ipynb", parameters=PARAMETERS + DECLARED)
    listed = {"notebooks": [{"name": "01_a", "work": table}]}
    (folder / "suite.yaml").write_text(yaml.safe_dump(listed))
    return plan(folder, "quick", settings=settings)


def test_units_are_sums_of_products(suite):
    table = {"step": [["steps", "images"], [2, "factors", "lr"]], "host_second": [[7]]}
    assert count(jobs_of(suite, table)[1][0]) == {"step": 10 * 3 + 2 * 2 * 0.5, "host_second": 7}
    assert count(jobs_of(suite, table, "steps=100")[1][0])["step"] == 302


def test_optimisation_steps_are_those_of_the_methods_that_optimise(suite):
    table = {"step": [["methods.steps", "images"]]}
    methods = "methods=[psp, optimisation_w_plus, hybrid]"
    assert count(jobs_of(suite, table, methods)[1][0])["step"] == (400 + 50) * 3
    assert count(jobs_of(suite, table, methods, "optimisation_steps=7")[1][0])["step"] == 2 * 7 * 3


@pytest.mark.parametrize(
    ("factor", "words"), [("step", "no parameter 'step'; it has .*steps"), ("name", "'name' is ''")]
)
def test_a_wrong_factor_is_one_line_with_file_notebook_and_parameter(suite, factor, words):
    job = jobs_of(suite, {"step": [["images", factor]]})[1][0]
    with pytest.raises(SuiteError, match=rf"suite\.yaml: work of 01_a: .*{words}") as error:
        count(job)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("profile", ["smoke", "quick", "full"])
def test_the_table_names_every_notebook_and_only_declared_parameters(profile):
    folder = paths.notebooks_dir()
    assert all(entry.work for entry in read_suite(folder))
    for job in plan(folder, profile)[1]:
        assert all(number >= 0 for number in count(job).values()), job.name


def test_every_unit_of_the_table_is_known():
    with pytest.raises(SuiteError, match="'nothing' is not a unit") as error:
        next(run_cost.units(get_world("portraits"), torch.device("cpu"), ["nothing"]))
    known = set(re.findall(r"\w+", str(error.value).partition("there are")[2]))
    assert {unit for entry in read_suite(paths.notebooks_dir()) for unit in entry.work} <= known


def test_units_execute_the_networks_of_the_world(monkeypatch):
    monkeypatch.setattr(run_cost, "RUNS", 0)
    names = ["labelled_code", "embedded_code", "rendered_image"]
    costs = run_cost.measure("portraits", "cpu", names)[0]
    assert set(costs) == {*names, run_cost.HOST}
    assert (
        costs["labelled_code"].gflop
        > 100 * costs["embedded_code"].gflop
        > 1000 * costs["rendered_image"].gflop
    )


def test_the_lines_have_work_and_time_and_a_warning():
    counts = {"01_a": {"step": 1000, run_cost.HOST: 20}, "02_b": {"step": 100_000, "rendered_image": 40}}
    assert lines(counts, COSTS, place="cuda: a card") == [
        "notebook                        TFLOP  minutes  GFLOP/s",
        "01_a                              5.0      0.5      500",
        "02_b                            500.0     17.0      500",
        "total                           505.0     17.5",
        "estimated on cuda: a card; unchanged notebooks are not run again",
        "warning: above 8 minutes: 02_b",
    ]
    assert "warning" not in lines(counts, COSTS, place="cpu: one", limit=math.inf)[-1]


def test_a_refused_device_leaves_the_rate_that_the_limit_needs():
    untimed = COSTS | {"step": Cost(5.0, math.nan)}
    found = lines({"01_a": {"step": 10_000, run_cost.HOST: 80}}, untimed, place="cpu", refusal="no card")
    assert found == [
        "notebook                        TFLOP  minutes  GFLOP/s for 8 min",
        "01_a                             50.0        ?      125",
        "total                            50.0        ?",
        "no card",
    ]


def test_a_unit_is_counted_on_the_cpu_where_the_device_is_refused(monkeypatch):
    a, b = torch.ones(10, 20), torch.ones(20, 30)

    def few(world, place, names):
        yield "product", lambda: a @ b, 4
        yield "rendered_image", lambda: a + 1, 2

    monkeypatch.setattr(run_cost, "units", few)
    monkeypatch.setattr(run_cost, "BRIEF", 0.01)
    costs, _, refusal = run_cost.measure("portraits", "cuda:99", ["product", "rendered_image"])
    assert costs["product"].gflop == pytest.approx(2 * 10 * 20 * 30 / 4 / 1e9)
    assert math.isnan(costs["product"].seconds)
    assert costs["rendered_image"].gflop == 0 < costs["rendered_image"].seconds
    assert "cuda:99" in refusal
    assert run_cost.measure("portraits", "cpu", ["product"])[0]["product"].seconds > 0


def test_a_dry_run_prints_the_estimate_and_writes_nothing(suite, monkeypatch):
    chosen, _ = jobs_of(suite, {"step": [["steps"]]})
    asked = []
    monkeypatch.setattr(
        run_cost, "run_cost", lambda profile, jobs: asked.append((profile, jobs)) or ["a line"]
    )
    done = CliRunner().invoke(app, ["run", "--dry-run", "--timeout", "5", "--set", "steps=4"])
    assert done.output == "a line\n"
    assert asked[0][0] == chosen.model_copy(update={"timeout": 5.0})
    assert asked[0][1][0].parameters["steps"] == 4
    assert not paths.results_dir().exists()


def test_a_profile_that_asks_prints_its_estimate_first_and_no_fault_of_it_ends_the_run(
    suite, monkeypatch, capsys
):
    jobs_of(suite, {"step": [["steps"]]})

    def fails(profile, jobs):
        raise SuiteError("the table is wrong")

    monkeypatch.setattr(run_cost, "run_cost", fails)
    monkeypatch.setattr(
        runner, "perform", lambda job, *rest, **options: (_ for _ in ()).throw(runner.NotebookError("tried"))
    )
    summary = runner.run_suite("quick")
    printed = capsys.readouterr().out
    assert "no estimate of the time: the table is wrong\n01_a" in printed
    assert summary.outcomes[0].reason == "tried"
