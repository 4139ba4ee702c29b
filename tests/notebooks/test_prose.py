"""Numbers that README, docs/results.md and the notebooks state in words, against the committed results."""

import contextlib
import importlib.util
import io
import json
import re
import tomllib
from functools import cache
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from clcae_lib.evaluation import LEAST_STEPS, bootstrap_ci, images_at_response

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "results" / "reference"
README, RESULTS = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/results.md"))
PAGES = sorted(
    page for pattern in ("*.md", "docs/*.md", "data/*.md", "results/*.md") for page in ROOT.glob(pattern)
)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NUMBER = r"(\d+(?:\.\d+)?|half a|a|one|two|three|four|five|six|seven|eight|nine|ten)"
WORDS = {word: float(k) for k, word in enumerate(NUMBER.strip("()").split("|")[2:])} | {
    "half a": 0.5,
    "a": 1.0,
}
DECIMAL = re.compile(r"(?<![\w.])\d*\.\d+(?![\w.]*\w)")
_spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
tables = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tables)


def rows_of(heading, text=RESULTS):
    """The rows of every table whose head starts so, each a list of cells."""
    found = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0].startswith(heading):
            found += [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return found


def agrees(text, value):
    """Whether a written number is the value, rounded as it is written."""
    digits = text.replace(",", "")
    decimals = len(digits.partition(".")[2])
    unit = 10.0**-decimals if decimals else (10.0 if len(digits) > 2 and digits.endswith("0") else 1.0)
    return abs(float(digits) - value) <= 0.5001 * unit


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda path: path.name)
def test_every_table_and_finding_is_that_of_the_committed_results(page):
    text = page.read_text(encoding="utf-8")
    assert tables.updated(text) == text, "python docs/tables.py"


def test_a_table_with_another_number_is_noticed():
    assert tables.updated(RESULTS.replace("<!-- end -->", "| x |\n<!-- end -->", 1)) == RESULTS


@pytest.mark.parametrize("labels", [tables.EQUAL, tables.FREE], ids=["equal steps", "without a limit"])
def test_the_methods_of_one_table_have_equal_seeds_and_images(labels):
    records = tables.sweep("methods", "records")
    present = records[records["variant"].isin(labels)]
    assert set(present["variant"]) == set(labels)
    assert present.groupby("variant")["seed"].agg(tuple).map(set).map(len).nunique() == 1
    assert present.groupby("variant")["image"].agg(set).map(frozenset).nunique() == 1


TRIVIAL = ("mean_face", "nearest_code")
FIDELITY = [("psnr", True), ("identity", True), ("perceptual", False)]


def not_far_behind(values, better_is_higher):
    """Trivial methods that are best in a table [image, variant], or inside the interval of the best."""
    values = values if better_is_higher else -values
    best = values.mean().idxmax()
    low = bootstrap_ci(values[best].dropna().to_numpy()).low
    return [name for name in TRIVIAL if name in values and values[name].mean() >= low]


@pytest.mark.parametrize(("measure", "higher"), FIDELITY)
def test_no_trivial_method_is_near_the_best_reconstruction(measure, higher):
    records = tables.sweep("methods", "records")
    records = records[records["variant"].isin(tables.EQUAL)]
    values = records.pivot_table(index="image", columns="variant", values=measure)
    assert set(TRIVIAL) < set(values)
    assert not_far_behind(values, higher) == []


@pytest.mark.parametrize(("measure", "higher"), [("identity", True), ("truth_distance", False)])
@pytest.mark.parametrize("factor", tables.EDITS)
def test_no_trivial_method_is_near_the_best_edit(factor, measure, higher):
    curves = tables.sweep("methods", "curves")
    curves = curves[curves["variant"].isin(tables.EQUAL) & (curves["factor"] == factor)]
    read = images_at_response(curves, response=1.0, by=["variant"])
    assert set(TRIVIAL) < set(read["variant"])
    assert not_far_behind(read.pivot(index="image", columns="variant", values=measure), higher) == []


@pytest.mark.parametrize("ablation", [tables.LONG, *tables.SHORTER])
@pytest.mark.parametrize("question", tables.QUESTIONS)
def test_no_trivial_method_wins_a_question_of_an_ablation(question, ablation):
    full = tables.of_variant(question, "foundation", ablation).mean()
    turn = -1 if tables.is_lower_better(question) else 1
    for method in ("mean face", "nearest code"):
        reached = tables.of_trivial(question, method, ablation)
        assert pd.isna(reached) or pd.isna(full) or turn * reached < turn * full, (method, reached, full)


def test_no_claim_is_judged_before_the_trainings_are_long_enough():
    early = tables.fewest("training steps") < LEAST_STEPS
    assert tables.verdicts().str.startswith("too early").all() == early
    assert f"No claim is judged before {LEAST_STEPS:,} steps" in RESULTS


def test_the_passing_numbers_are_the_committed_ones():
    generator = tables.card("generator")
    measures = generator["measures"]
    trained = tables.card("inversion_foundation")
    said = {
        r"perceptual network, where two sets of renders are ([\d.]+)": measures["frechet_renders"],
        r"the world's images is ([\d.]+) in": measures["frechet"],
        r"its recall is (\.\d+)": measures["recall"],
        r"It saw ([\d,]+) images": generator["images_seen"],
        r"was trained for ([\d,]+) steps of 32 images": trained["steps"],
    }
    for pattern, value in said.items():
        (number,) = re.findall(pattern, RESULTS)
        assert agrees(number, value), (pattern, number, value)
    assert trained["images_seen"] == 32 * trained["steps"]


def test_the_spread_of_times_is_that_of_networks_of_one_architecture():
    cost = tables.sweep("methods", "cost")
    times = cost[cost["parameters"] > 0].groupby("parameters")["relative"]
    (said,) = re.findall(r"differ by a factor of up to (\d+\.\d+)", RESULTS)
    assert agrees(said, (times.max() / times.min()).max())


