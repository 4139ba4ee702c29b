"""The sweep, on a tiny notebook: variants times seeds, resuming, failures, and a killed worker."""

import json
import os

import pandas as pd
import pytest
import yaml

from clcae_lib import paths
from clcae_lib.suite import SuiteError, ablation_runs, cluster, read_runs
from clcae_lib.suite.sweep import plan_sweep, run_sweep
from tests.notebooks_in_small import PARAMETERS, record, write_notebook

ABLATION = PARAMETERS + 'variant = "plain"\nfactor = 1\nmode = "on"\n'
COUNT = record("05_metric_ablations", "factor * (seed + 1)")


@pytest.fixture
def ablation(suite):
    """A suite of one ablation notebook with two variants; returns a function that changes its cells."""
    folder = suite({"05_metric_ablations": [COUNT]})
    variants = {"plain": {}, "ten": {"factor": 10}}
    content = {"notebook": "05_metric_ablations", "variants": variants}
    (folder / "ablations.yaml").write_text(yaml.safe_dump(content))

    def cells(*sources, variants=None):
        write_notebook(folder / "05_metric_ablations.ipynb", *sources, parameters=ABLATION)
        if variants is not None:
            (folder / "ablations.yaml").write_text(yaml.safe_dump({**content, "variants": variants}))

    cells(COUNT)
    return cells


def test_variants_times_seeds_in_one_table_and_resumed(ablation, tmp_path):
    first = run_sweep(seeds=[0], variants=["ten"])
    assert (first.complete, first.failed) == (1, {})
    times = first.folder / "ten" / "seed0" / "run.json"
    before = times.read_text()
    summary = run_sweep(seeds=[0, 1])
    assert summary.complete == 4
    assert times.read_text() == before, "what was complete is not run again"
    runs = read_runs(summary.folder)
    values = runs.set_index(["variant", "seed"])["value"].to_dict()
    assert values == {("plain", 0): 1, ("plain", 1): 2, ("ten", 0): 10, ("ten", 1): 20}
    assert len(pd.read_parquet(summary.folder / "runs.parquet")) == 4
    origins = ablation_runs(tmp_path / "results" / "quick" / "06")["origin"]
    assert set(origins) == {"sweep"}


def test_other_code_makes_results_stale_unless_they_are_kept(ablation):
    run_sweep(seeds=[0], variants=["plain"])
    ablation(COUNT, "changed = True")
    kept = run_sweep(seeds=[0], variants=["plain"], keep=True)
    assert read_runs(kept.folder)["value"].tolist() == [1]
    assert not (kept.folder / "plain" / "seed0" / "traceback.txt").exists()
    ablation(COUNT.replace("factor *", "7 *"))
    again = run_sweep(seeds=[0], variants=["plain"])
    assert read_runs(again.folder)["value"].tolist() == [7]


def test_the_file_says_how_many_seeds_a_variant_has_unless_they_are_named(ablation):
    path = paths.notebooks_dir() / "ablations.yaml"
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**content, "seeds": {"default": 1, "ten": 2}}))
    selected = [(run.variant, run.seed) for run in plan_sweep().selected]
    assert selected == [("plain", 0), ("ten", 0), ("ten", 1)]
    assert [(run.variant, run.seed) for run in plan_sweep(seeds=[4]).selected] == [("plain", 4), ("ten", 4)]
    path.write_text(yaml.safe_dump({**content, "seeds": {"eleven": 2}}))
    with pytest.raises(SuiteError, match="seeds: eleven: 2 is no number of seeds of a variant"):
        plan_sweep()


def test_what_runs_record_of_each_picture_is_joined(ablation):
    kept = "Recorder('05', output_dir).records(pd.DataFrame({'image': ['a', 'b'], 'psnr': [1.0, factor]}))"
    ablation(f"import pandas as pd\nfrom clcae_lib.suite import Recorder\n{kept}", COUNT)
    summary = run_sweep(seeds=[0])
    joined = pd.read_parquet(summary.folder / "records.parquet")
    assert joined.groupby("variant")["psnr"].sum().to_dict() == {"plain": 2.0, "ten": 11.0}
    assert set(joined["seed"]) == {0}


def test_kernels_allocate_memory_as_they_do_outside_a_sweep(ablation, monkeypatch):
    # Dask's own setting would be inherited from a worker, and doubles what a training costs.
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    ablation("import os\nassert 'MALLOC_TRIM_THRESHOLD_' not in os.environ", COUNT)
    summary = run_sweep(seeds=[0], variants=["plain"])
    assert (summary.complete, summary.failed) == (1, {})


RECORD_ENVIRONMENT = """
import json, os, pathlib
given = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
pathlib.Path(output_dir, "given.json").write_text(json.dumps(given))
"""


