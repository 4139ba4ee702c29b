"""Two processes over NCCL learn what one process does."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from tests.cuda.conftest import CHOSEN
from tests.unit.test_two_processes import align, invert, rows

pytestmark = pytest.mark.skipif(
    CHOSEN == "sim" or (CHOSEN == "cuda" and torch.cuda.device_count() < 2),
    reason="two processes over NCCL need two CUDA devices; CLCAE_TEST_DEVICE=cpu rehearses this over gloo",
)


def test_two_gpus_learn_from_the_whole_batch_as_one_does(tmp_path, repository):
    script = tmp_path / "two.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import pathlib, sys
            from tests.unit.test_two_processes import align, invert

            folder = pathlib.Path(sys.argv[1])
            for name, train in (("alignment", align), ("inversion", invert)):
                train(folder / name, device={CHOSEN!r}, devices=2)
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), *filter(None, sys.path)])}
    command = [sys.executable, str(script), str(tmp_path)]
    run = subprocess.run(
        command, cwd=repository, env=environment, timeout=240, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-4000:]
    for name, train in (("alignment", align), ("inversion", invert)):
        train(tmp_path / "one" / name, device=CHOSEN)
        one, two = rows(tmp_path / "one" / name), rows(tmp_path / name)
        assert len(one) == len(two) == 2
        for measure in ("loss", "gradient"):
            assert [row[measure] for row in two] == pytest.approx([row[measure] for row in one], rel=5e-3)
