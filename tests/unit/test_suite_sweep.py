"""The sweep, on a tiny notebook: variants times seeds, GPUs, cost, resuming, and every way to fail."""

import gc
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from clcae_lib import paths
from clcae_lib.cli import app
from clcae_lib.suite import SuiteError, ablation_runs, cluster, read_runs
from clcae_lib.suite.cluster import Place
from clcae_lib.suite.collect import COMMITTED
from clcae_lib.suite.console import Board
from clcae_lib.suite.runner import run_suite
from clcae_lib.suite.sweep import gather, plan_sweep, run_sweep
from clcae_lib.suite.sweep_cost import sweep_cost
from tests.notebooks_in_small import PARAMETERS, alive, record, wait_for, write_notebook

ABLATION = PARAMETERS + 'variant = "plain"\nfactor = 1\nmode = "on"\nsteps = 10\n'
COUNT = record("05_metric_ablations", "factor * (seed + 1)")
ROOT = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.xdist_group("sweep")  # one worker of pytest, one Dask


@pytest.fixture(scope="module")
def running():
    """A client of a Dask of one worker that tests share, so that they need not wait for its start."""
    with cluster.connect(Place(jobs=1), runs=1) as submit:
        yield submit.func.__self__


@pytest.fixture(autouse=True)
def _no_open_sockets():
    """Collect what a killed worker leaves: Dask's end of its connection stays open until then."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def ablation(suite):
    """A suite of one ablation notebook; returns a function that changes its cells and its variants."""
    folder = suite({"05_metric_ablations": [COUNT]})

    def cells(*sources, **content):
        write_notebook(folder / "05_metric_ablations.ipynb", *sources, parameters=ABLATION)
        content = {"variants": {"plain": {}, "ten": {"factor": 10}}} | content
        text = yaml.safe_dump({"notebook": "05_metric_ablations", **content})
        (folder / "ablations.yaml").write_text(text)

    cells(COUNT)
    return cells


@pytest.fixture
def sweep(running, ablation):
    """A function that runs a sweep, by default one variant with one seed, on the Dask that runs already."""
    running.run(lambda values: os.environ.update(values), {"CLCAE_ROOT": os.environ["CLCAE_ROOT"]})
    place = Place(scheduler=running.scheduler.address)
    return lambda **options: run_sweep(**{"variants": ["plain"], "seeds": [0], "place": place} | options)


def one(**options):
    """A sweep of one variant, by default with one seed, on workers of its own."""
    return run_sweep(**{"variants": ["plain"], "seeds": [0]} | options)


DRIVER = (
    "from clcae_lib.suite.sweep import run_sweep\n"
    "if __name__ == '__main__': print(run_sweep(seeds=[0, 1], variants=['plain'], retries=0))"
)


def drive(tmp_path):
    """A sweep of two seeds in a process of its own."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    return subprocess.Popen([sys.executable, str(script)], **options)


def test_common_parameters_are_those_of_every_variant_that_sets_no_other(ablation):
    ablation(COUNT, common={"factor": 3})
    runs = plan_sweep("ablations", seeds=[0]).runs
    assert {run.variant: run.job.parameters["factor"] for run in runs} == {"plain": 3, "ten": 10}


def test_variants_times_seeds_in_one_table_and_resumed(sweep, tmp_path):
    first = sweep(variants=["ten"])
    assert (first.complete, first.failed) == (1, {})
    times = first.folder / "ten" / "seed0" / "run.json"
    before = times.read_text()
    summary = sweep(seeds=[0, 1], variants=[])
    assert summary.complete == 4
    assert times.read_text() == before, "what was complete is not run again"
    values = read_runs(summary.folder).set_index(["variant", "seed"])["value"].to_dict()
    assert values == {("plain", 0): 1, ("plain", 1): 2, ("ten", 0): 10, ("ten", 1): 20}
    assert len(pd.read_parquet(summary.folder / "runs.parquet")) == 4
    assert set(ablation_runs(tmp_path / "results" / "quick" / "06")["origin"]) == {"sweep"}


def test_other_code_makes_results_stale_unless_they_are_kept(ablation, sweep):
    sweep()
    ablation(COUNT, "changed = True")
    kept = sweep(keep=True)
    assert read_runs(kept.folder)["value"].tolist() == [1]
    ablation(COUNT.replace("factor *", "7 *"))
    assert read_runs(sweep().folder)["value"].tolist() == [7]


