"""What the tests of the benchmarks share: small sections, and pairs made of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest

import inst_align as ia

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are no part of the package

from benchmarks.accuracy.generator import make_pair
from benchmarks.accuracy.pairs import Pair

if TYPE_CHECKING:
    from collections.abc import Callable

    Sections = tuple[ad.AnnData, ad.AnnData]


@pytest.fixture(scope="session")
def section() -> ad.AnnData:
    """Cells at random places."""
    return ia.datasets.toy_pair(n_cells=800, n_genes=150, rng=0)[0]


@pytest.fixture(scope="session")
def spots() -> ad.AnnData:
    """Spots on a square lattice, with whole counts."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(25.0), np.arange(20.0))
    adata = ad.AnnData(rng.poisson(3, (500, 30)).astype(np.float32))
    adata.obsm["spatial"] = 100 * np.column_stack([x.ravel(), y.ravel()])
    return adata


@pytest.fixture(scope="session")
def made() -> Callable[..., Sections]:
    """Return a function that makes a pair of a section that has layers."""

    def make(section: ad.AnnData, level: str, *, inverted: bool = False, seed: int = 0) -> Sections:
        return make_pair(section, level, inverted=inverted, label_key="layer", rng=np.random.default_rng(seed))

    return make


@pytest.fixture(scope="session")
def as_pair() -> Callable[..., Pair]:
    """Return a function that wraps two made sections with what is known of them."""

    def wrap(ref: ad.AnnData, src: ad.AnnData, **known: object) -> Pair:
        return Pair(
            name="toy",
            level="medium",
            seed=0,
            ref=ref,
            src=src,
            labels_ref=ref.obs["label"].to_numpy(object),
            labels_src=src.obs["label"].to_numpy(object),
            xy_true=src.obsm["spatial_true"],
            **{"kind": "made", **known},
        )

    return wrap


@pytest.fixture
def data(tmp_path: Path, section: ad.AnnData, made: Callable[..., Sections]) -> Path:
    """A folder of data as the benchmark expects it."""
    folder = tmp_path / "data"
    for level in ("rigid", "mirror"):
        place = folder / "truth" / f"toy_{level}"
        place.mkdir(parents=True)
        ref, src = made(section, level)
        src.uns["logged"] = False
        ref.write_h5ad(place / "ref.h5ad")
        src.write_h5ad(place / "src.h5ad")
    (folder / "seqfish_embryo").mkdir()
    labelled = section.copy()
    labelled.obs["label"] = labelled.obs["layer"]
    for name in ("embryo1_z2", "embryo1_z5"):
        labelled.write_h5ad(folder / "seqfish_embryo" / f"{name}.h5ad")
    return folder


def extent(adata: ad.AnnData) -> float:
    """Longer side of a section's bounding box."""
    return float(np.ptp(adata.obsm["spatial"], axis=0).max())
