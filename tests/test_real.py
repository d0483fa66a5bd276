"""Real sections, where they are there: the pose is right, the labels agree though none was used, and nothing folds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData

import inst_align as ia

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Pair = tuple[AnnData, AnnData]


def without_labels(adata: AnnData) -> AnnData:
    """Return what an alignment may see: expression and coordinates, nothing else."""
    bare = AnnData(adata.X.copy(), var=adata.var[[]].copy())
    bare.obsm["spatial"] = adata.obsm["spatial"].copy()
    return bare


@pytest.fixture(scope="module")
def cortex(real_data: Path) -> tuple[Pair, Pair]:
    """Two neighbouring sections of the human cortex, the source turned by 50 degrees and shifted; bare, and with labels."""
    ref, src = (ad.read_h5ad(real_data / "dlpfc" / f"{name}.h5ad") for name in ("151673", "151674"))
    xy = src.obsm["spatial"]
    angle = np.deg2rad(50)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    src.obsm["spatial"] = xy @ turn.T + np.ptp(xy, axis=0) / 2
    return (without_labels(ref), without_labels(src)), (ref, src)


def accuracies(bare: Pair, labelled: Pair, key: str) -> tuple[float, float]:
    """Nearest-neighbour accuracy from source to reference, and that of exact optimal transport."""
    arguments = [section.obsm[key] for section in bare] + [section.obs["label"] for section in labelled]
    return ia.metrics.nn_accuracy(*arguments, direction="src_to_ref"), ia.metrics.ot_accuracy(*arguments)


@pytest.mark.slow
def test_cortex_sections_agree_as_well_as_their_labels_can(cortex: tuple[Pair, Pair]) -> None:
    bare, labelled = cortex
    ia.pp.rigid_align(*bare, method="icp", key_added="spatial_icp", rng=0, device="cpu")
    ia.tl.align_pair(*bare, rng=0, device="cpu", progress=False)
    _, ot_icp = accuracies(bare, labelled, "spatial_icp")
    nn, ot = accuracies(bare, labelled, "spatial_aligned")
    assert nn >= 0.88
    assert ot >= ot_icp - 0.01  # optimal transport counts each cell once, and hardly sees what bending gains
    transform = ia.get.transform(bare[1])
    assert ia.metrics.fold_fraction(transform, bare[1].obsm["spatial"]) == 0
    assert ia.get.report(bare[1])["fold_fraction"] == 0


@pytest.mark.filterwarnings("ignore:The non-rigid map agrees no better")
def test_units_do_not_matter_on_real_spots(cortex: tuple[Pair, Pair], tiny: Any) -> None:
    """Visium spots lie on a lattice: what is equally near must not be chosen among by rounding."""
    ref, src = (section[:, :400].copy() for section in common_genes(cortex[0]))
    truth = np.eye(3)
    angle = np.deg2rad(-50)
    truth[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    truth[:2, 2] = ref.obsm["spatial"].mean(axis=0) - truth[:2, :2] @ src.obsm["spatial"].mean(axis=0)
    results = []
    for unit in (1.0, 0.3467):
        for section, original in zip((ref, src), cortex[0], strict=True):
            section.obsm["spatial"] = original.obsm["spatial"] * unit
        scaled = truth.copy()
        scaled[:2, 2] *= unit
        ia.tl.align_pair(ref, src, init=scaled, config=tiny, rng=0, device="cpu", progress=False)
        results.append(src.obsm["spatial_aligned"] / unit)
    assert np.abs(results[0] - results[1]).max() < 1e-5 * np.ptp(results[0], axis=0).max()


def common_genes(pair: Pair) -> Pair:
    shared = sorted(set(pair[0].var_names) & set(pair[1].var_names))
    return pair[0][:, shared], pair[1][:, shared]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("starmap_partial", {}), ("embryo1_mirror", {"allow_reflection": True}), ("drosoi_medium", {})],
)
def test_the_pose_is_as_good_as_a_rigid_map_can_be(
    real_data: Path, best_rigid_error: Callable[..., float], name: str, arguments: dict[str, Any]
) -> None:
    check_pose(real_data, best_rigid_error, name, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["starmap_rigid", "merfish_rigid", "dlpfc_rigid", "merfish_batch", "embryo1i_hard"])
def test_the_pose_is_right_on_harder_and_on_exactly_rigid_pairs(
    real_data: Path, best_rigid_error: Callable[..., float], name: str
) -> None:
    check_pose(real_data, best_rigid_error, name, {})


def check_pose(folder: Path, best_rigid_error: Callable[..., float], name: str, arguments: dict[str, Any]) -> None:
    ref, src = (ad.read_h5ad(folder / "truth" / name / f"{which}.h5ad") for which in ("ref", "src"))
    truth = src.obsm["spatial_true"]
    bare = without_labels(ref), without_labels(src)
    ia.pp.rigid_align(*bare, normalize=not bool(src.uns["logged"]), rng=0, device="cpu", **arguments)
    unit = ia.metrics.spacing(ref.obsm["spatial"])
    best = best_rigid_error(src.obsm["spatial"], truth) / unit
    found = np.median(ia.metrics.registration_error(bare[1].obsm["spatial_rigid"], truth, unit=unit))
    assert found <= max(1.5 * best, best + 0.5)


TURNED_OVER = {
    "flies that lie the other way round": (
        "stereoseq_drosophila/E14-16h_a_S01",
        "stereoseq_drosophila/E14-16h_a_S02",
        1,
    ),
    "cortices of two mice": ("starmap_mpfc/BZ5", "starmap_mpfc/BZ9", -1),
    "planes of one embryo": ("seqfish_embryo/embryo1_z2", "seqfish_embryo/embryo1_z5", -1),
}
"""Sections, and what the source's x is multiplied by to lie the wrong side up."""


@pytest.mark.parametrize("name", TURNED_OVER)
def test_two_sections_of_which_one_lies_the_wrong_side_up_are_told_of(real_data: Path, name: str) -> None:
    *paths, sign = TURNED_OVER[name]
    ref, src = (without_labels(ad.read_h5ad(real_data / f"{path}.h5ad")) for path in paths)
    src.obsm["spatial"] = src.obsm["spatial"] * [sign, 1]
    with pytest.warns(UserWarning, match="mirror image of the source fits .*`allow_reflection=True`"):
        ia.pp.rigid_align(ref, src, rng=0, device="cpu")
    assert ia.get.report(src, "spatial_rigid").verdict in ("ambiguous pose", "poor")


@pytest.mark.parametrize("name", ["cortices of two mice", "planes of one embryo"])
def test_two_sections_of_one_side_are_not_called_ambiguous(real_data: Path, name: str) -> None:
    ref, src = (without_labels(ad.read_h5ad(real_data / f"{path}.h5ad")) for path in TURNED_OVER[name][:2])
    ia.pp.rigid_align(ref, src, rng=0, device="cpu")
    assert ia.get.report(src, "spatial_rigid").verdict == "untested"
