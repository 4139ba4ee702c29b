"""Measures of retrieval, inversion, edits and generators, and the intervals and verdicts that go with them.

| measure | range or unit | better | computed by |
|---|---|---|---|
| `mse` | 0 to 4, on [-1, 1] | lower | `evaluate_inversion`, `reconstruction_records` |
| `psnr`, `truth_psnr` | dB, at most 106 | higher | the same; `measure_edits` |
| `ssim` | -1 to 1 | higher | `evaluate_inversion`, `reconstruction_records` |
| `ms_ssim` | 0 to 1 | higher | `reconstruction_records` |
| `perceptual`, `lpips` | 0 and more | lower | the same |
| `truth_distance`, `inversion_distance` | 0 and more | lower | `measure_edits` |
| `identity`, `identity_unedited` | -1 to 1 | higher | the same; `measure_edits` |
| `factor_error` | 0 and more, standard deviations (sd) | lower | `evaluate_inversion` |
| `r2_renders`, `r2_inversions` | at most 1 | higher | `oracle_check` |
| `moved`, `moved_from_original` | sd | nearer to `wanted` | `measure_edits` |
| `reached` | 0 or 1 | higher | `measure_edits` |
| `leakage` | 0 and more, sd | lower | `measure_edits` |
| `monotone` | 0 or 1 | higher | `measure_paths` |
| `rank` | -1 to 1 | higher | `measure_paths` |
| `path_length` | 0 and more | lower, at equal `moved` | `measure_paths` |
| `jump` | 1 to the number of steps | lower | `measure_paths` |
| `code_distance` | 0 and more, sd of W | lower | `Bench` |
| `style_distance`, `style_error` | 0 to 2 | lower | `style_alignment` |
| `style_size` | 0 and more | nearer to 1 | `style_alignment` |
| `kept`, `kept_after_edit` | at most 1 | higher | `Bench` |
| recall at k, neighbours | 0 to 1 | higher | `recall_at_k`, `neighbour_retrieval` |
| `frechet`, `kernel` | 0 and more (`kernel`: unbiased) | lower | `set_distances`, `GeneratorMeasure` |
| `precision`, `recall` | 0 to 1 | higher | `GeneratorMeasure` |
| `factors` | 0 and more, sd | lower | `GeneratorMeasure` |
| `spread` | 0 and more | nearer to 1 | `GeneratorMeasure` |
"""

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
from clcae_lib.evaluation.curves import at_equal_response, front, images_at_response
from clcae_lib.evaluation.edits import (
    EditBench,
    effect_matrix,
    measure_curve,
    measure_edits,
    measure_paths,
    summarise_edits,
    summarise_paths,
    true_edit,
)
from clcae_lib.evaluation.generator import GeneratorMeasure
from clcae_lib.evaluation.judges import Judges, same_person_similarity
from clcae_lib.evaluation.reconstruction import (
    decode,
    evaluate_inversion,
    oracle_check,
    reconstruction_records,
    write_records,
)
from clcae_lib.evaluation.retrieval import neighbour_retrieval
from clcae_lib.evaluation.sets import set_distances
from clcae_lib.evaluation.statistics import Interval, bootstrap_ci, paired_difference, student_ci, summarise
from clcae_lib.evaluation.styles import StyleStatistics, style_alignment

__all__ = [
    "LEAST_STEPS",
    "Bench",
    "EditBench",
    "Gain",
    "GeneratorMeasure",
    "Interval",
    "Judges",
    "Measured",
    "StyleStatistics",
    "at_equal_response",
    "bootstrap_ci",
    "compare_gains",
    "compare_methods",
    "cost_table",
    "decode",
    "effect_matrix",
    "effect_size",
    "evaluate_inversion",
    "front",
    "gain_over_images",
    "gain_over_seeds",
    "holm",
    "images_at_response",
    "judge_table",
    "measure_curve",
    "measure_edits",
    "measure_paths",
    "neighbour_retrieval",
    "oracle_check",
    "paired_difference",
    "parameter_count",
    "peak_memory",
    "reconstruction_records",
    "same_person_similarity",
    "set_distances",
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
