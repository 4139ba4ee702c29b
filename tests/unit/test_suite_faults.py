"""What can go wrong with a sweep, with real processes: killed, doubled, and without room to write."""

import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from clcae_lib.suite import SuiteError, read_runs
from clcae_lib.suite.cluster import Place, check_place
from clcae_lib.suite.sweep import plan_sweep, run_sweep
from tests.notebooks_in_small import PARAMETERS, record, write_notebook

ABLATION = PARAMETERS + 'variant = "plain"\nfactor = 1\nsteps = 10\n'
COUNT = record("05_metric_ablations", "factor * (seed + 1)")
PROGRAM = (
    "from clcae_lib.suite.sweep import run_sweep\nif __name__ == '__main__': print(run_sweep(seeds=[0, 1]))"
)


@pytest.fixture
def cells(suite):
    """A function that writes the cells of an ablation of one variant."""
    folder = suite({"05_metric_ablations": [COUNT]})
    content = {"notebook": "05_metric_ablations", "variants": {"plain": {}}}
    (folder / "ablations.yaml").write_text(yaml.safe_dump(content))

    def write(*sources):
        write_notebook(folder / "05_metric_ablations.ipynb", *sources, parameters=ABLATION)
        return folder

    write(COUNT)
    return write


def drive(tmp_path, **options):
    """A driver in a process of its own."""
    script = tmp_path / "driver.py"
    script.write_text(PROGRAM)
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def wait_for(condition):
    """Wait as long as it takes; pytest ends what hangs."""
    while not condition():
        time.sleep(0.1)


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_driver_loses_nothing_and_its_kernels_end(cells, tmp_path):
    started, gate = tmp_path / "started", tmp_path / "gate"
    slow = (
        f"import os, pathlib, time\ngate = pathlib.Path({str(gate)!r})\n"
        "if seed == 1 and not gate.exists():\n"
        f"    pathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n    time.sleep(3600)"
    )
    cells(COUNT, slow)
    sweeps = tmp_path / "results" / "sweeps" / "ablations"
    driver = drive(tmp_path)
    wait_for(
        lambda: started.is_file() and started.read_text() and (sweeps / "plain/seed0/run.json").is_file()
    )
    with pytest.raises(SuiteError, match="another run is writing"):
        run_sweep(seeds=[0])
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    first = (sweeps / "plain" / "seed0" / "run.json").read_text()
    assert not (sweeps / "plain" / "seed1").exists(), "nothing half-written under a good name"
    wait_for(lambda: not alive(int(started.read_text())))
    gate.touch()
    summary = run_sweep(seeds=[0, 1])
    assert (summary.complete, summary.failed) == (2, {})
    assert (sweeps / "plain" / "seed0" / "run.json").read_text() == first, "nothing is run twice"
    assert read_runs(sweeps)["value"].tolist() == [1, 2]
    assert not list(sweeps.rglob("*.running"))


def test_a_full_disk_fails_the_run_and_spoils_nothing(cells, tmp_path):
    cells(COUNT)
    sweeps = run_sweep(seeds=[0]).folder
    before = (sweeps / "plain" / "seed0" / "metrics.json").read_text()
    cells(COUNT, "pathlib.Path(output_dir, 'large.bin').write_bytes(bytes(3_000_000))")

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    driver = drive(tmp_path, preexec_fn=small_disk)
    output, _ = driver.communicate()
    assert driver.returncode == 0, output
    assert "File too large" in output
    assert "tried 2 times" in output
    assert (sweeps / "plain" / "seed0" / "metrics.json").read_text() == before
    assert not (sweeps / "plain" / "seed1").exists()
    assert len(read_runs(sweeps)) == 0, "what is stale is not in the table"
    assert run_sweep(seeds=[0, 1]).complete == 2, "with room the sweep goes on"


def test_without_room_for_the_table_the_earlier_one_stays(cells, tmp_path):
    sweeps = run_sweep(seeds=[0]).folder
    before = (sweeps / "runs.csv").read_bytes()
    program = (
        "import resource\nfrom clcae_lib.suite.sweep import gather, plan_sweep\n"
        "plan = plan_sweep(seeds=[0])\nresource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "gather(plan.target, plan.runs, keep=False)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True
    )
    assert done.returncode != 0
    assert b"File too large" in done.stderr
    assert (sweeps / "runs.csv").read_bytes() == before
    assert not list(sweeps.glob(".partial*"))


def test_a_run_that_fails_once_is_tried_again(cells, tmp_path):
    once = tmp_path / "once"
    cells(
        f"import pathlib\nonce = pathlib.Path({str(once)!r})\nif not once.exists():\n"
        "    once.touch()\n    1 / 0",
        COUNT,
    )
    assert "ZeroDivisionError" in run_sweep(seeds=[0], retries=0).failed["plain/seed0"]
    once.unlink()
    assert run_sweep(seeds=[0], retries=1).failed == {}


def test_a_run_that_is_interrupted_goes_on_from_its_checkpoint(cells):
    resume = (
        "import pathlib\nfrom clcae_lib import paths\nstate = paths.state_dir('/nowhere') / 'step'\n"
        "state.parent.mkdir(parents=True, exist_ok=True)\n"
        "factor = int(state.read_text()) if state.exists() else 0\nstate.write_text('7')\n"
        "assert factor, 'interrupted'"
    )
    cells(resume, COUNT)
    summary = run_sweep(seeds=[0])
    assert (summary.complete, summary.failed) == (1, {})
    assert read_runs(summary.folder)["value"].tolist() == [7], "the second try found what the first had left"
    assert not list(summary.folder.rglob("*.state")), "and nothing is left of it"