def test_a_sweep_uses_no_gpu_that_it_was_not_given(ablation, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(cluster, "gpu_count", lambda: 2)  # what torch would find
    ablation(RECORD_ENVIRONMENT, COUNT)
    summary = run_sweep(seeds=[0], place=cluster.Place(jobs=2))
    assert (summary.complete, summary.failed) == (2, {})
    found = [json.loads(file.read_text()) for file in summary.folder.rglob("given.json")]
    assert {given["CUDA_VISIBLE_DEVICES"] for given in found} <= {"2", "3"}
    assert {given["OMP_NUM_THREADS"] for given in found} == {"3"}, "as the user says"


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [
        (None, 2, ["0", "1", "0", "1"]),
        ("2,3", 2, ["2", "3", "2", "3"]),
        ("7", 1, ["7", "7", "7", "7"]),
        ("5, 1 ,4", 3, ["5", "1", "4", "5"]),
        ("GPU-8932f937,GPU-5ff0", 2, ["GPU-8932f937", "GPU-5ff0", "GPU-8932f937", "GPU-5ff0"]),
        ("MIG-a,MIG-b,MIG-c", 1, ["MIG-a", "MIG-b", "MIG-c", "MIG-a"]),
        ("3,-1,2", 1, ["3", "3", "3", "3"]),  # CUDA stops at the first name that it does not know
    ],
)
def test_workers_take_the_gpus_they_were_given_in_turn(visible, count, expected):
    assert [cluster.gpu_of(visible, count, worker) for worker in range(4)] == expected


def test_a_notebook_a_gpu_that_was_given_and_the_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr(cluster, "gpu_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b,MIG-c")
    assert cluster.worker_count(None, 9) == 3
    monkeypatch.setattr(cluster, "gpu_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert cluster.worker_count(None, 9) == 4
    assert cluster.worker_count(None, 2) == 2


def test_a_damaged_result_is_made_anew_and_loses_no_other(ablation):
    folder = run_sweep(seeds=[0]).folder
    (folder / "ten" / "seed0" / "metrics.json").write_text("[1]")
    summary = run_sweep(seeds=[0])
    assert (summary.complete, summary.failed) == (2, {})


def test_one_failing_variant_does_not_lose_the_others(ablation):
    ablation("assert mode == 'on', 'no such mode'", COUNT, variants={"plain": {}, "bad": {"mode": "off"}})
    summary = run_sweep(seeds=[0])
    assert summary.complete == 1
    assert list(summary.failed) == ["bad/seed0"]
    assert "no such mode" in summary.failed["bad/seed0"]
    assert "no such mode" in (summary.folder / "failed" / "bad" / "seed0" / "traceback.txt").read_text()


def test_a_killed_worker_is_replaced_and_its_run_repeated(ablation, tmp_path):
    once = tmp_path / "once"
    kill = (
        f"import os, pathlib, signal\nonce = pathlib.Path({str(once)!r})\n"
        "if not once.exists():\n    once.touch()\n    os.kill(os.getppid(), signal.SIGKILL)\n"
        "    import time; time.sleep(3600)"
    )
    ablation(kill, COUNT)
    summary = run_sweep(seeds=[0], variants=["plain"])
    assert once.exists()
    assert (summary.complete, summary.failed) == (1, {})


def test_a_variant_that_sets_an_unknown_parameter_is_an_error(ablation):
    ablation(COUNT, variants={"plain": {"factr": 2}})
    with pytest.raises(SuiteError, match=r"05_metric_ablations.*'factr'.*'factor'"):
        run_sweep(seeds=[0])


def test_an_unknown_variant_is_an_error(ablation):
    with pytest.raises(SuiteError, match=r"'tenn'.*plain, ten"):
        run_sweep(variants=["tenn"])


def test_runs_of_all_origins_are_told_apart(ablation, tmp_path):
    from clcae_lib.suite.runner import run_suite

    swept = run_sweep(seeds=[0], variants=["ten"])
    reference = tmp_path / "results" / "reference" / "sweeps" / "ablations"
    reference.mkdir(parents=True)
    (reference / "runs.csv").write_text((swept.folder / "runs.csv").read_text())
    live = run_suite("quick", settings=["seed=4"]).folder
    runs = ablation_runs(live / "06_ablation_report").set_index("origin")
    assert runs.loc["reference", "value"] == 10
    assert runs.loc["live", ["variant", "value", "seed"]].tolist() == ["plain", 5, 4]


def test_without_any_runs_the_table_is_empty(ablation, tmp_path):
    runs = ablation_runs(tmp_path / "results" / "quick" / "06")
    assert len(runs) == 0
    assert "origin" in runs.columns
