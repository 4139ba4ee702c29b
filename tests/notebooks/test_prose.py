"""Numbers that README, docs/results.md and the notebooks state in words, against the committed results."""

import contextlib
import io
import json
import re
import tomllib
from functools import cache
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from clcae_lib.evaluation import LEAST_STEPS, gain_over_seeds, images_at_response

ROOT = Path(__file__).parents[2]
REFERENCE, WEIGHTS = ROOT / "results" / "reference", ROOT / "data" / "portraits"
README, RESULTS = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/results.md"))
PAGES = sorted(
    page for pattern in ("*.md", "docs/*.md", "data/*.md", "results/*.md") for page in ROOT.glob(pattern)
)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METHODS = {
    "optimisation in F, 400 steps": "optimisation_f",
    "CLCAE shipped, then 50 steps": "hybrid",
    "optimisation in W+, 400 steps": "optimisation_w_plus",
    "**CLCAE, shipped**": "clcae_reference",
    "optimisation in W, 300 steps": "optimisation_w",
    "CLCAE": "clcae",
    "ReStyle over pSp": "restyle_psp",
    "ReStyle over e4e": "restyle_e4e",
    "HFGI": "hfgi",
    "pSp": "psp",
    "e4e": "e4e",
    "CLCAE as published": "clcae_published",
    "nearest of 100,000 codes": "nearest_code",
    "mean face": "mean_face",
}
NUMBER = r"(\d+(?:\.\d+)?|half a|a|one|two|three|four|five|six|seven|eight|nine|ten)"
WORDS = {word: float(k) for k, word in enumerate(NUMBER.strip("()").split("|")[2:])} | {
    "half a": 0.5,
    "a": 1.0,
}
QUESTIONS = {
    "PSNR of W": ("PSNR", "W"),
    "PSNR of W+": ("PSNR", "W+"),
    "PSNR": ("PSNR", "final"),
    "identity": ("identity similarity", "final"),
    "code error": ("code error", "W"),
    "success": ("edit success", "all factors"),
    "leakage": ("edit leakage", "all factors"),
    "edit identity": ("edit identity similarity", "all factors"),
    "perceptual": ("perceptual distance (portraits perceptual)", "final"),
}
LOWER_IS_BETTER = ("code error", "leakage", "perceptual")
ADVERSE = {
    "alignment": ("no_alignment", ["PSNR", "identity", "edit identity", "perceptual"]),
    "attention": ("w_plus_pyramid", []),
    "F adds": ("feature_off", ["success"]),
}
"""For each claim of the paper: the variant without the part, and the questions that it wins."""


@cache
def sweep(name, table):
    return pd.read_parquet(REFERENCE / "sweeps" / name / f"{table}.parquet")


@cache
def metric(notebook, name, subject, source="reference"):
    """The value that a notebook of the committed report recorded."""
    rows = json.loads((REFERENCE / notebook / "metrics.json").read_text())
    (found,) = [
        row for row in rows if (row["metric"], row["subject"], row["source"]) == (name, subject, source)
    ]
    return found


@cache
def ablations():
    return pd.read_csv(REFERENCE / "sweeps" / "ablations" / "runs.csv", keep_default_na=False)


def values(question, variant):
    metric_name, subject = QUESTIONS[question]
    runs = ablations()
    chosen = (runs["metric"] == metric_name) & (runs["subject"] == subject) & (runs["variant"] == variant)
    return runs[chosen].set_index("seed")["value"].sort_index()


def gain(question, variant):
    """What the full method gains over a variant, positive for better."""
    difference = (values(question, "foundation") - values(question, variant)).dropna()
    return gain_over_seeds(-difference if question in LOWER_IS_BETTER else difference)


def card(name):
    return json.loads((WEIGHTS / f"{name}.json").read_text())


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


@cache
def measured_methods():
    records = sweep("methods", "records")
    table = records.groupby("variant")[["psnr", "identity"]].mean()
    keys = ["variant", "factor", "step", "image"]
    measures = ["moved", "leakage", "identity", "truth_distance", "identity_unedited", "inversion_distance"]
    curves = sweep("methods", "curves").groupby(keys)[measures].mean().reset_index()
    edits = images_at_response(curves, response=1.0, by=["variant", "factor"])
    table = table.join(edits.groupby(["variant", "factor"])["identity"].mean().unstack())
    table["kept"] = sweep("methods", "details").groupby("variant")["kept_after_edit"].median()
    table["time"] = sweep("methods", "cost").groupby("variant")["relative"].median()
    first = sweep("methods", "curves").query("step == 1.0")
    table["success"] = first.groupby("variant")["reached"].mean()
    table["psnr of w"] = records.query("space == 'w'").groupby("variant")["psnr"].mean()
    return table


def method(variant, column):
    return measured_methods().loc[variant, column]


