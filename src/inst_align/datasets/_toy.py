"""Two made-up sections of one tissue, with the truth about how they belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inst_align._keys import SPATIAL, SPATIAL_TRUE
from inst_align.datasets._counts import PATTERNS, draw_batch_factors, draw_counts, draw_programme
from inst_align.datasets._placement import draw_pose, draw_warp, unit_vector
from inst_align.datasets._tissue import CELL_TYPES, EXTENT, LAYERS, make_tissue

if TYPE_CHECKING:
    from anndata import AnnData

    from inst_align.datasets._counts import Programme
    from inst_align.datasets._tissue import Tissue

_MIN_CELLS = 10
_MIN_GENES = 10


def toy_pair(
    *,
    n_cells: int = 1500,
    n_genes: int = 200,
    depth: float = 200.0,
    batch_sd: float = 0.4,
    warp: float = 0.10,
    rotation: float | None = None,
    crop: float | None = None,
    mirror: bool = False,
    rng: int | np.random.Generator | None = None,
) -> tuple[AnnData, AnnData]:
    """Make two sections of one continuous, layered tissue, whose true correspondence is known.

    Both sections sample cells independently from the same tissue: an irregular outline, six wavy layers of different
    thickness, smooth gradients along and across them, a few localised regions, and cell types that are mixed within a
    layer, so that neighbours differ. Counts are Poisson, cells differ in size (log-normal, sd 0.35). The source is then
    warped smoothly without folds, turned, mirrored if asked, shifted, and cropped if asked.

    Conventions: axis order is (x, y), y points up, lengths are in micrometres. The longer side of the tissue is
    always 2000, so that cells lie closer when there are more of them: at 1500 cells the median distance to the nearest
    neighbour is about 20. The observed source is ``x_obs = A(w(x_true))``, where ``x_true`` is in the reference's
    frame, ``w`` is a sum of Gaussian bumps added to the position, and ``A`` is the similarity in
    ``uns["toy"]["affine"]``; an alignment moves the source back from ``x_obs`` to ``x_true``.

    With the same integer ``rng`` the tissue does not depend on the other arguments, the warp, pose and crop line not on
    the numbers of cells and genes, and the cells and their counts not on ``warp``, ``rotation``, ``crop`` and
    ``mirror``.

    Parameters
    ----------
    n_cells
        Cells in each section, before cropping; at least 10.
    n_genes
        Genes, at least 10.
    depth
        Median number of counts of a cell.
    batch_sd
        Standard deviation of the logarithm of the factors that multiply each gene's rate in the source.
    warp
        Largest displacement by the warp over the tissue, as a fraction of the tissue's extent.
    rotation
        Angle in degrees, counter-clockwise, about the middle of the tissue. ``None``: any angle, at random.
    crop
        Fraction of the source's cells that is kept, those on one side of a line of random direction. ``None``: all.
    mirror
        Whether the source is reflected (x to -x, about the middle of the tissue) before it is turned.
    rng
        Seed or generator. The same integer gives the same bits on the same machine.

    Returns
    -------
    The reference and the source: counts (CSR, float32) in ``X``, ``obsm["spatial"]`` (float64), ``obs["layer"]`` and
    ``obs["cell_type"]`` (categorical), ``var["pattern"]`` (what a gene follows), and in ``uns["toy"]`` the parameters,
    with the drawn ones: rotation (degrees), shift ``(2,)``, affine ``(3, 3)``, extent, and the smallest Jacobian
    determinant of the warp. The source also has ``obsm["spatial_true"]``.

    Raises
    ------
    ValueError
        If an argument is out of range, or no fold-free warp of the given size is found.

    Examples
    --------
    >>> from inst_align.datasets import toy_pair
    >>> ref, src = toy_pair(n_cells=300, n_genes=50, rng=0)
    >>> ref.shape, src.obsm["spatial_true"].shape
    ((300, 50), (300, 2))
    """
    _check(n_cells=n_cells, n_genes=n_genes, depth=depth, batch_sd=batch_sd, warp=warp, rotation=rotation, crop=crop)
    n_cells, n_genes = int(n_cells), int(n_genes)
    seed = {"seed": int(rng)} if isinstance(rng, (int, np.integer)) else {}
    # Each part has its own stream, so that asking for one part differently leaves the others as they are.
    streams = [np.random.default_rng(child) for child in np.random.default_rng(rng).integers(2**63, size=5)]
    tissue = make_tissue(streams[0])
    pose = draw_pose(tissue, streams[1], rotation=rotation, mirror=mirror)
    side = unit_vector(streams[1].uniform(0.0, 2.0 * np.pi))
    fold_free = draw_warp(tissue, warp, streams[1])
    programme = draw_programme(n_genes, streams[2])
    factors = draw_batch_factors(n_genes, batch_sd, streams[2])
    ref = _draw_section("ref", n_cells, tissue, programme, depth=depth, factors=np.ones(n_genes), rng=streams[3])
    src = _draw_section("src", n_cells, tissue, programme, depth=depth, factors=factors, rng=streams[4])

    truth = src.obsm[SPATIAL]
    src.obsm[SPATIAL_TRUE] = truth
    src.obsm[SPATIAL] = fold_free(truth) @ pose.matrix[:2, :2].T + pose.matrix[:2, 2]
    if crop is not None:
        place = truth @ side
        src = src[np.sort(np.argsort(place, kind="stable")[: round(crop * n_cells)])].copy()
    toy = {
        "n_cells": n_cells,
        "n_genes": n_genes,
        "depth": float(depth),
        "batch_sd": float(batch_sd),
        "warp": float(warp),
        "min_det": fold_free.min_det(tissue),
        "rotation": pose.rotation,
        "mirror": bool(mirror),
        "shift": pose.shift,
        "affine": pose.matrix,
        "crop": 1.0 if crop is None else float(crop),
        "extent": EXTENT,
        **seed,
    }
    for section in (ref, src):
        section.uns["toy"] = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in toy.items()}
    return ref, src


def _check(
    *,
    n_cells: int,
    n_genes: int,
    depth: float,
    batch_sd: float,
    warp: float,
    rotation: float | None,
    crop: float | None,
) -> None:
    for name, value, least in (("n_cells", n_cells, _MIN_CELLS), ("n_genes", n_genes, _MIN_GENES)):
        if not isinstance(value, (int, np.integer)) or value < least:
            msg = f"`{name}` is {value!r}, but must be a whole number of at least {least}: give a larger one."
            raise ValueError(msg)
    if not (np.isfinite(depth) and depth > 0):
        msg = f"`depth` is {depth!r}, but must be a positive number of counts a cell, such as 200."
        raise ValueError(msg)
    for name, number in (("batch_sd", batch_sd), ("warp", warp)):
        if not (np.isfinite(number) and number >= 0):
            msg = f"`{name}` is {number!r}, but must be a finite number of at least 0: give 0 for none."
            raise ValueError(msg)
    if rotation is not None and not np.isfinite(rotation):
        msg = f"`rotation` is {rotation!r}, but must be a finite angle in degrees, or None for a random one."
        raise ValueError(msg)
    if crop is not None and not 0 < crop <= 1:
        msg = f"`crop` is {crop!r}, but must be a fraction in (0, 1], or None to keep all cells."
        raise ValueError(msg)
    if crop is not None and round(crop * n_cells) < _MIN_CELLS:
        msg = (
            f"`crop={crop!r}` leaves {round(crop * n_cells)} of the source's {n_cells} cells, but at least {_MIN_CELLS} "
            "are needed: give a larger `crop` or more cells."
        )
        raise ValueError(msg)


def _draw_section(
    name: str,
    n_cells: int,
    tissue: Tissue,
    programme: Programme,
    *,
    depth: float,
    factors: np.ndarray,
    rng: np.random.Generator,
) -> AnnData:
    """Sample cells from the tissue and measure them; coordinates are in the tissue's own frame."""
    import pandas as pd
    from anndata import AnnData

    xy = tissue.sample(n_cells, rng)
    counts, types = draw_counts(xy, tissue, programme, depth=depth, factors=factors, rng=rng)
    obs = {
        "layer": pd.Categorical.from_codes(tissue.layer(xy), pd.Index(LAYERS)),
        "cell_type": pd.Categorical.from_codes(types, pd.Index(CELL_TYPES)),
    }
    width = max(3, len(str(len(factors) - 1)))
    genes = [f"gene_{i:0{width}d}" for i in range(len(factors))]
    return AnnData(
        X=counts,
        obs=pd.DataFrame(obs, index=[f"{name}_{i}" for i in range(n_cells)]),
        var=pd.DataFrame({"pattern": pd.Categorical.from_codes(programme.pattern, pd.Index(PATTERNS))}, index=genes),
        obsm={SPATIAL: xy},
    )