def test_the_file_says_how_many_seeds_a_variant_has_unless_they_are_named(ablation):
    ablation(COUNT, seeds={"default": 1, "ten": 2})
    selected = [(run.variant, run.seed) for run in plan_sweep().selected]
    assert selected == [("plain", 0), ("ten", 0), ("ten", 1)]
    assert [(run.variant, run.seed) for run in plan_sweep(seeds=[4]).selected] == [("plain", 4), ("ten", 4)]


def test_what_runs_record_of_each_image_is_joined(ablation, sweep):
    kept = "Recorder('05', output_dir).records(pd.DataFrame({'image': ['a', 'b'], 'psnr': [1.0, factor]}))"
    ablation(f"import pandas as pd\nfrom clcae_lib.suite import Recorder\n{kept}", COUNT)
    summary = sweep(variants=[])
    joined = pd.read_parquet(summary.folder / "records.parquet")
    assert joined.groupby("variant")["psnr"].sum().to_dict() == {"plain": 2.0, "ten": 11.0}
    assert set(joined["seed"]) == {0}


RECORD_ENVIRONMENT = """
import json, os, pathlib
given = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
pathlib.Path(output_dir, "given.json").write_text(json.dumps(given))
assert 'MALLOC_TRIM_THRESHOLD_' not in os.environ
"""


def test_a_kernel_has_its_own_gpu_and_threads_and_the_memory_settings_of_outside(ablation, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    # Dask's own setting would be inherited from a worker, and doubles what a training costs.
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.setattr(cluster, "gpu_count", lambda: 2)  # what torch would find
    ablation(RECORD_ENVIRONMENT, COUNT)
    summary = run_sweep(seeds=[0], place=Place(jobs=2))
    assert (summary.complete, summary.failed) == (2, {})
    found = [json.loads(file.read_text()) for file in summary.folder.rglob("given.json")]
    assert {given["CUDA_VISIBLE_DEVICES"] for given in found} <= {"2", "3"}
    assert {given["OMP_NUM_THREADS"] for given in found} == {"3"}, "as the user says"


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [
        (None, 2, ["0", "1"]),
        ("2,3", 2, ["2", "3"]),
        ("7", 1, ["7"]),
        ("5, 1 ,4", 3, ["5", "1", "4"]),
        ("GPU-8932f937,GPU-5ff0", 2, ["GPU-8932f937", "GPU-5ff0"]),
        ("MIG-a,MIG-b,MIG-c", 1, ["MIG-a", "MIG-b", "MIG-c"]),
        ("3,-1,2", 1, ["3"]),  # CUDA stops at the first name that it does not know
    ],
)
def test_workers_share_the_gpus_that_were_given(visible, count, expected):
    assert cluster.gpu_names(visible, count) == expected