def test_the_tables_of_methods_are_the_committed_sweep():
    rows = rows_of("| method | PSNR, dB | identity | yaw ")
    assert sorted(row[0] for row in rows) == sorted(METHODS)
    columns = ["psnr", "identity", "yaw", "smile", "age", "glasses", "kept", "time"]
    wrong = []
    for name, *cells in rows:
        for column, cell in zip(columns, cells, strict=True):
            value = method(METHODS[name], column)
            if not (pd.isna(value) if cell == "—" else agrees(cell, value)):
                wrong.append(f"{name}, {column}: {cell}, measured {value:.4g}")
    assert wrong == []


def test_one_table_has_equal_seeds_and_the_trivial_methods_as_its_floor():
    seeds = sweep("methods", "records").groupby("variant")["seed"].nunique()
    first = RESULTS.split("### Encoders after equal numbers of steps")[1].split("### Without a limit")[0]
    names = {row[0] for row in rows_of("| method |", first)}
    assert {"mean face", "nearest of 100,000 codes"} <= names
    assert {seeds[METHODS[name]] for name in names - {"mean face", "nearest of 100,000 codes"}} == {3}


def test_the_table_of_spaces_is_that_of_notebook_02():
    for space, *cells in rows_of("| space | PSNR"):
        for cell, name in zip(
            cells, ("PSNR", "identity similarity", "portraits perceptual", "accessory kept"), strict=True
        ):
            found = metric("02_cross_attention_encoder", name, space)
            wanted = [found["value"], found["low"], found["high"]]
            numbers = re.findall(r"-?\d*\.\d+", cell)
            assert all(map(agrees, numbers, wanted)), (space, name, cell, wanted)


def test_the_table_of_edits_is_that_of_notebook_03():
    for factor, _, identity, share in rows_of("| edit | kind "):
        success = metric("03_editing_directions", "edit success", factor)["value"]
        assert agrees(identity, metric("03_editing_directions", "edit identity similarity", factor)["value"])
        assert agrees(share.removesuffix(" %"), 100 * success)


@pytest.mark.parametrize(
    ("claim", "side", "question"),
    [
        ("alignment", "for", "PSNR of W"),
        ("alignment", "for", "PSNR of W+"),
        ("alignment", "for", "code error"),
        ("alignment", "against", "PSNR"),
        ("alignment", "against", "identity"),
        ("alignment", "against", "edit identity"),
        ("alignment", "against", "perceptual"),
        ("attention", "for", "PSNR of W+"),
        ("F adds", "for", "PSNR"),
        ("F adds", "for", "identity"),
        ("F adds", "for", "leakage"),
        ("F adds", "against", "success"),
    ],
)
def test_both_sides_of_each_claim_stand_as_they_were_measured(claim, side, question):
    (row,) = [row for row in rows_of("| claim of the paper ") if row[0].startswith(claim)]
    found = gain(question, ADVERSE[claim][0])
    said = re.findall(r"([+-]?\d*\.\d+) \[(-?\d*\.\d+), (-?\d*\.\d+)\]", row[2 if side == "for" else 3])
    wanted = (found.value, found.low, found.high)
    if side == "against" and question in LOWER_IS_BETTER:  # written as "so much higher"
        wanted = (-found.value, -found.high, -found.low)
    assert any(all(map(agrees, numbers, wanted)) for numbers in said), (said, wanted)


@pytest.mark.parametrize(("variant", "adverse"), ADVERSE.values(), ids=list(ADVERSE))
def test_no_result_against_a_claim_is_left_out(variant, adverse):
    assert [question for question in QUESTIONS if gain(question, variant).high < 0] == adverse


def test_no_claim_is_judged_before_the_trainings_are_long_enough():
    runs = ablations()
    steps = int(runs.loc[runs["metric"] == "training steps", "value"].min())
    assert steps < LEAST_STEPS
    assert {row[1] for row in rows_of("| claim of the paper ")} == {f"too early: {steps} steps"}
    assert f"no claim is judged before {LEAST_STEPS:,} steps" in RESULTS
    assert f"too early to judge ({steps} training steps)" in README


