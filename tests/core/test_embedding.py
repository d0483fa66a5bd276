"""The embedding of a pair: the same whatever the order, the frame and the roles, and better than what anyone can make."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from inst_align.core.embedding import embed_pair
from inst_align.core.section import Section

CPU = torch.device("cpu")
N = 400


def layered(*, seed: int = 0, gain: float = 1.0, n_genes: int = 60, keep: float = 1.0) -> tuple[Section, Section, list]:
    """Two sections in one frame, with five layers of which each has its own genes, and the layer of each cell."""
    rng = np.random.default_rng(seed)
    sections, labels = [], []
    loadings = rng.standard_normal((5, n_genes))
    for name, strength in (("reference", 1.0), ("source", gain)):
        xy = rng.uniform(0, 20, (N, 2))
        if name == "source":
            xy = xy[xy[:, 0] <= 20 * keep]
        layer = (xy[:, 1] + np.sin(xy[:, 0] / 3)).clip(0, 19.9) // 4
        values = 0.6 * strength * loadings[layer.astype(int)] + rng.standard_normal((len(xy), n_genes))
        sections.append(Section(xy=xy, expression=values.astype(np.float32), name=name))
        labels.append(layer)
    return sections[0], sections[1], labels


def separation(values: np.ndarray, labels: np.ndarray) -> float:
    """Share of the variance that lies between the labels."""
    means = np.stack([values[labels == label].mean(axis=0) for label in labels])
    return float(means.var(axis=0).sum() / values.var(axis=0).sum())


def principal_components(sections: tuple[Section, Section]) -> np.ndarray:
    values = np.concatenate([(s.expression - s.expression.mean(0)) / s.expression.std(0) for s in sections])
    left, sizes, _ = np.linalg.svd(values, full_matrices=False)
    return left[:, :4] * sizes[:4]


def test_layers_come_apart() -> None:
    ref, moved, labels = layered()
    found = embed_pair(ref, moved, device=CPU)
    both, layer = np.concatenate([found.ref, found.src]), np.concatenate(labels)
    assert both.dtype == np.float32
    assert separation(both, layer) > 0.8
    assert separation(both, layer) > separation(principal_components((ref, moved)), layer) + 0.1
    assert found.agreement.shape == found.shared.shape == (both.shape[1],)
    assert both.shape[1] in (3, 4)  # five layers lie in four dimensions
    assert found.shared.min() > 0.8


def test_cells_of_both_sections_meet() -> None:
    ref, moved, labels = layered(gain=0.5)
    found = embed_pair(ref, moved, device=CPU)
    for layer in range(5):
        centres = [z[where == layer].mean(axis=0) for z, where in zip((found.ref, found.src), labels, strict=True)]
        assert np.linalg.norm(centres[0] - centres[1]) < 0.3 * found.ref.std(axis=0).max()


def test_a_section_of_which_much_is_missing_does_not_shift_the_rest() -> None:
    ref, moved, _ = layered(keep=0.5)
    half = embed_pair(ref, moved, device=CPU)
    shift = half.ref[ref.xy[:, 0] < 10].mean(axis=0) - half.src.mean(axis=0)
    assert np.linalg.norm(shift) < 0.15 * half.ref.std(axis=0).max()


def test_the_order_of_cells_does_not_matter() -> None:
    ref, moved, _ = layered()
    orders = [np.random.default_rng(seed).permutation(len(section)) for seed, section in enumerate((ref, moved))]
    plain = embed_pair(ref, moved, device=CPU)
    mixed = embed_pair(ref.take(orders[0]), moved.take(orders[1]), device=CPU)
    for one, other, order in zip((plain.ref, plain.src), (mixed.ref, mixed.src), orders, strict=True):
        np.testing.assert_allclose(other, one[order], atol=1e-4 * one.std())


def test_the_unit_and_the_origin_do_not_matter() -> None:
    ref, moved, _ = layered()
    plain = embed_pair(ref, moved, device=CPU)
    other = embed_pair(*(replace(s, xy=250 * s.xy + [1e4, -3e4]) for s in (ref, moved)), device=CPU)
    np.testing.assert_allclose(other.ref, plain.ref, atol=2e-2 * plain.ref.std())


def test_twice_the_same_is_the_same() -> None:
    ref, moved, _ = layered()
    torch.manual_seed(5)
    one = embed_pair(ref, moved, device=CPU)
    torch.manual_seed(6)
    np.testing.assert_array_equal(one.src, embed_pair(ref, moved, device=CPU).src)


def test_places_without_a_cell_get_what_lies_around() -> None:
    ref, moved, labels = layered()
    rows = np.arange(0, N, 8)
    rest = np.setdiff1d(np.arange(N), rows)
    full = embed_pair(ref, moved, device=CPU)
    found = embed_pair(ref.take(rest), moved, at=(ref.xy[rows], moved.xy[:0]), device=CPU)
    assert found.ref.shape == (len(rows), found.src.shape[1])
    assert found.src.shape[0] == 0
    assert np.isfinite(found.ref).all()
    assert separation(found.ref, labels[0][rows]) > separation(full.ref, labels[0]) - 0.1


@pytest.mark.parametrize("is_rep", [False, True])
def test_few_cells_and_few_features_have_an_embedding(is_rep: bool) -> None:
    ref, moved, _ = layered(n_genes=3)
    few = (replace(s.take(np.arange(12)), is_rep=is_rep) for s in (ref, moved))
    found = embed_pair(*few, device=CPU)
    assert found.ref.shape == (12, found.src.shape[1])
    assert np.isfinite(found.ref).all()


def test_sections_that_do_not_meet_are_each_denoised() -> None:
    ref, moved, labels = layered()
    found = embed_pair(ref, replace(moved, xy=moved.xy + 500), device=CPU)
    assert separation(found.ref, labels[0]) > 0.7
    assert separation(found.src, labels[1]) > 0.7
