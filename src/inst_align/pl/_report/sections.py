"""Where the cells of both sections were, are after the pose, and are now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inst_align import _keys, get
from inst_align.pl import _axes
from inst_align.pl._alignment import ADVICE
from inst_align.pl._deformation import _split

if TYPE_CHECKING:
    from anndata import AnnData

    from inst_align.core.transforms import Affine


@dataclass(frozen=True, kw_only=True, eq=False)
class Sections:
    """Coordinates of all cells, (x, y), NaN where a cell has no place.

    Parameters
    ----------
    ref
        The reference in its own frame and unit, shape ``(n, 2)``: after the run.
    ref_stored
        The same as it was when it was aligned.
    stored
        The source as it was, in its own frame and unit, shape ``(m, 2)``.
    posed, moved
        The source after the pose alone and after the whole map, in the reference's frame.
    pose
        The affine part of the map.
    bent
        Whether the map is more than that.
    """

    ref: np.ndarray
    ref_stored: np.ndarray
    stored: np.ndarray
    posed: np.ndarray
    moved: np.ndarray
    pose: Affine
    bent: bool


def read_sections(adata_ref: AnnData, adata_src: AnnData, key: str) -> Sections:
    """Return the places of the cells of a pair after the run ``key``.

    A reference that was not stored again after the run has no key of its own for the result: it did not move, and so its
    own coordinates will do.

    Raises
    ------
    KeyError
        The map or coordinates are missing.
    ValueError
        The source was the reference of the run.
    """
    transform = get.transform(adata_src, key)
    spatial_key = str(get.params(adata_src, key).get("spatial_key", _keys.SPATIAL))
    pose, bend = _split(transform)
    stored = _axes.coordinates(adata_src, spatial_key, argument="spatial_key", name="source")
    ref_stored = _axes.coordinates(adata_ref, spatial_key, argument="spatial_key", name="reference")
    return Sections(
        ref=_axes.coordinates(adata_ref, key, argument="key", name="reference")
        if key in adata_ref.obsm
        else ref_stored,
        ref_stored=ref_stored,
        stored=stored,
        posed=_moved(pose, stored),
        moved=_axes.coordinates(adata_src, key, argument="key", name="source", advice=ADVICE),
        pose=pose,
        bent=bend is not None,
    )


def _moved(pose: Affine, xy: np.ndarray) -> np.ndarray:
    """Return where an affine map takes points, of which some may be NaN."""
    result = np.full_like(xy, np.nan)
    known = np.isfinite(xy[:, 0])
    result[known] = pose(xy[known])
    return result
