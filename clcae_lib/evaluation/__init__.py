"""Measures of retrieval, inversion, edits and generators, and the intervals that go with them."""

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
from clcae_lib.evaluation.retrieval import neighbour_retrieval, recall_at_k
from clcae_lib.evaluation.statistics import (
    Interval,
    bootstrap_ci,
    hierarchical_ci,
    paired_difference,
    summarise,
)

__all__ = [
    "Interval",
    "PrecisionRecall",
    "bootstrap_ci",
    "factor_distribution_distance",
    "frechet_distance",
    "hierarchical_ci",
    "kernel_distance",
    "mse",
    "neighbour_retrieval",
    "paired_difference",
    "precision_recall",
    "psnr",
    "recall_at_k",
    "ssim",
    "summarise",
]
