"""Record the numbers of one ablation run, which `clcae sweep ablations` joins (no section of the paper)."""

from collections.abc import Mapping

import pandas as pd

from clcae_lib.evaluation import EDITS, Interval
from clcae_lib.plots import SPACE_LABELS
from clcae_lib.suite.record import Recorder

KINDS = ("geometric edits", "appearance edits")
Measures = Mapping[str, tuple[str, str, str]]


def record_training(
    recorder: Recorder, log: pd.DataFrame, *, steps: int, batch_size: int, parameters: int
) -> None:
    """Record the length of a training, the images that it saw, and the encoder's number of parameters.

    Args:
        log: the training's log, with the column `seconds`.
    """
    recorder.metric("training steps", steps, source="live")
    recorder.metric("training time", log["seconds"].max(), source="live", unit="s", better="lower")
    recorder.metric("images seen in training", steps * batch_size, source="live")
    recorder.metric("parameters", parameters, source="live", better="lower")


def record_reconstructions(
    recorder: Recorder, fidelity: pd.DataFrame, guesses: pd.DataFrame, measures: Measures
) -> None:
    """Record the fidelity of each space, and that of the trivial methods as a reference.

    Args:
        fidelity: result of `evaluation.summarise`, by `space`; "final" is the last space.
        guesses: means of the measures, one row for each trivial method.
        measures: name, unit and better direction of each measure, such as `judges.fidelity`.
    """
    spaces = fidelity["space"].replace(SPACE_LABELS)
    main = (fidelity["metric"] == "psnr") & (fidelity["space"] == "final")
    recorder.metrics(fidelity, measures, subject=spaces, source="live", headline=main)
    recorder.metrics(guesses, measures, subject="final", source="reference", suffix=_suffixes(guesses.index))


def record_codes(
    recorder: Recorder, precision: Interval, *, of_mean_face: float, recall: Mapping[int, float], codes: int
) -> None:
    """Record the code error with its interval, that of the mean code, and the recall among `codes` codes."""
    about = {"subject": "W", "unit": "sd", "better": "lower"}
    recorder.metric("code error", **vars(precision), source="live", headline=True, **about)
    recorder.metric("code error of the mean face", of_mean_face, source="reference", **about)
    for k, share in recall.items():
        name = f"retrieval of the code among {codes:,}"
        recorder.metric(name, share, subject=f"R@{k}", source="live", better="higher")


def record_edits(
    recorder: Recorder, summary: pd.DataFrame, success: Mapping[str, float], *, variant: str
) -> None:
    """Record the edits of a variant, and those of the trivial methods as a reference.

    Args:
        summary: result of `evaluation.summarise`, by `method` and `subject`: a factor or one of `KINDS`.
        success: share of edits that reach their factor, by method.
        variant: the method that was trained.
    """
    method, subject = summary["method"], summary["subject"]
    main = (method == variant) & subject.isin(KINDS) & (summary["metric"] == "truth_distance")
    about = {"suffix": _suffixes(method), "source": _sources(method, variant)}
    recorder.metrics(summary, EDITS, headline=main, **about)
    shares = pd.DataFrame({"reached": success})
    about = {"suffix": _suffixes(shares.index), "source": _sources(shares.index, variant)}
    recorder.metrics(shares, {"reached": ("edit success", "", "higher")}, subject="all factors", **about)


def _suffixes(methods: pd.Series | pd.Index) -> list[str]:
    of = {"mean_face": " of the mean face", "nearest_code": " of the nearest code"}
    return [of.get(method, "") for method in methods]


def _sources(methods: pd.Series | pd.Index, variant: str) -> list[str]:
    return ["live" if method == variant else "reference" for method in methods]
