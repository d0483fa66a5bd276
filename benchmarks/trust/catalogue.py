"""The whole catalogue of odd and bad input: the rows that :mod:`benchmarks.inputs` runs, and those that tests show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd

from benchmarks.inputs.catalogue import CASES, is_right, is_silent, outcome

ROOT = Path(__file__).parents[2]
SDATA, MOVED = "tests/_spatialdata/test_align_spatialdata.py", "tests/_spatialdata/test_move_elements.py"
TESTS = {
    46: (
        "SpatialData: a coordinate system that is not there",
        [f"{SDATA}::TestRefused::test_a_system_that_is_not_there"],
    ),
    47: (
        "SpatialData: an element has a transformation to the target already",
        [
            f"{SDATA}::TestRefused::test_a_transformation_of_the_source_that_would_be_replaced",
            f"{SDATA}::test_the_affine_part_follows_what_each_element_and_scale_has",
        ],
    ),
    48: (
        "SpatialData: table and shapes do not belong together",
        [
            f"{SDATA}::TestRefused::test_a_table_that_annotates_nothing",
            f"{SDATA}::TestRefused::test_a_table_whose_regions_do_not_occur",
            f"{SDATA}::TestRefused::test_instances_that_the_element_does_not_have",
        ],
    ),
    49: ("SpatialData: images and labels at several scales", [f"{MOVED}::test_each_scale_shows_the_same_section"]),
    52: ("a GPU runs out of memory", ["tests/core/test_memory.py"]),
    54: ("a loss turns NaN", ["tests/core/test_guards.py"]),
    55: ("Ctrl-C, or the process is killed", ["tests/test_interruption.py", "tests/core/test_resume.py"]),
    56: (
        "a file that is damaged, or of another version",
        [
            "tests/core/test_checkpoint.py::test_a_damaged_file_is_told_of_in_one_sentence",
            "tests/test_checkpoint.py::test_another_version_is_refused",
            "tests/test_transform_file.py::test_vectors_that_are_cut_off_are_reported",
            "tests/test_transform_file.py::test_a_newer_version_is_told_apart_from_damage",
        ],
    ),
    57: (
        "points beyond the tissue",
        [
            "tests/core/test_transforms.py::test_beyond_the_grid_nothing_moves",
            "tests/core/test_transforms.py::test_a_displaced_border_is_continued_and_fades_without_a_fold",
            "tests/test_apply.py::test_inside_is_told_for_each_row_in_both_directions",
        ],
    ),
    58: ("points in other units", ["tests/test_apply.py::test_points_in_another_unit_are_warned_of_once"]),
}
"""Rows that are not run by :mod:`benchmarks.inputs`: what the input is, and the tests that show what happens to it."""


def input_rows() -> pd.DataFrame:
    """Run all of it; a line per input: row, what was given, whether what was to happen did, whether it was silently wrong."""
    ran = [
        {
            "row": case.row,
            "given": case.given,
            "found": outcome(case).kind,
            "right": is_right(case),
            "silent": is_silent(case),
            "shown_by": f"python -m benchmarks.inputs --rows {case.row}",
        }
        for case in CASES
    ]
    tested = []
    for row, (given, tests) in TESTS.items():
        passed = passes(tests)
        tested.append(
            {
                "row": row,
                "given": given,
                "found": "passed" if passed else "failed",
                "right": passed,
                "silent": not passed,
                "shown_by": f"python -m pytest {' '.join(tests)}",
            }
        )
    return pd.DataFrame(ran + tested).sort_values("row", kind="stable")


def passes(tests: list[str]) -> bool:
    """Whether all of these tests pass, and none of them is skipped by all."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode == 0
