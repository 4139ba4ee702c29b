"""Measures of retrieval, inversion, edits and generators, with their intervals and verdicts.

`docs/measures.md` lists every measure with its range and the function that computes it.
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
    true_edit,
)
from clcae_lib.evaluation.generator import GeneratorMeasure
from clcae_lib.evaluation.judges import Judges, same_person_similarity
from clcae_lib.evaluation.measures import CODES, DETAILS, EDITS, FIDELITY, SETS, Measure, edit_kind
from clcae_lib.evaluation.reconstruction import (
    decode,
    evaluate_inversion,
    oracle_check,
    reconstruction_records,
)
from clcae_lib.evaluation.retrieval import neighbour_retrieval
from clcae_lib.evaluation.sets import set_distances
from clcae_lib.evaluation.statistics import (
    Interval,
    bootstrap_ci,
    paired_correlation,
    paired_difference,
    student_ci,
    summarise,
)
from clcae_lib.evaluation.styles import StyleStatistics