def test_a_notebook_a_gpu_that_was_given_and_the_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr(cluster, "gpu_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b,MIG-c")
    assert cluster.worker_count(None, 9) == 3
    monkeypatch.setattr(cluster, "gpu_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("dask.system.cpu_count", lambda: 8)
    assert [cluster.worker_count(None, runs) for runs in (9, 2)] == [4, 2]


def test_one_failing_variant_or_a_damaged_result_does_not_lose_the_others(ablation, sweep):
    variants = {"plain": {}, "bad": {"mode": "off"}}
    ablation("assert mode == 'on', 'no such mode'", COUNT, variants=variants)
    summary = sweep(variants=[], retries=1)
    assert summary.complete == 1
    assert re.search(r"no such mode.*\(tried 2 times\)", summary.failed["bad/seed0"])
    assert "no such mode" in (summary.folder / "failed" / "bad" / "seed0" / "traceback.txt").read_text()
    (summary.folder / "plain" / "seed0" / "metrics.json").write_text("[1]")
    assert sweep().failed == {}


def test_a_killed_worker_is_replaced_and_its_run_repeated(ablation, tmp_path):
    once = tmp_path / "once"
    kill = (
        f"import os, pathlib, signal\nonce = pathlib.Path({str(once)!r})\n"
        "if not once.exists():\n    once.touch()\n    os.kill(os.getppid(), signal.SIGKILL)\n"
        "    import time; time.sleep(3600)"
    )
    ablation(kill, COUNT)
    summary = one()
    assert once.exists()
    assert (summary.complete, summary.failed) == (1, {})


def test_a_wrong_request_is_an_error_that_names_what_there_is(ablation):
    for options, words in (
        ({"name": "ablation"}, "'ablation'.*ablations"),
        ({"variants": ["tenn"]}, "'tenn'.*plain, ten"),
    ):
        with pytest.raises(SuiteError, match=words):
            plan_sweep(**options)
    ablation(COUNT, variants={"plain": {"factr": 2}})
    with pytest.raises(SuiteError, match=r"05_metric_ablations.*'factr'.*'factor'"):
        run_sweep(seeds=[0])


def test_runs_of_all_origins_have_their_labels(sweep, tmp_path):
    empty = ablation_runs(tmp_path / "results" / "quick" / "06")
    assert len(empty) == 0
    assert "origin" in empty.columns
    swept = sweep(variants=["ten"])
    for name in COMMITTED.values():
        reference = tmp_path / "results" / "reference" / "sweeps" / name
        reference.mkdir(parents=True)
        shutil.copy(swept.folder / "runs.csv", reference)
    live = run_suite("quick", settings=["seed=4"]).folder
    runs = ablation_runs(live / "06_ablation_report").set_index("origin")
    assert runs.loc[[*COMMITTED, "sweep"], "value"].eq(10).all()
    assert runs.loc["live", ["variant", "value", "seed"]].tolist() == ["plain", 5, 4]


def test_a_killed_driver_loses_nothing_and_its_kernels_end(ablation, sweep, tmp_path):
    started, gate = tmp_path / "started", tmp_path / "gate"
    slow = (
        f"import os, pathlib, time\ngate = pathlib.Path({str(gate)!r})\n"
        "if seed == 1 and not gate.exists():\n"
        f"    pathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n    time.sleep(3600)"
    )
    ablation(COUNT, slow)
    sweeps = tmp_path / "results" / "sweeps" / "ablations"
    driver = drive(tmp_path)
    first = sweeps / "plain" / "seed0" / "run.json"
    wait_for(lambda: started.is_file() and started.read_text() and first.is_file())
    with pytest.raises(SuiteError, match="another run is writing"):
        sweep()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = first.read_text()
    assert not (sweeps / "plain" / "seed1").exists(), "nothing half-written under a good name"
    wait_for(lambda: not alive(int(started.read_text())))
    gate.touch()
    summary = sweep(seeds=[0, 1])
    assert (summary.complete, summary.failed) == (2, {})
    assert first.read_text() == before, "nothing is run twice"
    assert read_runs(sweeps)["value"].tolist() == [1, 2]
    assert not list(sweeps.rglob("*.running"))


def test_a_full_disk_fails_the_run_and_spoils_nothing(ablation, sweep, tmp_path):
    sweeps, room = sweep().folder, tmp_path / "room"
    before = (sweeps / "plain" / "seed0" / "metrics.json").read_text()
    small_disk = (
        f"import resource\nif not pathlib.Path({str(room)!r}).exists():\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
        "pathlib.Path(output_dir, 'large.bin').write_bytes(bytes(3_000_000))"
    )
    ablation(COUNT, small_disk)
    failed = sweep(seeds=[0, 1], retries=0).failed
    assert failed.keys() == {"plain/seed0", "plain/seed1"}
    assert all("File too large" in reason for reason in failed.values())
    assert (sweeps / "plain" / "seed0" / "metrics.json").read_text() == before
    assert not (sweeps / "plain" / "seed1").exists()
    assert len(read_runs(sweeps)) == 0, "what is stale is not in the table"
    room.touch()
    assert sweep(seeds=[0, 1]).complete == 2, "with room the sweep goes on"


def test_without_room_for_the_table_the_earlier_one_stays(sweep):
    sweeps = sweep().folder
    before = (sweeps / "runs.csv").read_bytes()
    plan, limits = plan_sweep(seeds=[0]), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            gather(plan.target, plan.runs, keep=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (sweeps / "runs.csv").read_bytes() == before
    assert not list(sweeps.glob(".partial*"))


def test_a_run_that_fails_is_tried_again_and_goes_on_from_its_checkpoint(ablation, sweep):
    resume = (
        "import pathlib\nfrom clcae_lib import paths\nstate = paths.state_dir('/nowhere') / 'step'\n"
        "state.parent.mkdir(parents=True, exist_ok=True)\n"
        "factor = int(state.read_text()) if state.exists() else 0\nstate.write_text('7')\n"
        "assert factor, 'interrupted'"
    )
    ablation(resume, COUNT)
    assert "interrupted" in sweep(retries=0).failed["plain/seed0"]
    shutil.rmtree(paths.results_dir() / "sweeps")
    summary = sweep(retries=1)
    assert (summary.complete, summary.failed) == (1, {})
    assert read_runs(summary.folder)["value"].tolist() == [7], "the second try found what the first had left"
    assert not list(summary.folder.rglob("*.state")), "and nothing is left of it"


def test_a_scheduler_of_ones_own_is_reached_by_certificates_and_stays(ablation, tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificates of this test, and is not here")
    from distributed import Client, LocalCluster, Security

    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = f"req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout {key} -out {cert}"
    subprocess.run([openssl, *make.split()], check=True, capture_output=True)
    roles = ("client", "scheduler", "worker")
    files = {
        f"tls_{role}_{part}": str(path) for role in roles for part, path in (("cert", cert), ("key", key))
    }
    security = Security(tls_ca_file=str(cert), require_encryption=True, **files)
    options = {
        "n_workers": 1,
        "threads_per_worker": 1,
        "dashboard_address": "127.0.0.1:0",
        "host": "127.0.0.1",
    }
    options |= {"memory_limit": None, "protocol": "tls", "security": security, "resources": {"GPU": 1}}
    with LocalCluster(**options) as own:
        assert own.scheduler_address.startswith("tls://")
        summary = one(place=Place(scheduler=own.scheduler_address, ca=cert, cert=cert, key=key))
        assert (summary.complete, summary.failed) == (1, {})
        with Client(own) as client:
            assert client.submit(sum, [1, 2], resources={"GPU": 1}).result() == 3, "it is still there"


def test_an_unprotected_scheduler_is_refused_and_one_of_this_machine_is_not():
    for address, text in {
        "tcp://10.0.0.7:8786": "must be tls://",
        "10.0.0.7:8786": "must be tls://",
        "tcp://cluster.example:8786": "must be tls://",
        "tls://cluster.example:8786": "needs --tls-ca",
        "ws://127.0.0.1:8786": "write tcp",
        "127.0.0.1": "write tcp",
    }.items():
        with pytest.raises(SuiteError, match=text):
            Place(scheduler=address).check()
    for address in ("tcp://127.0.0.1:8786", "localhost:8786", "tcp://[::1]:8786"):
        Place(scheduler=address).check()


def test_the_cost_comes_from_measured_steps_and_is_printed_before_the_sweep(sweep, tmp_path):
    plan = plan_sweep(seeds=[0, 1], variants=["plain"])
    assert [line.split()[0] for line in sweep_cost(plan)] == ["runs", "time", "disk"]
    assert "unknown" in sweep_cost(plan)[1]
    done = CliRunner().invoke(app, ["sweep", "ablations", "--seeds", "0", "1", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "4 of 4 to do" in done.output
    assert not (tmp_path / "results").exists(), "a plan writes nothing"
    refused = CliRunner().invoke(app, ["sweep", "ablations", "--scheduler", "tcp://10.0.0.1:8786"])
    assert (refused.exit_code, "must be tls://" in refused.output) == (2, True)
    folder = sweep().folder
    frame = read_runs(folder)
    extra = [frame.assign(metric=m, value=v) for m, v in (("training steps", 10), ("training time", 30.0))]
    pd.concat([frame, *extra]).assign(seconds=50.0).to_csv(folder / "runs.csv", index=False)
    options = {"seeds": [0, 1], "variants": ["plain"]}
    runs, seconds, disk = sweep_cost(plan_sweep(settings=["steps=20"], **options), jobs=2)
    # 20 s outside the training, 3 s a step, 20 steps; two runs, two at a time.
    assert runs == "runs   2 of 2 to do, 2 at a time"
    assert seconds == "time   80 s (measured here)"
    assert "unknown" not in disk
    assert sweep_cost(plan_sweep(**options), jobs=1)[1] == "time   50 s (measured here)", "one is complete"
    slow = frame[frame["variant"] == "plain"].assign(seconds=80.0)
    fast = frame[frame["variant"] != "plain"].assign(seconds=2.0)
    pd.concat([slow, *[fast.assign(seed=seed) for seed in range(4)]]).to_csv(folder / "runs.csv", index=False)
    assert sweep_cost(plan_sweep(**options), jobs=1)[1] == "time   80 s (measured here)", (
        "that of its own variant"
    )


def test_the_table_shows_what_runs_and_what_ended():
    console = Console(width=100, force_terminal=True, record=True, file=io.StringIO())
    board = Board("ablations", ["a/seed0", "a/seed1", "b/seed0", "b/seed1"], lambda: {"a/seed1"})
    board.end("a/seed0", "done")
    board.end("b/seed0", "failed", "ValueError: no [bold] luck")
    console.print(board.table())
    text = console.export_text()
    assert "1 running, 1 failed, 1 done, 1 waiting" in text
    rows = [line.split()[:2] for line in text.splitlines() if "/seed" in line]
    names = ("a/seed1", "b/seed0", "a/seed0", "b/seed1")
    assert rows == [list(row) for row in zip(names, ("running", "failed", "done", "waiting"), strict=True)]
    assert "no [bold] luck" in text
