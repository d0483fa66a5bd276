"""Whether two sections can be in one unit of length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from inst_align._checks._words import warn_user

if TYPE_CHECKING:
    from inst_align.core.section import Section

Scale = float | Literal["estimate"] | None

SUSPICIOUS = 2.0
"""Sections that differ by this factor in extent *and* in neighbour distance are taken to be in different units.

Either alone has innocent reasons: a crop, or another technology. Sections of one tissue that were compared differ by less
than 1.3 in extent, and a crop to 30 % of the area by 1.8.
"""
DOUBTFUL = 3.0
"""A factor in extent that is worth a warning when the neighbour distances differ, too, but the other way."""
SAME_DENSITY = 1.5
"""Neighbour distances that differ by less than this come from one technology, and so in one unit."""
HOPELESS = 20.0
"""A factor in extent that no crop explains: the smaller section would have 1/400 of the area."""

IMPOSSIBLE = 1e6
"""A factor in extent, or a distance in extents, at which no two sections can be compared, whatever anyone says."""


def check_scale(scale: object) -> None:
    """Raise ValueError unless ``scale`` is None, "estimate" or a positive number."""
    number = isinstance(scale, int | float | np.integer | np.floating) and not isinstance(scale, bool)
    positive = number and 0 < float(scale) < float("inf")  # type: ignore[arg-type]
    if not (scale is None or scale == "estimate" or positive):
        raise ValueError(
            f"`scale={scale!r}` is no factor; pass a positive number that the source's coordinates are multiplied by, "
            f'"estimate", or None if both sections are in one unit.'
        )


def extent(section: Section) -> float:
    """Return about how long a section is: the diameter of the disc with its root mean square radius."""
    centred = section.xy - section.xy.mean(axis=0)
    return float(np.sqrt(8 * (centred**2).sum(axis=1).mean()))


def check_factor(ref: Section, src: Section, *, factor: float, argument: str) -> None:
    """Raise ValueError when a factor that the user has given makes it impossible that the sections have tissue in common."""
    sizes = extent(ref), extent(src) * factor
    if not 1 / IMPOSSIBLE < sizes[1] / sizes[0] < IMPOSSIBLE:
        raise ValueError(
            f"`{argument}`: the source would be about {sizes[1]:.3g} wide with the factor {factor:.4g}, and the reference is "
            f"{sizes[0]:.3g}; check the factor, which multiplies the source's coordinates."
        )


def check_place(ref: Section, src_xy: np.ndarray, *, argument: str) -> None:
    """Raise ValueError when a pose takes the source's cells, shape ``(m, 2)``, to where no reference is."""
    center, there = ref.xy.mean(axis=0), src_xy.mean(axis=0)
    if not np.abs(there - center).max() < IMPOSSIBLE * extent(ref):
        raise ValueError(
            f"`{argument}` takes the source to ({there[0]:.3g}, {there[1]:.3g}), and the reference is at ({center[0]:.3g}, "
            f"{center[1]:.3g}) and about {extent(ref):.3g} wide; give the pose in the units and the frames of the coordinates."
        )


def check_units(ref: Section, src: Section, *, factor: float, settled: bool, way_out: str) -> None:
    """Compare the size of two sections and the distances of their cells; refuse what smells of two units.

    Parameters
    ----------
    ref
        The section that stays.
    src
        The section that moves, in units of its own.
    factor
        What the source's coordinates are multiplied by.
    settled
        Whether the user has settled the matter; then there is no error.
    way_out
        What to do, for the message.

    Raises
    ------
    ValueError
        The units differ.

    Warns
    -----
    UserWarning
        They may, or the factor given makes the sections differ.
    """
    sizes = extent(ref), extent(src) * factor
    larger = sizes[1] / sizes[0]
    if max(larger, 1 / larger) < SUSPICIOUS:
        return
    gaps = ref.spacing, src.spacing * factor
    wider = gaps[1] / gaps[0]
    size, gap = (larger, wider) if larger > 1 else (1 / larger, 1 / wider)
    differ = size >= HOPELESS or gap >= SUSPICIOUS
    if not differ and not (size >= DOUBTFUL and gap < 1 / SAME_DENSITY):
        return
    found = (
        f"the reference is about {sizes[0]:.4g} wide with neighbouring cells {gaps[0]:.4g} apart, the source "
        f"{sizes[1]:.4g} with {gaps[1]:.4g}, a factor of {_ratio(larger)} in size and {_ratio(wider)} in distance"
    )
    if settled:
        warn_user(f"With `scale={factor:g}` {found}: check the factor, which multiplies the source's coordinates.")
    elif differ:
        raise ValueError(f"`scale`: the sections seem to be in different units of length: {found}; {way_out}.")
    else:
        warn_user(f"The sections may be in different units of length: {found}; if they are, {way_out}.")


def _ratio(value: float) -> str:
    if value < 1:
        return f"1/{_ratio(1 / value)}"
    return f"{value:.3g}" if not 1000 <= value < IMPOSSIBLE else f"{value:,.0f}"
