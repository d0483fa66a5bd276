"""The cells as the page's script wants them."""

from __future__ import annotations

import math
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align.metrics import spacing
from inst_align.pl import _axes, _colors

if TYPE_CHECKING:
    from anndata import AnnData

    from inst_align.pl._colors import Coloring
    from inst_align.pl._report.sections import Sections


def scene(
    sections: Sections, adata_ref: AnnData, adata_src: AnnData, *, color: str | None, invert_y: bool, max_cells: int
) -> dict[str, Any]:
    """Return numbers, words and base64 text that describe the overlay.

    Coordinates are little-endian float32 pairs (x, y), relative to the middle of the reference, where single precision
    is finer than any screen.
    """
    ref, src = (_kept(xy, max_cells) for xy in (sections.ref, sections.moved))
    middle = np.nanmean(sections.ref, axis=0)
    rows = np.concatenate([ref, len(sections.ref) + src])
    colorings = [
        _coloring(_colors.color_cells(adata_ref, adata_src, name, palette=None, cmap="viridis"), rows)
        for name in dict.fromkeys([None, color])
    ]
    return {
        "ref": _packed(sections.ref[ref] - middle, "<f4"),
        "stored": _packed(sections.stored[src] - middle, "<f4"),
        "posed": _packed(sections.posed[src] - middle, "<f4"),
        "moved": _packed(sections.moved[src] - middle, "<f4"),
        "pose": {
            "angle": math.radians(sections.pose.angle),
            "scale": sections.pose.scale,
            "mirrored": sections.pose.is_reflection,
        },
        "nd": spacing(_axes.placed(sections.ref)),
        "between": [math.sqrt(_axes.area_per_cell(xy)) for xy in (sections.ref[ref], sections.moved[src])],
        "invertY": invert_y,
        "colorings": colorings,
    }


def _kept(xy: np.ndarray, limit: int) -> np.ndarray:
    """Return rows with a place, in random order lest one part of the tissue hide another, no more than that many."""
    rows = np.flatnonzero(np.isfinite(xy[:, 0]))
    return np.random.default_rng(0).permutation(rows)[:limit]


def _packed(values: np.ndarray, dtype: str) -> str:
    return b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode("ascii")


def _coloring(coloring: Coloring, rows: np.ndarray) -> dict[str, Any]:
    """Return a palette, each cell's place in it, and what the colours stand for."""
    channels = np.round(coloring.rgba[:, :3] * 255).astype(np.int64)
    palette, index = np.unique(channels @ [65536, 256, 1], return_inverse=True)
    return {
        "name": coloring.name,
        "palette": [f"#{code:06x}" for code in palette.tolist()],
        "cells": _packed(index.ravel()[rows], "<u2"),
        "legend": [[label, shade] for label, shade in _legend(coloring).items()],
    }


def _legend(coloring: Coloring) -> dict[str, str]:
    """Return a colour by label; of numbers, the ends and the middle of the scale."""
    from matplotlib.colors import to_hex

    legend = dict(coloring.legend)
    if coloring.scale is not None:
        low, high = coloring.scale.get_clim()
        legend = {f"{value:.3g}": to_hex(coloring.scale.to_rgba(value)) for value in np.linspace(low, high, 3)}
    return legend | ({"no value": _colors.MISSING_COLOR} if coloring.missing else {})
