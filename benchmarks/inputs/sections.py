"""The pair that all cases start from, a quick way to align it, and what a right result is."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

import inst_align as ia

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from inst_align.core.prepared import PairConfig

N_CELLS = 160
KEY = "spatial_aligned"


@functools.cache
def quick() -> PairConfig:
    """Constants with which a fit takes a tenth of a second: enough to tell same from different, not for accuracy."""
    from inst_align.core.prepared import PairConfig
    from inst_align.core.registration import Level, RegistrationConfig

    levels = (Level(sigma=0.5, control_spacing=1.5, steps=4), Level(sigma=0.27, control_spacing=1.1, steps=4))
    return PairConfig(registration=RegistrationConfig(levels=levels, n_pixels=40))


@functools.cache
def _made() -> tuple[AnnData, AnnData]:
    ref, src = ia.datasets.toy_pair(n_cells=N_CELLS, n_genes=60, warp=0.05, rotation=0, rng=1)
    for section in (ref, src):  # whole numbers below 2048 are the same in any type of number
        xy = section.obsm["spatial"]
        section.obsm["spatial"] = np.rint((xy - xy.min(axis=0)) * 0.8)
        del section.uns["toy"]
    del src.obsm["spatial_true"]
    return ref, src


def pair() -> tuple[AnnData, AnnData]:
    """Return a reference and a source whose true pose is nearly the identity; copies, to be spoilt."""
    ref, src = _made()
    return ref.copy(), src.copy()


def align(ref: AnnData, src: AnnData, **arguments: Any) -> AnnData:
    """Align in place from the identity, and return the source."""
    known = {"init": np.eye(3), "accept": "nonrigid", "config": quick(), "field": False}
    ia.tl.align_pair(ref, src, **(known | {"rng": 0, "device": "cpu", "progress": False} | arguments))
    return src


@functools.cache
def expected() -> np.ndarray:
    """Where the source's cells come to lie when nothing is odd; shape (n, 2), read-only."""
    result = align(*pair()).obsm[KEY]
    result.flags.writeable = False
    return result


def must(condition: object, what: str) -> None:
    """Raise AssertionError with words that say what was wrong."""
    if not condition:
        raise AssertionError(what)


def same_bits(src: AnnData, rows: slice | np.ndarray = slice(None)) -> str:
    """Check that the source's cells lie where they do when nothing is odd, to the last bit."""
    found = np.asarray(src.obsm[KEY])[:, :2]
    must(found.dtype == np.float64, f"the result is {found.dtype}")
    must(np.array_equal(found, expected()[rows]), "the result differs")
    return "the same result, to the last bit"


def off_by(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest distance between two sets of points, in neighbour distances of the reference."""
    return float(np.linalg.norm(found - wanted, axis=1).max()) / ia.metrics.spacing(_made()[0].obsm["spatial"])


def unchanged(function: Any, ref: AnnData, src: AnnData, **arguments: Any) -> str:
    """Call a function that has to refuse its input, and check that it then leaves no trace."""
    try:
        function(ref, src, **arguments)
    except (KeyError, TypeError, ValueError):
        for section in (ref, src):
            uns = getattr(section, "uns", {})
            must("inst_align" not in uns, "a record was written before the error")
        raise
    return "no error"


@contextmanager
def coarse_search() -> Iterator[None]:
    """Search the pose on a raster with a quarter of the pixels: as right on these pairs, and much faster."""
    from inst_align.core import pose

    with mock.patch.object(pose, "N_PIXELS", 33):
        yield
