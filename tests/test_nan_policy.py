"""Cells without coordinates are refused, or left out with NaN in their rows, from the pose to the plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest

import inst_align as ia

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from inst_align.core.prepared import PairConfig

DROP: Any = "drop-from-fit"
MISSING = {"reference": [7, 8], "source": [0, 3, 499]}
OURS = r"\d of 500 cells of the (reference|source) have no finite coordinates"


@pytest.fixture
def gappy(pair: tuple[AnnData, AnnData]) -> tuple[AnnData, AnnData]:
    """Return the toy pair with cells whose coordinates are unknown, or infinite, in both sections."""
    for section, rows in zip(pair, MISSING.values(), strict=True):
        section.obsm["spatial"][rows] = np.nan
    pair[1].obsm["spatial"][3] = np.inf, 1.0
    return pair


def known(section: AnnData, key: str) -> np.ndarray:
    return np.isfinite(section.obsm[key]).all(axis=1)


@pytest.mark.filterwarnings(f"ignore:.*{OURS}")
@pytest.mark.parametrize("field", [False, True])
def test_the_other_cells_lie_as_without_them(
    gappy: tuple[AnnData, AnnData], tiny: PairConfig, true_pose: np.ndarray, tmp_path: Path, field: bool
) -> None:
    arguments: dict[str, Any] = {"config": tiny, "init": true_pose, "rng": 0, "device": "cpu", "progress": False}
    fewer = [section[known(section, "spatial")].copy() for section in gappy]
    ia.tl.align_pair(*fewer, field=field, **arguments)
    ia.tl.align_pair(*gappy, field=field, nan_policy=DROP, **arguments)
    for section, rest, rows in zip(gappy, fewer, MISSING.values(), strict=True):
        assert np.flatnonzero(~known(section, "spatial_aligned")).tolist() == rows
        found = section.obsm["spatial_aligned"]
        assert np.isnan(found[rows]).all()
        np.testing.assert_array_equal(found[known(section, "spatial")], rest.obsm["spatial_aligned"])
    assert ia.get.params(gappy[1])["nan_policy"] == DROP
    assert ia.get.transform(gappy[1]) == ia.get.transform(fewer[1])
    ia.tl.canonical_embed(*gappy, progress=False)
    ia.tl.canonical_embed(*fewer, progress=False)
    for section, rest in zip(gappy, fewer, strict=True):
        assert np.isnan(section.obsm["X_inst"][~known(section, "spatial")]).all()
        np.testing.assert_array_equal(section.obsm["X_inst"][known(section, "spatial")], rest.obsm["X_inst"])
    gappy[1].write_h5ad(tmp_path / "src.h5ad")
    again = ad.read_h5ad(tmp_path / "src.h5ad")
    np.testing.assert_array_equal(again.obsm["spatial_aligned"], gappy[1].obsm["spatial_aligned"])


@pytest.mark.usefixtures("coarse_search")
@pytest.mark.filterwarnings(f"ignore:.*{OURS}")
def test_a_recorded_pose_is_found_again(gappy: tuple[AnnData, AnnData], tiny: PairConfig) -> None:
    ia.pp.rigid_align(*gappy, nan_policy=DROP, rng=0, device="cpu")
    ia.tl.align_pair(*gappy, nan_policy=DROP, config=tiny, field=False, rng=0, device="cpu", progress=False)
    assert ia.get.report(gappy[1])["pose_method"] == "recorded"


def test_each_section_is_warned_of_once(
    gappy: tuple[AnnData, AnnData], tiny: PairConfig, true_pose: np.ndarray
) -> None:
    with pytest.warns(UserWarning, match=OURS) as caught:
        ia.tl.align_pair(
            *gappy, nan_policy=DROP, config=tiny, init=true_pose, field=False, rng=0, device="cpu", progress=False
        )
    ours = [warning for warning in caught if "no finite coordinates" in str(warning.message)]
    assert len(ours) == 2
    assert {warning.filename for warning in ours} == {__file__}


def test_plots_leave_the_cells_out(pair: tuple[AnnData, AnnData]) -> None:
    from matplotlib.figure import Figure

    ref, src = pair
    for section in pair:
        section.obsm["spatial_aligned"] = section.obsm["spatial"].copy()
        section.obsm["spatial_aligned"][:4] = np.nan
    ax = ia.pl.alignment(ref, src, color="layer", ax=Figure().subplots())
    drawn = ax.collections[0].get_offsets()
    assert len(drawn) == 2 * 496
    assert np.isfinite(drawn).all()
    src.obsm["spatial_aligned"][:] = np.nan
    with pytest.raises(ValueError, match="`basis='spatial_aligned'`: no cell of the source has finite coordinates"):
        ia.pl.alignment(ref, src, ax=Figure().subplots())


def test_another_policy_is_refused(pair: tuple[AnnData, AnnData]) -> None:
    for function in (ia.pp.rigid_align, ia.tl.align_pair):
        with pytest.raises(ValueError, match='`nan_policy=\'drop\'` is not known; pass "error" or "drop-from-fit"'):
            function(*pair, nan_policy="drop")  # type: ignore[arg-type]
