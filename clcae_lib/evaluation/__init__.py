"""Measures of retrieval, inversion, edits and generators, and the intervals that go with them."""

from clcae_lib.evaluation.claims import (
    LEAST_STEPS,
    Gain,
    compare_gains,
    compare_methods,
    effect_size,
    gain_over_images,
    gain_over_seeds,
    holm,
    judge_table,
    verdict,
)
from clcae_lib.evaluation.comparison import Bench, Measured
from clcae_lib.evaluation.cost import cost_table, parameter_count, peak_memory, time_paired
from clcae_lib.evaluation.curves import at_equal_response, front, images_at_response, measure_curve
from clcae_lib.evaluation.details import detail_kept, detail_mask, detail_table
from clcae_lib.evaluation.editability import effect_matrix, measure_edits, summarise_edits, true_edit
from clcae_lib.evaluation.generator import GeneratorMeasure, evaluate_generator
from clcae_lib.evaluation.judges import Judges, same_person_similarity
from clcae_lib.evaluation.paths import measure_paths, summarise_paths
from clcae_lib.evaluation.precision import StyleSpace, code_distance, style_alignment
from clcae_lib.evaluation.reconstruction import decode, evaluate_inversion, oracle_check, r_squared
from clcae_lib.evaluation.records import reconstruction_records, write_records
from clcae_lib.evaluation.retrieval import neighbour_retrieval
from clcae_lib.evaluation.sets import set_distances
from clcae_lib.evaluation.statistics import (
    Interval,
    bootstrap_ci,
    hierarchical_ci,
    paired_difference,
    student_ci,
    summarise,
)
from clcae_lib.metrics import (
    PrecisionRecall,
    factor_distribution_distance,
    frechet_distance,
    kernel_distance,
    ms_ssim,
    ms_ssim_scales,
    mse,
    precision_recall,
    psnr,
    recall_at_k,
    ssim,
)

__all__ = [
    "LEAST_STEPS",
    "Bench",
    "Gain",
    "GeneratorMeasure",
    "Interval",
    "Judges",
    "Measured",
    "PrecisionRecall",
    "StyleSpace",
    "at_equal_response",
    "bootstrap_ci",
    "code_distance",
    "compare_gains",
    "compare_methods",
    "cost_table",
    "decode",
    "detail_kept",
    "detail_mask",
    "detail_table",
    "effect_matrix",
    "effect_size",
    "evaluate_generator",
    "evaluate_inversion",
    "factor_distribution_distance",
    "frechet_distance",
    "front",
    "gain_over_images",
    "gain_over_seeds",
    "hierarchical_ci",
    "holm",
    "images_at_response",
    "judge_table",
    "kernel_distance",
    "measure_curve",
    "measure_edits",
    "measure_paths",
    "ms_ssim",
    "ms_ssim_scales",
    "mse",
    "neighbour_retrieval",
    "oracle_check",
    "paired_difference",
    "parameter_count",
    "peak_memory",
    "precision_recall",
    "psnr",
    "r_squared",
    "recall_at_k",
    "reconstruction_records",
    "same_person_similarity",
    "set_distances",
    "ssim",
    "student_ci",
    "style_alignment",
    "summarise",
    "summarise_edits",
    "summarise_paths",
    "time_paired",
    "true_edit",
    "verdict",
    "write_records",
]