def test_the_starts_of_compared_encoders_are_those_of_the_cards():
    aligned = f"{tables.card('alignment')['images_seen']:,} samples"
    supervised = tables.card("body")["images_seen"]
    (notebook,) = [path for path in NOTEBOOKS if path.stem.startswith("07")]
    for text in (" ".join(cell.source for cell in nbformat.read(notebook, as_version=4).cells), RESULTS):
        assert aligned in text
        assert re.search(rf"{supervised:,} (images|renders)", text)


def taken(notebook):
    """Seconds of a notebook in the committed run."""
    return json.loads((REFERENCE / notebook / "run.json").read_text())["seconds"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_times_that_a_notebook_and_the_readme_name_are_those_of_the_committed_run(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    opening = " ".join(cell.source for cell in cells[:5]).replace("\n", " ")
    pattern = rf"(?:{NUMBER} to )?{NUMBER} (second|minute)s? with (?:the profile )?`quick`"
    (numbers,) = re.findall(pattern, opening)
    said = [WORDS[n] if n in WORDS else float(n) for n in numbers[:2] if n]
    seconds = sum(said) / len(said) * (60 if numbers[2] == "minute" else 1)
    (row,) = [row for row in rows_of("| notebook |", README) if f"(notebooks/{notebook.name})" in row[0]]
    assert f"(results/reference/notebooks/{notebook.name})" in row[0]
    for named in (seconds, float(row[2])):
        assert taken(notebook.stem) / 1.5 <= named <= taken(notebook.stem) * 1.5


def test_the_time_that_the_readme_names_is_that_of_the_committed_run():
    assert "the notebooks take about ten minutes on two cores" in README
    assert 450 <= sum(taken(notebook.stem) for notebook in NOTEBOOKS) <= 900


def test_the_readmes_example_prints_what_stands_below_it():
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (said,) = re.findall(r"```text\n(.*?)```", README, flags=re.DOTALL)
    assert len(code.splitlines()) <= 40
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(code, "README.md", "exec"), {})
    number = re.compile(r"-?\d+\.\d+")
    printed = output.getvalue()
    assert number.sub("#", printed) == number.sub("#", said)
    for found, stated in zip(number.findall(printed), number.findall(said), strict=True):
        unit = 10.0 ** -len(stated.partition(".")[2])
        assert abs(float(found) - float(stated)) <= 1.0001 * unit, (found, stated)


def printed_numbers(notebook):
    """Every number with a point that the cells of an executed notebook print or show in a table."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [text for output in outputs for text in (output.get("text"), *output.get("data", {}).values())]
    return [float(number) for text in shown if isinstance(text, str) for number in DECIMAL.findall(text)]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_answer_for_the_committed_run_has_numbers_that_this_run_printed(notebook):
    executed = nbformat.read(REFERENCE / "notebooks" / notebook.name, as_version=4)
    answers = re.findall(
        r"(?:An answer for|The numbers of) the (?:committed|photographs).*?</details>",
        "".join(c.source for c in executed.cells),
        re.DOTALL,
    )
    printed = printed_numbers(executed) if answers else []
    for number in (number for answer in answers for number in DECIMAL.findall(answer)):
        assert any(agrees(number, abs(value)) for value in printed), f"{number} is not printed"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, heading = target.partition("#")
        place = page.parent / name if name else page
        if re.match(r"\w+:", target):
            continue
        if not place.exists() or (heading and heading not in _anchors(place)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize(
    "path", sorted((REFERENCE / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_no_executed_copy_shows_a_path_of_the_machine_it_ran_on(path):
    notebook = nbformat.read(path, as_version=4)
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    texts = [out.get("text", "") for out in outputs]
    texts += [json.dumps(notebook.metadata), *(cell.source for cell in notebook.cells)]
    texts += [out["data"].get("text/plain", "") for out in outputs if "data" in out]
    assert [text for text in texts if re.search(r"PosixPath|(?<![\w.:/])/(root|home|Users|tmp)/", text)] == []


def _anchors(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@cache
def library():
    """The code of the library and the Makefile, in which messages over several lines are joined."""
    files = [ROOT / "Makefile", *sorted((ROOT / "clcae_lib").rglob("*.py"))]
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in files))


def test_the_messages_in_troubleshooting_are_those_of_the_library():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [text for row in rows_of("| message |", page) for text in re.findall(r"`([^`]+)`", row[0])]
    parts = [part.strip(" :") for text in quoted for part in text.split("...")]
    assert len(quoted) >= 10
    assert [part for part in parts if part and part not in library()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_examples_import_exists(page):
    for line in re.findall(r"^from clcae_lib.*$", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        exec(line, {})


def test_what_computes_each_measure_exists():
    import clcae_lib.evaluation

    rows = rows_of("| measure |", (ROOT / "docs" / "measures.md").read_text(encoding="utf-8"))
    named = {name for row in rows for name in re.findall(r"`([A-Za-z_]+)`", row[-1])}
    assert named
    assert named <= set(vars(clcae_lib.evaluation))


def test_the_architecture_names_files_and_functions_that_exist():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`(?:, `([\w.]+)`)?", page)
    wrong = []
    for name, function in named:
        path = ROOT / "clcae_lib" / name
        last = function.rpartition(".")[2]
        if not path.is_file() or (last and not re.search(rf"(def|class) {last}\b", path.read_text())):
            wrong.append((name, function))
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [layer.split(" | ") for layer in contracts[0]["layers"]]
    assert [re.findall(r"`(\w+)`", row[0]) for row in rows_of("| layer |", page)] == layers
    assert named
    assert wrong == []
