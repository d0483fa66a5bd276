"""Features answer to the section's biology alone: not to containers, units, gene-wise factors or dead genes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.spatial import cKDTree

from inst_align.core.features import NeighbourMean, SharedFeatures
from inst_align.core.section import Section

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tissue(n: int, seed: int, g: int = 40) -> Section:
    """Expression that varies smoothly with the place."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 1000, (n, 2))
    wave = np.random.default_rng(5)
    rate = np.exp(np.sin(xy @ wave.normal(size=(2, g)) / 150 + wave.uniform(0, 6, g)) + 1)
    return Section(xy=xy, expression=np.log1p(rng.poisson(rate)).astype(np.float32))


def gram(features: tuple[torch.Tensor, torch.Tensor]) -> np.ndarray:
    """All inner products between cells: what no choice of axes within the same space can change."""
    both = torch.cat(features).double()
    return (both @ both.T).numpy()


def features(ref: Section, src: Section, **changes: Any) -> tuple[torch.Tensor, torch.Tensor]:
    arguments: dict[str, Any] = {"n_components": 10, "n_neighbors": 5, "device": CPU} | changes
    chosen = arguments.pop("generator", None) or generator()
    genes = arguments.pop("genes", None)
    return SharedFeatures.of_pair(ref, src, **arguments).of(chosen, genes)


def neighbour_mean(xy: np.ndarray, values: torch.Tensor, n_neighbors: int) -> torch.Tensor:
    return NeighbourMean(xy, n_neighbors, CPU)(values)


def test_dense_and_sparse_expression_give_the_same_features() -> None:
    ref, src = tissue(200, 0), tissue(150, 1)
    dense = features(ref, src)
    as_csr = [Section(xy=s.xy, expression=sparse.csr_matrix(s.expression)) for s in (ref, src)]
    for one, other in zip(dense, features(*as_csr), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_genes_that_are_constant_change_nothing() -> None:
    ref, src = tissue(200, 0), tissue(150, 1)
    dead = [
        Section(xy=s.xy, expression=np.column_stack([s.expression, np.full(len(s), 3.3), np.zeros(len(s))]))
        for s in (ref, src)
    ]
    np.testing.assert_allclose(gram(features(*dead)), gram(features(ref, src)), atol=0.02)
    assert all(torch.isfinite(f).all() for f in features(*dead))


def test_a_gene_wise_factor_and_offset_in_one_section_cancel() -> None:
    ref, src = tissue(200, 0), tissue(150, 1)
    rng = np.random.default_rng(2)
    batch = src.expression * rng.lognormal(0, 1, 40) + rng.uniform(0, 2, 40)
    other = Section(xy=src.xy, expression=batch.astype(np.float32))
    for one, two in zip(features(ref, src), features(ref, other), strict=True):
        torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-3)


def test_both_sections_share_their_channels() -> None:
    """Two samples of one tissue: a cell's features are nearer to those at its place in the other section than elsewhere."""
    ref, src = tissue(900, 0), tissue(700, 1)
    of_ref, of_src = (f.numpy() for f in features(ref, src))
    _, nearest = cKDTree(ref.xy).query(src.xy)
    here = np.linalg.norm(of_src - of_ref[nearest], axis=1)
    elsewhere = np.linalg.norm(of_src - of_ref[np.random.default_rng(0).permutation(len(ref))[: len(src)]], axis=1)
    assert np.median(here) < 0.5 * np.median(elsewhere)


def test_channels_are_sorted_by_variance_and_add_up_to_one() -> None:
    found = features(tissue(200, 0), tissue(150, 1), n_neighbors=1)
    variance = [(f**2).mean(dim=0) for f in found]
    assert float(sum(v.sum() for v in variance) / 2) == pytest.approx(1, rel=1e-4)
    assert bool((torch.diff(variance[0] + variance[1]) < 0).all())


def test_the_same_seed_gives_the_same_bits() -> None:
    ref, src = tissue(100, 0), tissue(90, 1)
    one, two = features(ref, src), features(ref, src)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