def test_a_scheduler_of_ones_own_runs_the_sweep_and_stays(cells):
    from distributed import Client, LocalCluster

    options = {
        "n_workers": 1,
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
    }
    with LocalCluster(**options, resources={"GPU": 1}, memory_limit=None) as cluster:
        place = Place(scheduler=cluster.scheduler_address)
        summary = run_sweep(seeds=[0], place=place)
        assert (summary.complete, summary.failed) == (1, {})
        with Client(cluster) as client:
            assert client.submit(sum, [1, 2]).result() == 3, "it is still there"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("tcp://10.0.0.7:8786", "must be tls://"),
        ("10.0.0.7:8786", "must be tls://"),
        ("tcp://cluster.example:8786", "must be tls://"),
        ("tls://cluster.example:8786", "needs --tls-ca"),
        ("ws://127.0.0.1:8786", "write tcp"),
        ("127.0.0.1", "write tcp"),
    ],
)
def test_an_unprotected_scheduler_is_refused(address, text):
    with pytest.raises(SuiteError, match=text):
        check_place(Place(scheduler=address))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "localhost:8786", "tcp://[::1]:8786"])
def test_a_scheduler_of_this_machine_is_not(address):
    check_place(Place(scheduler=address))


def test_the_cost_is_told_before_the_sweep_and_from_measured_steps(cells, tmp_path):
    cells(COUNT)
    plan = plan_sweep(seeds=[0, 1])
    assert [line.split()[0] for line in plan.cost().lines()] == ["runs", "time", "disk"]
    assert "unknown" in plan.cost().lines()[1]
    assert not plan.target.exists(), "a plan writes nothing"
    done = run_sweep(seeds=[0])
    frame = read_runs(done.folder)
    extra = [frame.assign(metric=m, value=v) for m, v in (("training steps", 10), ("training time", 30.0))]
    table = pd.concat([frame, *extra]).assign(seconds=50.0)
    table.to_csv(done.folder / "runs.csv", index=False)
    cost = plan_sweep(seeds=[0, 1], settings=["steps=100"]).cost(jobs=2)
    # 20 s outside the training, 3 s a step, 100 steps; two runs, two at once.
    assert (cost.total, cost.waiting, cost.jobs, cost.seconds) == (2, 2, 2, 320.0)
    assert cost.disk > 0
    assert plan_sweep(seeds=[0, 1]).cost(jobs=1).seconds == 50.0, "one of them is complete"


def test_an_unknown_sweep_is_an_error_that_names_those_there_are(cells):
    with pytest.raises(SuiteError, match=r"'ablation'.*ablations"):
        plan_sweep("ablation")


def test_only_what_numbers_depend_on_changes_the_key(cells, tmp_path):
    first = plan_sweep(seeds=[0]).runs[0].key
    assert plan_sweep(seeds=[0]).runs[0].key == first
    assert plan_sweep(seeds=[0], settings=["steps=11"]).runs[0].key != first
    weights = tmp_path / "data" / "tiny" / "generator.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"other")
    assert plan_sweep(seeds=[0]).runs[0].key != first
    assert json.dumps(first)


def test_a_scheduler_beyond_this_machine_is_reached_by_certificates_alone(cells, tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificates of this test, and is not here")
    from distributed import LocalCluster, Security

    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = f"req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout {key} -out {cert}"
    subprocess.run([openssl, *make.split()], check=True, capture_output=True)
    roles = ("client", "scheduler", "worker")
    files = {
        f"tls_{role}_{part}": str(path) for role in roles for part, path in (("cert", cert), ("key", key))
    }
    security = Security(tls_ca_file=str(cert), require_encryption=True, **files)
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "protocol": "tls"}
    with LocalCluster(**options, host="127.0.0.1", security=security, memory_limit=None) as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        summary = run_sweep(seeds=[0], place=Place(scheduler=address, ca=cert, cert=cert, key=key))
    assert (summary.complete, summary.failed) == (1, {})


def test_the_table_tells_what_runs_and_what_ended(cells):
    from rich.console import Console

    from clcae_lib.suite._console import Board

    console = Console(width=100, force_terminal=True, record=True, file=io.StringIO())
    board = Board("ablations", ["a/seed0", "a/seed1", "b/seed0", "b/seed1"], console=console)
    board.watch(lambda: {"a/seed1"})
    board.end("a/seed0", "done")
    board.end("b/seed0", "failed", "ValueError: no [bold] luck")
    console.print(board.table())
    text = console.export_text()
    assert "1 running, 1 waiting, 1 done, 1 failed" in text
    rows = [line.split() for line in text.splitlines() if "/seed" in line]
    assert [row[:2] for row in rows] == [
        ["a/seed1", "running"],
        ["b/seed0", "failed"],
        ["a/seed0", "done"],
        ["b/seed1", "waiting"],
    ]
    assert "no [bold] luck" in text


def test_the_command_tells_the_cost_and_writes_nothing(cells, tmp_path):
    from typer.testing import CliRunner

    from clcae_lib.cli import app

    told = CliRunner().invoke(app, ["sweep", "ablations", "--seeds", "0", "1", "--dry-run"])
    assert told.exit_code == 0, told.output
    assert "2 of 2 to do" in told.output
    assert not (tmp_path / "results").exists()
    refused = CliRunner().invoke(app, ["sweep", "ablations", "--scheduler", "tcp://10.0.0.1:8786"])
    assert (refused.exit_code, "must be tls://" in refused.output) == (2, True)
