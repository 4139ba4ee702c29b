"""The profiles against the notebooks: who opens a notebook by hand gets the values of `quick`."""

from pathlib import Path

import pytest
import yaml

from clcae_lib.suite.plan import declared_parameters, plan

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
GROWS = ("steps", "images", "samples", "codes", "portraits", "resamples", "photographs", "calibrated_on")


def profile(name):
    return yaml.safe_load((FOLDER / "profiles" / f"{name}.yaml").read_text())


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_the_parameters_cell_holds_the_values_of_quick(notebook):
    quick = profile("quick")["common"] | (profile("quick")["notebooks"].get(notebook) or {})
    declared = declared_parameters(FOLDER / f"{notebook}.ipynb")
    assert {name: declared[name] for name in quick} == quick


def test_full_is_for_a_gpu_and_larger_than_quick_in_everything_that_it_sets():
    full = profile("full")
    assert full["common"]["device"] == "cuda"
    assert full["timeout"] == 1800
    assert set(full["notebooks"]) == set(NOTEBOOKS)
    _, jobs = plan(FOLDER, "quick")
    quick = {job.name: job.parameters for job in jobs}
    smaller = [
        f"{notebook}: {name}"
        for notebook, values in full["notebooks"].items()
        for name, value in values.items()
        if any(name.endswith(word) for word in GROWS) and name != "optimisation_steps"
        if value < quick[notebook][name]
    ]
    assert smaller == []