def test_features_of_some_genes_are_those_of_sections_without_the_others(container: Any) -> None:
    some = np.array([0, 3, 4, 5, 9, 12, 20, 21, 30, 39])
    pair = [tissue(n, seed) for n, seed in ((100, 0), (90, 1))]
    whole = [replace(section, expression=container(section.expression)) for section in pair]
    alone = [replace(section, expression=container(section.expression[:, some])) for section in pair]
    found = features(*whole, n_components=4, genes=some)
    np.testing.assert_allclose(gram(found), gram(features(*alone, n_components=4)), atol=2e-3)


def test_columns_of_a_representation_can_be_chosen() -> None:
    rng = np.random.default_rng(0)
    pair = [
        Section(xy=rng.normal(size=(30, 2)), expression=rng.normal(size=(30, 6)).astype("f4"), is_rep=True)
        for _ in range(2)
    ]
    alone = [replace(section, expression=section.expression[:, [1, 4]]) for section in pair]
    for one, other in zip(features(*pair, genes=np.array([1, 4])), features(*alone), strict=True):
        torch.testing.assert_close(one, other)


def test_the_mean_over_neighbours_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    xy, values = rng.normal(size=(50, 2)), rng.normal(size=(50, 3)).astype("f4")
    found = neighbour_mean(xy, torch.as_tensor(values), 4).numpy()
    for i in range(50):
        nearest = np.argsort(((xy - xy[i]) ** 2).sum(axis=1))[:4]
        np.testing.assert_allclose(found[i], values[nearest].mean(axis=0), atol=1e-6)


def test_the_mean_over_one_neighbour_is_the_cell_and_over_too_many_is_all_of_them() -> None:
    rng = np.random.default_rng(0)
    xy, values = rng.normal(size=(20, 2)), torch.as_tensor(rng.normal(size=(20, 3)).astype("f4"))
    assert torch.equal(neighbour_mean(xy, values, 1), values)
    torch.testing.assert_close(neighbour_mean(xy, values, 500), values.mean(dim=0).expand(20, 3))


@pytest.mark.parametrize("hexagonal", [True, False])
def test_the_mean_over_neighbours_on_a_lattice_does_not_depend_on_place_units_or_angle(hexagonal: bool) -> None:
    """Spots have four or six equally near neighbours: rounding must not be what chooses among them."""
    column, row = np.meshgrid(np.arange(20.0), np.arange(20.0))
    xy = np.column_stack([column.ravel(), row.ravel()])
    if hexagonal:
        xy = xy * [1, np.sqrt(3) / 2] + np.column_stack([0.5 * (row.ravel() % 2), np.zeros(400)])
    values = torch.randn(400, 2, generator=generator())
    wanted = neighbour_mean(xy, values, 5)
    c, s = np.cos(0.7), np.sin(0.7)
    for other in (xy + [1234.567, -98.76], xy * 0.3467, xy @ np.array([[c, -s], [s, c]])):
        torch.testing.assert_close(neighbour_mean(other, values, 5), wanted, atol=1e-5, rtol=1e-5)


def test_a_representation_is_centred_and_scaled_as_a_whole_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    raw = [rng.normal(size=(n, 3)).astype("f4") * [5, 1, 0.1] + 7 for n in (40, 30)]
    ref, src = (Section(xy=rng.normal(size=(len(x), 2)), expression=x.astype("f4"), is_rep=True) for x in raw)
    found = features(ref, src, n_neighbors=1)
    centred = [x - x.mean(axis=0) for x in raw]
    scale = np.sqrt(np.mean([(x**2).sum(axis=1).mean() for x in centred]))
    for got, wanted in zip(found, centred, strict=True):
        np.testing.assert_allclose(got.numpy(), wanted / scale, atol=1e-5)


def test_a_representation_is_averaged_over_neighbours_too() -> None:
    rng = np.random.default_rng(0)
    ref, src = (
        Section(xy=rng.normal(size=(n, 2)), expression=rng.normal(size=(n, 3)).astype("f4"), is_rep=True)
        for n in (40, 30)
    )
    single, smooth = features(ref, src, n_neighbors=1), features(ref, src, n_neighbors=4)
    torch.testing.assert_close(smooth[1], neighbour_mean(src.xy, single[1], 4))


def test_a_representation_without_any_variance_gives_finite_features() -> None:
    rng = np.random.default_rng(0)
    flat = [Section(xy=rng.normal(size=(15, 2)), expression=np.ones((15, 3), "f4"), is_rep=True) for _ in range(2)]
    assert all(torch.isfinite(f).all() for f in features(*flat))
