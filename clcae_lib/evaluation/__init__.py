"""Measures of retrieval, inversion, edits and generators, and the intervals that go with them."""

from clcae_lib.evaluation.claims import (
    Gain,
    compare_methods,
    effect_size,
    gain_over_images,
    gain_over_seeds,
    holm,
    judge_table,
    verdict,
)
from clcae_lib.evaluation.editability import effect_matrix, measure_edits, summarise_edits, true_edit
from clcae_lib.evaluation.generator import evaluate_generator
from clcae_lib.evaluation.judges import Judges, same_person_similarity
from clcae_lib.evaluation.metrics import (
    PrecisionRecall,
    factor_distribution_distance,
    frechet_distance,
    kernel_distance,
    mse,
    precision_recall,
    psnr,
    ssim,
)
from clcae_lib.evaluation.paths import measure_paths, summarise_paths
from clcae_lib.evaluation.reconstruction import decode, evaluate_inversion, oracle_check, r_squared
from clcae_lib.evaluation.retrieval import neighbour_retrieval, recall_at_k
from clcae_lib.evaluation.statistics import (
    Interval,
    bootstrap_ci,
    hierarchical_ci,
    paired_difference,
    student_ci,
    summarise,
)

__all__ = [
    "Gain",
    "Interval",
    "Judges",
    "PrecisionRecall",
    "bootstrap_ci",
    "compare_methods",
    "decode",
    "effect_matrix",
    "effect_size",
    "evaluate_generator",
    "evaluate_inversion",
    "factor_distribution_distance",
    "frechet_distance",
    "gain_over_images",
    "gain_over_seeds",
    "hierarchical_ci",
    "holm",
    "judge_table",
    "kernel_distance",
    "measure_edits",
    "measure_paths",
    "mse",
    "neighbour_retrieval",
    "oracle_check",
    "paired_difference",
    "precision_recall",
    "psnr",
    "r_squared",
    "recall_at_k",
    "same_person_similarity",
    "ssim",
    "student_ci",
    "summarise",
    "summarise_edits",
    "summarise_paths",
    "true_edit",
    "verdict",
]
