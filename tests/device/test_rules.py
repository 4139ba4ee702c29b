"""What takes a device obeys the rules of a GPU, and a training step seldom waits for the device."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST_WAITS = {
    "inversion foundation": 0,
    "inversion published": 2,
    "psp": 0,
    "e4e": 0,
    "hfgi": 0,
    "alignment fresh pairs": 0,
    "alignment fixed pairs": 0,
    "generator relativistic": 22,  # the discriminator of a new stage; none within a stage
    "oracle": 0,
    "identity": 0,
    "perceptual": 0,
    "body": 0,
    "feature editor": 0,
}
"""Copies and reads per training step that make the host wait for the device."""


@pytest.mark.slow
def test_trainings_inverters_measures_and_explorer_obey_the_rules_of_a_gpu(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CLCAE_CACHE": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-m", "tests.device.rules"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    broken = [line for line in run.stdout.splitlines() if line.startswith(("BROKEN", "    "))]
    assert run.returncode == 0, "\n".join([*broken, run.stderr[-2000:]])
    assert len(re.findall(r"^ok ", run.stdout, re.MULTILINE)) >= 38
    waits = dict(re.findall(r"^waits +training (.+): (\d+) \(", run.stdout, re.MULTILINE))
    too_many = {name: waits[name] for name, most in LARGEST_WAITS.items() if int(waits[name]) > most}
    assert too_many == {}, run.stdout
