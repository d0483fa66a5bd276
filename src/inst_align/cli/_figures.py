"""Pictures for files: nothing is shown on a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from inst_align._keys import SPATIAL_ALIGNED, X_INST
from inst_align.pl import _axes

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
CLIPPED = 1.0
"""Percentage of the cells at each end of a component that get the darkest and the brightest colour."""
BRIGHTEST = 0.9
"""No cell is to vanish on white paper."""


def draw_without_screen() -> None:
    """Make matplotlib draw into files, also where a window could be opened."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")


def save(ax: Axes, path: Path) -> None:
    """Write the figure of an Axes, by the suffix of the path, and close it."""
    import matplotlib.pyplot as plt

    figure = cast("Figure", ax.figure)
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    plt.close(figure)


def embedding(ref: AnnData, src: AnnData, *, color: str) -> Axes:
    """Draw both aligned sections in colours that stand for their embedding, next to a column of obs.

    Red, green and blue are the first three principal components of the embedding, over the cells of both sections.
    """
    from inst_align.pl import alignment

    clouds = [ref.obsm[SPATIAL_ALIGNED], src.obsm[SPATIAL_ALIGNED]]
    left, right = _axes.new_panels([_axes.aspect(*clouds)] * 2)
    xy = np.vstack(clouds)
    order = np.random.default_rng(0).permutation(len(xy))  # neither section is to hide the other
    rgb = principal_colors(np.vstack([ref.obsm[X_INST], src.obsm[X_INST]]))
    left.scatter(
        xy[order, 0], xy[order, 1], s=_axes.marker_size(left, clouds, coverage=0.9), c=rgb[order], linewidths=0
    )
    _axes.as_map(left, invert_y=False, title=f'obsm["{X_INST}"], first three components as red, green, blue')
    return alignment(ref, src, color=color, ax=right, title=f'obs["{color}"], for comparison')


def principal_colors(z: np.ndarray) -> np.ndarray:
    """Return one RGB colour per row, shape ``(n, 3)``, from the first three principal components of the columns.

    With fewer than three columns, blue, or blue and green, are the same for all.
    """
    from sklearn.decomposition import PCA

    z = np.pad(z, ((0, 0), (0, max(0, 3 - z.shape[1]))))
    scores = PCA(3, random_state=0).fit_transform(z)
    low, high = np.percentile(scores, [CLIPPED, 100 - CLIPPED], axis=0)
    return BRIGHTEST * np.clip((scores - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