def test_the_passing_numbers_are_the_committed_ones():
    generator = card("generator")["measures"]
    recall = metric("01_contrastive_alignment", "R@1 among 10,000", "picture to code")["value"]
    encoder, no_choice = "02_cross_attention_encoder", "PSNR lost without choosing"
    optimised = metric(encoder, "PSNR", "W+ by optimisation")["value"]
    in_results = {
        r"improves the final image further: by ([\d.]+) dB": -gain("PSNR", "no_alignment_at_all").value,
        r"dB and ([\d.]+) of identity similarity\.\n": -gain("identity", "no_alignment_at_all").value,
        r"gains another ([\d.]+) dB": -gain("PSNR", "feature_weight_1").value,
        r"leakage is ([\d.]+) sd higher": gain("leakage", "feature_weight_1").value,
        r"after an edit is ([\d.]+) instead": values("edit identity", "feature_weight_1").mean(),
        r"instead of ([\d.]+), and leakage": values("edit identity", "foundation").mean(),
        r"departures\* is ([\d.]+) dB": gain("PSNR", "published").value,
        r"dB and ([\d.]+) of identity similarity behind": gain("identity", "published").value,
        r"its W has ([\d.]+) dB": values("PSNR of W", "published").mean(),
        r"the mean\n +face ([\d.]+), so w has not": method("mean_face", "psnr of w"),
        r"the mean face wins it \(([\d.]+);": method("mean_face", "success"),
        r"full method ([\d.]+), without F": values("success", "foundation").mean(),
        r"without F ([\d.]+)\) \|": values("success", "feature_off").mean(),
        r"has a share of ([\d.]+) and": method("mean_face", "success"),
        r"and the shipped encoder ([\d.]+)\.": method("clcae_reference", "success"),
        r"\(([\d.]+) with it, 1.01": values("code error", "foundation").mean(),
        r"It keeps ([\d.]+\d) \(age\)": method("clcae_reference", "age"),
        r"and ([\d.]+\d) \(glasses\), against": method("clcae_reference", "glasses"),
        r"against ([\d.]+\d) for yaw": method("clcae_reference", "yaw"),
        r"as much by glasses \(([\d.]+)\)": method("optimisation_f", "glasses"),
        r"as by yaw \(([\d.]+)\)": method("optimisation_f", "yaw"),
        r"In ([\d.]+) % of cases": 100 * recall,
        r"in W\+ reach ([\d.]+) dB": optimised,
        r"This is ([\d.]+) dB more": metric(encoder, "optimisation ahead of the encoder", "W+")["value"],
        r"equal weights costs ([\d.]+) dB": metric(encoder, no_choice, "W+", "live")["value"],
        r"4,000 steps, loses ([\d.]+) dB": metric(encoder, no_choice, "W+")["value"],
        r"perceptual network, where two sets of renders are ([\d.]+)": generator["frechet_renders"],
        r"the world's images is ([\d.]+) in": generator["frechet"],
        r"its recall is (\.\d+)": generator["recall"],
    }
    in_readme = {
        r"F reconstructs best\*\*: ([\d.]+) dB": metric(encoder, "PSNR", "F")["value"],
        r"where W\+ has ([\d.]+) \(200": metric(encoder, "PSNR", "W+")["value"],
        r"each image reaches ([\d.]+) dB": optimised,
        r"identity similarity is ([\d.]+), where": method("clcae_reference", "yaw"),
        r"optimisation in W\+ has ([\d.]+)\. Caveat": method("optimisation_w_plus", "yaw"),
        r"for glasses \(([\d.]+) against": method("clcae_reference", "glasses"),
        r"against ([\d.]+)\)\.": method("optimisation_w_plus", "glasses"),
        r"PSNR of W \+([\d.]+) \[": gain("PSNR of W", "no_alignment").value,
        r"PSNR of W [^[]*\[([\d.]+), ": gain("PSNR of W", "no_alignment").low,
        r"PSNR of W [^[]*\[[\d.]+, ([\d.]+)\]": gain("PSNR of W", "no_alignment").high,
        r"final image is ([\d.]+) dB \*worse": -gain("PSNR", "no_alignment").value,
        r"CLCAE leads, so far\*\*: ([\d.]+) dB": method("clcae", "psnr"),
        r"the next method ([\d.]+)\. ": method("restyle_psp", "psnr"),
        r"wins \(([\d.]+); shipped": method("mean_face", "success"),
        r"shipped encoder ([\d.]+)\)": method("clcae_reference", "success"),
    }
    for text, said in ((RESULTS, in_results), (README, in_readme)):
        for pattern, value in said.items():
            (number,) = re.findall(pattern, text)
            assert agrees(number, value), (pattern, number, value)


def test_the_starts_of_compared_encoders_are_those_of_the_cards():
    aligned, supervised = f"{card('alignment')['images_seen']:,} samples", card("body")["images_seen"]
    (notebook,) = [path for path in NOTEBOOKS if path.stem.startswith("07")]
    for text in (" ".join(cell.source for cell in nbformat.read(notebook, as_version=4).cells), RESULTS):
        assert aligned in text
        assert re.search(rf"{supervised:,} (images|renders)", text)
    assert f"the shipped encoder saw {card('inversion_foundation')['images_seen']:,}" in RESULTS


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
    for named in (seconds, float(row[2])):
        assert taken(notebook.stem) / 1.5 <= named <= taken(notebook.stem) * 1.5


def test_the_time_that_the_readme_names_is_that_of_the_committed_run():
    assert "the notebooks take about ten minutes on two cores" in README
    assert 400 <= sum(taken(notebook.stem) for notebook in NOTEBOOKS) <= 900


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
    assert named <= set(clcae_lib.evaluation.__all__)


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
