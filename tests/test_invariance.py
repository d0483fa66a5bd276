"""On sections made at random, whatever ought not to matter does not: order, place, unit, angle, container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import inst_align as ia
from inst_align.core import pose

if TYPE_CHECKING:
    from anndata import AnnData

    from inst_align.core.prepared import PairConfig

SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CONTAINERS = {
    "CSC": sp.csr_matrix.tocsc,
    "dense": sp.csr_matrix.toarray,
    "float64": lambda matrix: matrix.astype(np.float64),
    "int32": lambda matrix: matrix.astype(np.int32),
    "sparse array": sp.csr_array,
}


def sections(seed: int) -> tuple[AnnData, AnnData]:
    return ia.datasets.toy_pair(n_cells=150, n_genes=40, rng=seed)


def aligned(ref: AnnData, src: AnnData, config: PairConfig) -> np.ndarray:
    """Where the source's cells come to lie, by a whole alignment: search, trial, map."""
    with mock.patch.object(pose, "N_PIXELS", 33):
        ia.tl.align_pair(ref, src, config=config, field=False, accept="nonrigid", rng=0, device="cpu", progress=False)
    return np.asarray(src.obsm["spatial_aligned"])


def placed(adata: AnnData, xy: np.ndarray) -> AnnData:
    adata.obsm["spatial"] = xy
    return adata


def off(found: np.ndarray, wanted: np.ndarray, ref: AnnData) -> np.ndarray:
    """Distances in neighbour distances of the reference."""
    return np.linalg.norm(found - wanted, axis=1) / ia.metrics.spacing(ref.obsm["spatial"])


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of tiny sections: poor, ambiguous, few genes


@FEW
@given(seed=SEEDS)
def test_the_order_of_cells_and_genes(tiny: PairConfig, seed: int) -> None:
    ref, src = sections(seed)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(src.n_obs)
    shuffled = ref[rng.permutation(ref.n_obs), rng.permutation(ref.n_vars)].copy(), src[rows].copy()
    wanted = aligned(ref.copy(), src.copy(), tiny)
    np.testing.assert_array_equal(aligned(*shuffled, tiny), wanted[rows])


@FEW
@given(seed=SEEDS, unit=st.floats(-6, 6), x=st.floats(-1e4, 1e4), y=st.floats(-1e4, 1e4))
def test_place_and_unit(tiny: PairConfig, seed: int, unit: float, x: float, y: float) -> None:
    ref, src = sections(seed)
    wanted = aligned(ref.copy(), src.copy(), tiny)
    factor, shift = 10.0**unit, np.array([x, y])
    moved = placed(ref.copy(), (ref.obsm["spatial"] + shift) * factor), placed(src.copy(), src.obsm["spatial"] * factor)
    assert off(aligned(*moved, tiny) / factor - shift, wanted, ref).max() < 1e-3


@FEW
@given(seed=SEEDS, angles=st.tuples(st.floats(0, 6.2), st.floats(0, 6.2)))
def test_the_angle_of_either_section(tiny: PairConfig, seed: int, angles: tuple[float, float]) -> None:
    ref, src = sections(seed)
    wanted = aligned(ref.copy(), src.copy(), tiny)
    turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    turned = [placed(each.copy(), each.obsm["spatial"] @ turn.T) for each, turn in zip((ref, src), turns, strict=True)]
    found = aligned(*turned, tiny) @ turns[0]
    assert np.median(off(found, wanted, ref)) < 0.05


@FEW
@given(seed=SEEDS, form=st.sampled_from(sorted(CONTAINERS)))
def test_the_container(tiny: PairConfig, seed: int, form: str) -> None:
    ref, src = sections(seed)
    wanted = aligned(ref.copy(), src.copy(), tiny)
    changed: list[Any] = [ref.copy(), src.copy()]
    for each in changed:
        each.X = CONTAINERS[form](each.X)
    np.testing.assert_array_equal(aligned(*changed, tiny), wanted)


@FEW
@given(seed=SEEDS)
def test_a_section_over_itself_stays_where_it_is(tiny: PairConfig, seed: int) -> None:
    ref, _ = sections(seed)
    found = ref.copy()
    with mock.patch.object(pose, "N_PIXELS", 33):
        ia.tl.align_pair(ref, found, config=tiny, field=False, rng=0, device="cpu", progress=False)
    assert off(found.obsm["spatial_aligned"], ref.obsm["spatial"], ref).max() < 0.05
