"""Numbers that the README and the notebooks state in words, against the committed results."""

import json
import re
from functools import cache
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from clcae_lib.evaluation import LEAST_STEPS, gain_over_seeds, images_at_response

ROOT = Path(__file__).parents[2]
REFERENCE, WEIGHTS = ROOT / "results" / "reference", ROOT / "data" / "portraits"
README = (ROOT / "README.md").read_text(encoding="utf-8")
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


@cache
def sweep(name, table):
    return pd.read_parquet(REFERENCE / "sweeps" / name / f"{table}.parquet")


@cache
def ablations():
    return pd.read_csv(REFERENCE / "sweeps" / "ablations" / "runs.csv", keep_default_na=False)


def values(question, variant):
    metric, subject = QUESTIONS[question]
    runs = ablations()
    rows = runs[(runs["metric"] == metric) & (runs["subject"] == subject) & (runs["variant"] == variant)]
    return rows.set_index("seed")["value"].sort_index()


def gain(question, variant):
    """What the full method gains over a variant, positive for better."""
    difference = (values(question, "foundation") - values(question, variant)).dropna()
    return gain_over_seeds(-difference if question in LOWER_IS_BETTER else difference)


def rows_of(heading):
    """The rows of every table in the README whose head starts so, each a list of cells."""
    found = []
    for block in README.split("\n\n"):
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
    return table


def test_the_tables_of_methods_are_the_committed_sweep():
    rows = rows_of("| method | PSNR, dB | identity | yaw ")
    assert sorted(row[0] for row in rows) == sorted(METHODS)
    columns = ["psnr", "identity", "yaw", "smile", "age", "glasses", "kept", "time"]
    wrong = []
    for name, *cells in rows:
        for column, cell in zip(columns, cells, strict=True):
            value = measured_methods().loc[METHODS[name], column]
            if not (pd.isna(value) if cell == "—" else agrees(cell, value)):
                wrong.append(f"{name}, {column}: {cell}, measured {value:.4g}")
    assert wrong == []


def test_one_table_has_equal_seeds_and_the_trivial_methods_as_its_floor():
    seeds = sweep("methods", "records").groupby("variant")["seed"].nunique()
    first = README.split("First, encoders of equal steps")[1].split("Second, without such a limit")[0]
    names = [line.split("|")[1].strip() for line in first.splitlines() if line.startswith("| ")][1:]
    trained = [METHODS[name] for name in names if METHODS[name] not in ("mean_face", "nearest_code")]
    assert set(seeds[trained]) == {3}
    assert {"mean face", "nearest of 100,000 codes"} <= set(names)


@pytest.mark.parametrize(
    ("claim", "side", "question", "variant"),
    [
        ("alignment", "for", "PSNR of W", "no_alignment"),
        ("alignment", "for", "PSNR of W+", "no_alignment"),
        ("alignment", "for", "code error", "no_alignment"),
        ("alignment", "against", "PSNR", "no_alignment"),
        ("alignment", "against", "identity", "no_alignment"),
        ("alignment", "against", "edit identity", "no_alignment"),
        ("alignment", "against", "perceptual", "no_alignment"),
        ("attention", "for", "PSNR of W+", "w_plus_pyramid"),
        ("F adds", "for", "PSNR", "feature_off"),
        ("F adds", "for", "identity", "feature_off"),
        ("F adds", "for", "leakage", "feature_off"),
        ("F adds", "against", "success", "feature_off"),
    ],
)
def test_the_readme_states_both_sides_of_each_claim_as_they_were_measured(claim, side, question, variant):
    (row,) = [row for row in rows_of("| claim of the paper ") if row[0].startswith(claim)]
    found = gain(question, variant)
    said = re.findall(r"([+-]?\d*\.\d+) \[(-?\d*\.\d+), (-?\d*\.\d+)\]", row[2 if side == "for" else 3])
    wanted = (found.value, found.low, found.high)
    if side == "against" and question in LOWER_IS_BETTER:  # written as "so much higher"
        wanted = (-found.value, -found.high, -found.low)
    assert any(all(map(agrees, numbers, wanted)) for numbers in said), (said, wanted)


def test_the_readme_leaves_out_no_result_against_a_claim():
    variants = {"alignment": "no_alignment", "attention": "w_plus_pyramid", "F adds": "feature_off"}
    adverse = {claim: [q for q in QUESTIONS if gain(q, name).high < 0] for claim, name in variants.items()}
    assert adverse == {
        "alignment": ["PSNR", "identity", "edit identity", "perceptual"],
        "attention": [],
        "F adds": ["success"],
    }


def test_no_claim_is_judged_before_the_trainings_are_long_enough():
    runs = ablations()
    steps = int(runs.loc[runs["metric"] == "training steps", "value"].min())
    verdicts = {row[1] for row in rows_of("| claim of the paper ")}
    assert steps < LEAST_STEPS
    assert verdicts == {f"too early: {steps} steps"}
    assert f"no claim is judged before {LEAST_STEPS:,} steps" in README


