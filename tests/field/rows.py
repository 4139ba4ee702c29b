"""The field's table: what becomes of each row today, and the test that shows it.

    python -m tests.field.rows    # print it

Numbers are those of the log of reports that the rows came from; rows that always worked have none.
"""

import ast
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_WEIGHTS, _PHOTOS = "tests/field/test_weights.py", "tests/field/test_photographs.py"
_USED = f"{_WEIGHTS}::test_a_generator_works_in_every_command"
_REFUSED = f"{_WEIGHTS}::test_a_refusal_is_one_sentence_and_never_advises_to_switch_safety_off"
_SLIDERS = "tests/field/test_directions.py::test_a_file_of_directions_gives_sliders"
_OWN = "tests/notebooks/test_own_photographs.py"
_SETTING = "tests/unit/test_suite_parts.py::test_settings_are_read_as_the_parameter_takes_them"
_FOLDER = "tests/unit/test_suite_parts.py::test_a_folder_counts_from_where_the_command_is_given"


class Row(NamedTuple):
    """A case, what becomes of it, and the test."""

    case: str
    outcome: str
    test: str


ROWS = {
    1: Row("names begin with module.", "works", _USED),
    2: Row("no noise maps", "works; maps of a fixed seed, and said", _USED),
    3: Row("channel_multiplier 1", "works", _USED),
    4: Row("2 or 8 mapping layers", "works", _USED),
    6: Row("mean code repeated for every layer", "works", _USED),
    7: Row("only g, generator, or a bare state dict", "works", _USED),
    8: Row("one dictionary under two names", "works", _USED),
    12: Row("PTI's tuned .pt", "works", _USED),
    13: Row("a bare network in a .pkl", "works", _USED),
    14: Row("a whole module", "refused", _REFUSED),
    16: Row("other endings", "works", _USED),
    17: Row("class-conditional", "refused", _REFUSED),
    18: Row("grey or RGBA", "refused", _REFUSED),
    19: Row("not square", "refused", _REFUSED),
    20: Row("StyleGAN3", "refused", _REFUSED),
    21: Row(
        "pSp, e4e, ReStyle, HFGI",
        "generators, encoders (IR-SE50, ResNet34) and HFGI's branch work",
        "tests/field/test_peers.py::test_an_official_encoder_inverts_by_the_published_arithmetic",
    ),
    22: Row("a pointer of Git LFS", "refused", _REFUSED),
    23: Row("Google Drive's page", "refused", _REFUSED),
    24: Row("mode 0600", "mended", f"{_WEIGHTS}::test_24_written_weights_follow_the_umask"),
    25: Row("safetensors of others", "works", _USED),
    27: Row("directions [D] to [1, L, D]", "work", _SLIDERS),
    28: Row(
        "AppleDouble files",
        "left out; a bad file is listed",
        "tests/field/test_directions.py::test_one_bad_file_is_listed_and_the_explorer_starts",
    ),
    29: Row(".npz, .pkl, .pth, .NPY", "work", _SLIDERS),
    30: Row(
        "names that collide",
        "distinguished",
        "tests/field/test_directions.py::test_30_names_that_collide_are_told_apart",
    ),
    32: Row("SeFa's factor.pt", "works", _SLIDERS),
    35: Row(
        "litter among photographs",
        "left out or named; AVIF works, HEIC with an extra",
        f"{_PHOTOS}::test_35_what_is_among_photographs_is_left_out_or_named",
    ),
    38: Row(
        "several faces",
        "chosen with --face",
        "tests/unit/test_worlds_photos.py::test_which_of_several_faces_is_cut_is_a_setting",
    ),
    40: Row("bad landmarks", "named", "tests/unit/test_worlds_photos.py::test_each_refusal_names_its_file"),
    41: Row(
        "one bad alignment",
        "named, the others go on",
        f"{_OWN}::test_a_world_without_attributes_and_files_of_all_kinds",
    ),
    42: Row("a.jpg beside a.png", "works", f"{_OWN}::test_a_world_without_attributes_and_files_of_all_kinds"),
    43: Row(
        "a replaced photograph",
        "inverted again",
        f"{_PHOTOS}::test_43_a_replaced_photograph_is_inverted_again",
    ),
    44: Row("--set edit=0", "works", _SETTING),
    45: Row(
        "landmark files in the album",
        "left out",
        f"{_PHOTOS}::test_45_and_46_landmarks_and_results_are_no_photographs",
    ),
    46: Row(
        "output among the input",
        "refused; earlier results are left out",
        f"{_PHOTOS}::test_45_and_46_landmarks_and_results_are_no_photographs",
    ),
    47: Row("photographs in subfolders", "named", f"{_PHOTOS}::test_47_a_folder_of_folders_names_them"),
    48: Row(
        "few photographs, no factors",
        "works or refused",
        f"{_OWN}::test_plain_photographs_end_with_the_reason_for_each_file_and_what_needs_factors_says_so",
    ),
    49: Row(
        "two threads draw",
        "mended",
        "tests/unit/test_explorer_studio.py::test_an_image_depends_on_its_state_and_not_on_what_other_threads_draw",
    ),
    50: Row(
        "a cell run twice",
        "mended",
        "tests/unit/test_suite_parts.py::test_a_cell_that_is_run_again_replaces_its_numbers_and_one_run_records_each_once",
    ),
    51: Row(
        "kernels that start together",
        "mended: they use no port",
        "tests/unit/test_suite_overrides.py::test_a_notebook_runs_in_this_interpreter_and_its_kernel_uses_no_port",
    ),
    52: Row(
        "a user without a name",
        "works",
        "tests/unit/test_suite_overrides.py::test_a_user_without_a_name_and_a_folder_whose_path_is_too_long_for_sockets",
    ),
    53: Row(
        "CUDA_VISIBLE_DEVICES=2,3",
        "honoured",
        "tests/unit/test_suite_sweep.py::test_workers_share_the_gpus_that_were_given",
    ),
    54: Row("# in a folder's name", "works", _FOLDER),
    55: Row("~ after =", "works", _FOLDER),
    56: Row("relative folders, and 2024", "work", _FOLDER),
    58: Row(
        "another python3 kernel",
        "works",
        "tests/unit/test_suite_overrides.py::test_the_explorer_is_served_in_this_interpreter_to_so_many_and_from_here_only",
    ),
    62: Row(
        "resume with other settings",
        "refused",
        "tests/unit/test_loop.py::test_a_run_of_other_settings_is_refused_with_the_difference_and_a_remedy",
    ),
    63: Row(
        "devices gpu, cuda:7, mps",
        "refused",
        "tests/unit/test_devices.py::test_a_device_that_cannot_be_used_is_refused_by_name",
    ),
    64: Row(
        "fetch without a network",
        "refused with the place",
        "tests/unit/test_weights_fetch.py::test_without_a_network_host_and_place_are_named",
    ),
    65: Row(
        "train all of one's own world",
        "found; what is missing is named",
        f"{_PHOTOS}::test_65_train_all_of_a_world_of_ones_own_finds_it_and_says_what_to_fetch",
    ),
    66: Row(
        "directions of one's own world",
        "refused",
        f"{_PHOTOS}::test_66_directions_of_a_world_without_factors_say_what_is_there_instead",
    ),
    67: Row(
        "published weights missing",
        "names clcae fetch",
        f"{_PHOTOS}::test_67_missing_published_weights_name_the_command_that_brings_them",
    ),
    68: Row(
        "info after world add",
        "no problem",
        f"{_WEIGHTS}::test_68_info_finds_no_fault_with_a_world_just_made",
    ),
}


def names_of(file: str) -> set[str]:
    """The functions of a file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def main() -> None:
    for number, row in ROWS.items():
        print(f"{number:>3}  {row.case:<42} {row.outcome:<56} {row.test}")


if __name__ == "__main__":
    main()
