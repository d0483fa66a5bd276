"""Products of standardised expression are those of the dense matrix, wherever it is; axes are those of both sections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import sparse

from inst_align.core.rows import Rows
from inst_align.core.standardized import Standardized, joint_axes

if TYPE_CHECKING:
    from collections.abc import Callable

    from inst_align.core.rows import Streamed

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counts(n: int = 60, g: int = 25, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.log1p(rng.poisson(rng.gamma(1.0, 2.0, g), (n, g))).astype(np.float32)


def z_scores(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    sd = x.std(axis=0)
    return np.where(sd > 0, (x - x.mean(axis=0)) / np.where(sd > 0, sd, 1), 0)


def low_rank(n: int, seed: int, loadings: np.ndarray) -> np.ndarray:
    """Cells along a few axes that both sections share, with little noise."""
    rng = np.random.default_rng(seed)
    strength = np.array([8.0, 6.0, 4.0, 3.0])
    return (rng.normal(size=(n, 4)) * strength @ loadings + 0.3 * rng.normal(size=(n, loadings.shape[1]))).astype("f4")


def loadings(g: int = 60) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(9).normal(size=(g, 4)))[0].T


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
def test_rows_in_another_order_need_no_copy(container: Any) -> None:
    x, order = counts(), np.random.default_rng(1).permutation(60)
    there, copied = Standardized(Rows(container(x), order), CPU), Standardized(container(x[order]), CPU)
    v, u = torch.randn(25, 4, generator=generator(1)), torch.randn(60, 4, generator=generator(2))
    torch.testing.assert_close(there.matmul(v), copied.matmul(v))
    torch.testing.assert_close(there.rmatmul(u), copied.rmatmul(u), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_products_are_those_of_the_dense_z_scores(container: Any) -> None:
    x = counts()
    x[:, 3], x[:, 4] = 0.0, 2.5
    z = z_scores(x)
    rng = np.random.default_rng(1)
    v, u = rng.normal(size=(25, 4)).astype("f4"), rng.normal(size=(60, 3)).astype("f4")
    standardized = Standardized(container(x), CPU)
    assert standardized.shape == (60, 25)
    np.testing.assert_allclose(standardized.matmul(torch.as_tensor(v)), z @ v, atol=2e-5)
    np.testing.assert_allclose(standardized.rmatmul(torch.as_tensor(u)), z.T @ u, atol=5e-5)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
def test_a_highly_expressed_gene_is_standardised_rightly_in_many_cells(container: Any) -> None:
    """Sums over cells need float64 throughout: in float32 they lose the little that such a gene varies by."""
    x = np.log1p(np.random.default_rng(0).poisson(100, (10_000, 1))).astype("f4")
    z = Standardized(container(x), CPU).matmul(torch.ones(1, 1)).double()
    assert z.mean().item() == pytest.approx(0, abs=1e-3)
    assert z.std().item() == pytest.approx(1, abs=1e-3)


def test_axes_span_the_leading_singular_vectors_of_both_sections_weighted_alike() -> None:
    a, b = low_rank(150, 0, loadings()), low_rank(70, 1, loadings())
    stacked = np.concatenate([z_scores(a) / np.sqrt(150), z_scores(b) / np.sqrt(70)])
    wanted = np.linalg.svd(stacked, full_matrices=False)[2][:4]
    axes = joint_axes([Standardized(x, CPU) for x in (a, b)], 4, generator()).numpy()
    assert axes.shape == (60, 4)
    np.testing.assert_allclose(axes.T @ axes, np.eye(4), atol=1e-5)
    cosines = np.linalg.svd(wanted @ axes, compute_uv=False)
    assert np.degrees(np.arccos(np.clip(cosines, -1, 1))).max() < 0.2
    variance = ((stacked @ axes) ** 2).sum(axis=0)
    assert (np.diff(variance) < 0).all()
    np.testing.assert_allclose(variance, np.linalg.svd(stacked, compute_uv=False)[:4] ** 2, rtol=1e-3)


def test_a_section_weighs_the_same_however_many_cells_it_has() -> None:
    a, b = low_rank(80, 0, loadings()), low_rank(60, 1, loadings())
    once = joint_axes([Standardized(x, CPU) for x in (a, b)], 4, generator()).numpy()
    often = joint_axes([Standardized(x, CPU) for x in (np.tile(a, (12, 1)), b)], 4, generator()).numpy()
    assert np.linalg.svd(once.T @ often, compute_uv=False).min() > 0.9999


@pytest.mark.parametrize(("n_genes", "closest"), [(100, 0.9999), (600, 0.95)])
def test_axes_do_not_depend_on_where_the_search_for_them_began(n_genes: int, closest: float) -> None:
    sections = [Standardized(counts(n, n_genes, seed), CPU) for seed, n in enumerate((400, 300))]
    one, other = (joint_axes(sections, 12, generator(seed)).numpy() for seed in (1, 2))
    assert np.median(np.linalg.svd(one.T @ other, compute_uv=False)) > closest


def test_of_few_genes_the_axes_are_exact() -> None:
    a, b = counts(90, 70, 0), counts(60, 70, 1)
    a[:, 5] = 1.0  # varies in one section only
    stacked = np.concatenate([z_scores(a) / np.sqrt(90), z_scores(b) / np.sqrt(60)])
    variance = np.linalg.svd(stacked, compute_uv=False)[:9] ** 2
    axes = joint_axes([Standardized(x, CPU) for x in (a, b)], 9, generator()).numpy()
    np.testing.assert_allclose(((stacked @ axes) ** 2).sum(axis=0), variance, rtol=1e-4)


def test_no_more_axes_than_genes_or_cells() -> None:
    few_genes = [Standardized(counts(30, 6, seed), CPU) for seed in (0, 1)]
    assert joint_axes(few_genes, 30, generator()).shape == (6, 6)
    few_cells = [Standardized(counts(5, 40, seed), CPU) for seed in (0, 1)]
    assert joint_axes(few_cells, 30, generator()).shape == (40, 9)


def test_the_axes_of_a_large_section_come_from_some_of_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    basis = loadings()
    sections = [Standardized(low_rank(n, seed, basis), CPU) for seed, n in enumerate((900, 700))]
    whole = joint_axes(sections, 4, generator()).numpy()
    monkeypatch.setattr("inst_align.core.standardized.TYPICAL_CELLS", 300)
    sections = [Standardized(low_rank(n, seed, basis), CPU) for seed, n in enumerate((900, 700))]
    some = joint_axes(sections, 4, generator()).numpy()
    assert not np.array_equal(whole, some)
    assert np.linalg.svd(whole.T @ some)[1].min() > 0.99
    assert [section.typical.shape for section in sections] == [(300, 60), (234, 60)]


def test_what_is_on_disk_is_standardised_by_its_typical_cells_and_then_read_once_for_any_number_of_products(
    streamed: Callable[..., Streamed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inst_align.core.standardized.TYPICAL_CELLS", 25)
    x, order = counts(), np.random.default_rng(1).permutation(60)
    read: list[int] = []
    there = Standardized(Rows(streamed(x, [0, 20, 50, 60], read), order), CPU)
    held = Standardized(Rows(sparse.csr_matrix(x), order), CPU)
    several = [torch.randn(25, k, generator=generator(k)) for k in (4, 1, 3)]
    read.clear()
    found = list(there.products(several))
    assert read == [0, 1, 2]
    for one, v in zip(found, several, strict=True):
        assert torch.equal(one, held.matmul(v))
    assert torch.equal(there.inverse_sd, held.inverse_sd)
    assert torch.equal(there.typical.matmul(several[0]), found[0][::3])
    u = torch.randn(60, 4, generator=generator(2))
    torch.testing.assert_close(there.rmatmul(u), held.rmatmul(u), atol=1e-4, rtol=1e-4)
    read.clear()
    assert torch.equal(joint_axes([there], 5, generator()), joint_axes([held], 5, generator()))
    assert read == []  # the typical cells are held


@pytest.mark.parametrize("exponent", [50, -50])
def test_extreme_values_on_disk_are_standardised_as_others_are(
    exponent: int, streamed: Callable[..., Streamed]
) -> None:
    x = counts()
    v = torch.randn(25, 4, generator=generator(1))
    wanted = Standardized(streamed(x, [0, 20, 60]), CPU).matmul(v)
    found = Standardized(streamed(np.ldexp(x, exponent), [0, 20, 60]), CPU).matmul(v)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_some_genes_of_a_section_are_those_of_a_smaller_one() -> None:
    x, some = counts(), np.array([1, 4, 7, 20])
    v = torch.randn(25, 3, generator=generator(1))
    found = Standardized(sparse.csr_matrix(x), CPU).of_genes(some)
    assert found.n_genes == 4
    torch.testing.assert_close(found.matmul(v), Standardized(x[:, some], CPU).matmul(v[some]), atol=1e-5, rtol=1e-5)