def test_what_the_readme_says_in_passing_of_the_ablation():
    no_start, weight, published = (
        gain("PSNR", name) for name in ("no_alignment_at_all", "feature_weight_1", "published")
    )
    curves = sweep("methods", "curves")
    success = curves[curves["step"] == 1.0].groupby("variant")["reached"].mean()
    mean_w = sweep("methods", "records").groupby("variant")["psnr"].mean()["mean_face"]
    edit = {name: values("edit identity", name) for name in ("feature_weight_1", "foundation")}
    said = {
        r"still, by ([\d.]+) dB": -no_start.value,
        r"dB and ([\d.]+) of identity similarity\. Those": -gain("identity", "no_alignment_at_all").value,
        r"gains another ([\d.]+) dB": -weight.value,
        r"leakage is ([\d.]+) sd higher": gain("leakage", "feature_weight_1").value,
        r"after an edit is ([\d.]+) in place": edit["feature_weight_1"].mean(),
        r"in place of ([\d.]+), and leakage": edit["foundation"].mean(),
        r"code whole\* is ([\d.]+) dB": published.value,
        r"its W has ([\d.]+) dB": values("PSNR of W", "published").mean(),
        r"the mean face ([\d.]+), so w has not": mean_w,
        r"the mean face wins it \(([\d.]+);": success["mean_face"],
        r"full method ([\d.]+), W\+ alone": values("success", "foundation").mean(),
        r"W\+ alone ([\d.]+)\) \|": values("success", "feature_off").mean(),
        r"ignores the image, has\n([\d.]+) over": success["mean_face"],
        r"the shipped encoder has ([\d.]+) ": success["clcae_reference"],
        r"\(([\d.]+) with it, 1.01": values("code error", "foundation").mean(),
    }
    for pattern, value in said.items():
        (number,) = re.findall(pattern, README)
        assert agrees(number, value), (pattern, number, value)


def test_what_the_readme_says_of_edits_in_the_comparison():
    table = measured_methods()
    said = {
        r"it keeps ([\d.]+\d) \(age\)": table.loc["clcae_reference", "age"],
        r"and ([\d.]+\d) \(glasses\), against": table.loc["clcae_reference", "glasses"],
        r"against ([\d.]+\d) for yaw": table.loc["clcae_reference", "yaw"],
        r"as much by glasses \(([\d.]+)\)": table.loc["optimisation_f", "glasses"],
        r"as by yaw \(([\d.]+)\)": table.loc["optimisation_f", "yaw"],
    }
    for pattern, value in said.items():
        (number,) = re.findall(pattern, README)
        assert agrees(number, value), (pattern, number, value)


def test_the_readmes_edits_are_those_of_notebook_03():
    metrics = json.loads((REFERENCE / "03_editing_directions" / "metrics.json").read_text())
    found = {(row["metric"], row["subject"]): row["value"] for row in metrics}
    for factor, _, identity, share in rows_of("| edit | kind "):
        assert agrees(identity, found["edit identity similarity", factor])
        assert agrees(share.removesuffix(" %"), 100 * found["edit success", factor])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_time_that_a_notebook_names_is_that_of_the_committed_run(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    opening = " ".join(cell.source for cell in cells[:5]).replace("\n", " ")
    pattern = rf"(?:{NUMBER} to )?{NUMBER} (second|minute)s? with (?:the profile )?`quick`"
    (numbers,) = re.findall(pattern, opening)
    said = [WORDS[n] if n in WORDS else float(n) for n in numbers[:2] if n]
    seconds = sum(said) / len(said) * (60 if numbers[2] == "minute" else 1)
    taken = json.loads((REFERENCE / notebook.stem / "run.json").read_text())["seconds"]
    assert taken / 1.5 <= seconds <= taken * 1.5, f"it says {seconds:.0f} s, the committed run took {taken} s"


def test_the_time_that_the_readme_names_is_that_of_the_committed_run():
    assert "takes about ten minutes on a\nlaptop with two cores" in README
    status = json.loads((REFERENCE / "status.json").read_text())
    taken = sum(part["seconds"] for part in status["notebooks"])
    assert taken / 1.5 <= 10 * 60 <= taken * 1.5


def test_the_starts_of_compared_encoders_are_those_of_the_cards():
    seen = {
        name: json.loads((WEIGHTS / f"{name}.json").read_text())["images_seen"]
        for name in ("alignment", "body", "inversion_foundation")
    }
    (notebook,) = [path for path in NOTEBOOKS if path.stem.startswith("07")]
    text = " ".join(cell.source for cell in nbformat.read(notebook, as_version=4).cells)
    for words in (text, README):
        assert f"{seen['alignment']:,} samples" in words
        assert re.search(rf"{seen['body']:,} (images|renders)", words)
    assert f"the shipped encoder saw {seen['inversion_foundation']:,}" in README
