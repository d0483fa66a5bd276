"""Genes that the fit has not seen tell a bent section from one that is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import sparse

from inst_align.core.acceptance import MIN_GENES, Halves, stays
from inst_align.core.features import SharedFeatures
from inst_align.core.heldout import HeldOut
from inst_align.core.registration import Level, RegistrationConfig
from inst_align.core.section import Section
from inst_align.core.transforms import Affine

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = RegistrationConfig(
    levels=tuple(Level(sigma=s, control_spacing=c, steps=24) for s, c in ((0.5, 1.5), (0.27, 1.1), (0.16, 0.9))),
    n_pixels=48,
)
WAVES = np.random.default_rng(0).normal(size=(2, 40)) * 1.5


def tissue(n: int, seed: int) -> np.ndarray:
    """Cells of an ellipse."""
    xy = np.random.default_rng(seed).uniform(-2.2, 2.2, (4 * n, 2))
    return xy[(xy[:, 0] / 2.2) ** 2 + (xy[:, 1] / 1.5) ** 2 < 1][:n]


def counts(xy: np.ndarray, seed: int) -> sparse.csr_matrix:
    """Log counts of forty genes."""
    rate = 2 * np.exp(np.sin(xy @ WAVES + np.arange(40)))
    return sparse.csr_matrix(np.log1p(np.random.default_rng(seed).poisson(rate)).astype(np.float32))


def bent(xy: np.ndarray) -> np.ndarray:
    return xy + 0.35 * np.exp(-0.5 * ((xy - [0.3, 0.2]) ** 2).sum(axis=1, keepdims=True) / 0.6**2) * [0.8, -0.6]


def halves(ref: np.ndarray, src: np.ndarray, seed: int, *, genes: int = 40) -> Halves | None:
    """Cells of two samples, the source's expression being that of its true places ``src``."""
    parts = [
        Section(xy=xy, expression=counts(xy, 10 * seed + i)[:, :genes], name=name)
        for i, (xy, name) in enumerate(((ref, "reference"), (src, "source")))
    ]
    shared = SharedFeatures.of_pair(*parts, n_components=15, n_neighbors=5, device=torch.device("cpu"))
    return Halves.of(shared, torch.Generator().manual_seed(seed))


def judged(displace: Callable[[np.ndarray], np.ndarray], seed: int) -> HeldOut:
    ref, truth = tissue(600, 2 * seed), tissue(500, 2 * seed + 1)
    found = halves(ref, truth, seed)
    assert found is not None
    return found.bending((ref, displace(truth)), CONFIG)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bending_pays_where_the_source_is_bent(seed: int) -> None:
    found = judged(bent, seed)
    assert found.pays
    assert found.elaborate > found.simple


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bending_does_not_pay_where_the_source_is_only_shifted_a_little(seed: int) -> None:
    assert not judged(lambda xy: xy + [0.04, -0.03], seed).pays


@pytest.mark.parametrize(("shift", "stay"), [(0.0, True), (0.01, True), (1.0, False), (50.0, False)])
def test_what_lies_where_it_belongs_stays(shift: float, *, stay: bool) -> None:
    ref, truth = tissue(600, 1), tissue(500, 2)
    found = halves(ref, truth, 1)
    assert found is not None
    assert stays(found.moving((ref, truth + shift), Affine.from_rigid(0.0, (-shift, -shift)))) is stay


def test_a_few_genes_are_not_split() -> None:
    assert halves(tissue(100, 1), tissue(100, 2), 1, genes=MIN_GENES - 1) is None


def answer(**changes: float) -> HeldOut:
    values = {"simple": 0.5, "elaborate": 0.6, "gain": 0.1, "standard_error": 0.02, "left": 0.5, "covered": 1.0}
    return HeldOut(**(values | changes))


def test_the_mean_of_two_trials_keeps_the_error_of_one() -> None:
    mean = answer(standard_error=0.04).mean(answer(simple=0.3, gain=0.0))
    assert (mean.simple, mean.elaborate, mean.gain, mean.standard_error) == pytest.approx((0.4, 0.6, 0.05, 0.03))


@pytest.mark.parametrize(
    ("changes", "pays"),
    [({}, True), ({"standard_error": 0.05}, False), ({"left": 10.0}, False), ({"gain": float("nan")}, False)],
)
def test_a_gain_pays_if_it_is_certain_and_worthwhile(changes: dict[str, float], *, pays: bool) -> None:
    assert answer(**changes).pays is pays
