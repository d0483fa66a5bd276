"""Sections in two units are refused; sections of other size, or of other resolution, are not."""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest

from inst_align import _checks as checks
from inst_align.core.section import Section

if TYPE_CHECKING:
    from pathlib import Path


def square(side: float, spacing: float) -> Section:
    n = round(side / spacing) + 1
    xy = np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2) * (side / (n - 1))
    return Section(xy=xy, expression=np.ones((len(xy), 1)))


def compare(ref: Section, src: Section, *, factor: float = 1.0, settled: bool = False) -> str:
    """Return how the check goes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            checks.check_units(ref, src, factor=factor, settled=settled, way_out="do something")
        except ValueError:
            return "error"
    return "warning" if caught else "passes"


REFERENCE = square(1000, 20)

PAIRS: dict[str, tuple[Section, str]] = {
    "the same": (square(1000, 20), "passes"),
    "a little larger": (square(1300, 20), "passes"),
    "spots instead of cells": (square(1000, 200), "passes"),
    "cells instead of spots": (square(1000, 4), "passes"),
    "a crop to 30 %": (square(1000 * 0.3**0.5, 20), "passes"),
    "a crop to 30 % with spots": (square(1000 * 0.3**0.5, 100), "passes"),
    "a crop to 30 % with finer cells": (square(1000 * 0.3**0.5, 5), "passes"),
    "5 % of the area": (square(1000 * 0.05**0.5, 20), "passes"),
    "twice as long, the same cells": (square(2100, 20), "passes"),
    "pixels of 0.2125 micrometres": (square(1000 / 0.2125, 20 / 0.2125), "error"),
    "pixels of half a micrometre": (square(2100, 42), "error"),
    "pixels, and spots": (square(2100, 210), "error"),
    "millimetres": (square(1, 0.02), "error"),
    "millimetres, and spots": (square(1, 0.2), "error"),
    "a thousand times, the same neighbour distance": (square(25_000, 250), "error"),
    "four times as long, and finer": (square(4000, 10), "warning"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_units_are_told_from_crops_and_resolutions(name: str) -> None:
    src, wanted = PAIRS[name]
    assert compare(REFERENCE, src) == wanted
    assert compare(src, REFERENCE) == wanted


def test_a_factor_is_judged_after_it_was_applied() -> None:
    pixels = square(1000 / 0.2125, 20 / 0.2125)
    assert compare(REFERENCE, pixels, factor=0.2125, settled=True) == "passes"
    assert compare(REFERENCE, pixels, factor=1 / 0.2125, settled=True) == "warning"


def test_the_message_has_both_numbers_of_both_sections() -> None:
    with pytest.raises(
        ValueError, match=r"about 1\d{3} wide with neighbouring cells 20 apart.* 1\.\d+ with 0\.02"
    ) as caught:
        checks.check_units(REFERENCE, square(1, 0.02), factor=1.0, settled=False, way_out="pass `scale=1000`")
    assert str(caught.value).startswith("`scale`: ")
    assert "a factor of 1/1,000 in size and 1/1,000 in distance; pass `scale=1000`." in str(caught.value)


@pytest.mark.parametrize("scale", ["auto", 0, -1.0, np.nan, np.inf, True, [1.0]])
def test_a_scale_that_is_none_is_refused(scale: Any) -> None:
    with pytest.raises(ValueError, match="`scale=.* is no factor"):
        checks.check_scale(scale)


@pytest.mark.parametrize("scale", [None, "estimate", 1, 0.2125, np.float32(2), np.int64(3)])
def test_a_scale_is_taken(scale: Any) -> None:
    checks.check_scale(scale)


def test_real_sections_of_one_tissue_pass_and_their_pixels_do_not(real_data: Path) -> None:
    compared = 0
    for study in sorted(folder for folder in real_data.iterdir() if folder.is_dir() and folder.name != "truth"):
        sections = []
        for path in sorted(study.glob("*.h5ad")):
            xy = np.asarray(ad.read_h5ad(path, backed="r").obsm["spatial"], dtype=np.float64)
            assert not checks.stray_cells(xy).any()
            sections.append(Section(xy=xy, expression=np.ones((len(xy), 1))))
        for ref, src in itertools.combinations(sections, 2):
            assert compare(ref, src) == "passes"
            assert compare(ref, src, factor=0.2125) == compare(ref, src, factor=1e3) == "error"
            compared += 1
    assert compared


@pytest.mark.parametrize(("factor", "fine"), [(1e-5, True), (1.0, True), (1e5, True), (1e200, False), (1e-300, False)])
def test_a_factor_beyond_all_reason_is_refused_whatever_was_said(factor: float, fine: bool) -> None:
    if fine:
        checks.check_factor(REFERENCE, square(1000, 20), factor=factor, argument="scale")
        return
    with pytest.raises(ValueError, match=r"`scale`: the source would be about .* wide with the factor 1e"):
        checks.check_factor(REFERENCE, square(1000, 20), factor=factor, argument="scale")


@pytest.mark.parametrize("far", [1e3, 1e20, 1e200, np.inf])
def test_a_pose_that_takes_the_source_nowhere_near_is_refused(far: float) -> None:
    src = square(1000, 20).xy + [far, 0]
    if far == 1e3:
        checks.check_place(REFERENCE, src, argument="init")
        return
    with pytest.raises(
        ValueError, match=r"`init` takes the source to \((1e\+20|1e\+200|inf), .*, and the reference is at"
    ):
        checks.check_place(REFERENCE, src, argument="init")
