"""The canonical field of the default preset finds a known field, and is stored without loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from inst_align.core.canonical import unpack_field
from inst_align.core.fourier import FieldConfig, FourierField, fit_field

FRAME = np.array([[0.01, 0.0, -1.0], [0.0, 0.01, 2.0], [0.0, 0.0, 1.0]])
"""User coordinates to unit coordinates."""


def truth(xy: np.ndarray) -> np.ndarray:
    return np.column_stack([np.sin(2 * xy[:, 0]), np.cos(3 * xy[:, 1]) * xy[:, 0], 0.5 + 0 * xy[:, 0]])


def fit(n: int = 600, noise: float = 0.2, seed: int = 0, **options: Any) -> tuple[FourierField, np.ndarray]:
    """A field fitted to two noisy samples of the truth, and unit coordinates that it has not seen."""
    rng = np.random.default_rng(seed)
    xy = tuple(rng.uniform(-1.5, 1.5, (n, 2)) for _ in range(2))
    measured = [truth(part) + noise * rng.normal(size=(n, 3)) for part in xy]
    features = tuple(torch.tensor(part, dtype=torch.float32) for part in measured)
    mixing = np.array([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, -1.0, 0.0], [2.0, 2.0, 4.0, 0.0]])
    expression = tuple(sparse.csr_matrix(np.abs(truth(part) @ mixing)) for part in xy)
    arguments: dict[str, Any] = {"expression": expression, "config": FieldConfig()} | options
    generator = torch.Generator().manual_seed(seed)
    field = fit_field(xy, features, **arguments, unit_matrix=FRAME, generator=generator)
    assert field is not None
    return field, rng.uniform(-1.4, 1.4, (200, 2))


def in_user_units(xy: np.ndarray) -> np.ndarray:
    return (xy - FRAME[:2, 2]) / 0.01


def test_the_field_is_that_of_the_tissue_and_less_noisy_than_a_cell() -> None:
    field, xy = fit()
    error = field.predict(in_user_units(xy)) - truth(xy)
    assert np.sqrt(np.square(error).mean()) < 0.5 * 0.2


def test_more_cells_make_a_better_field() -> None:
    errors = []
    for n in (150, 2400):
        field, xy = fit(n)
        errors.append(np.square(field.predict(in_user_units(xy)) - truth(xy)).mean())
    assert errors[1] < 0.5 * errors[0]


def test_genes_are_read_from_the_features() -> None:
    field, xy = fit(noise=0.05)
    genes = field.predict(in_user_units(xy), "genes")
    values = truth(xy)
    expected = np.abs(values[:, 0] + 1)  # the first gene: linear in the features, as all of them are above zero here
    assert np.corrcoef(genes[:, 0], expected)[0, 1] > 0.98
    assert np.abs(genes[:, 3]).max() < 1e-6


def test_both_sections_shape_the_field() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(-1.5, 1.5, (500, 2))
    high, low = torch.ones(500, 1), torch.zeros(500, 1)
    generator = torch.Generator().manual_seed(0)
    field = fit_field((xy, xy), (high, low), None, FieldConfig(), unit_matrix=np.eye(3), generator=generator)
    assert field.predict(xy) == pytest.approx(0.5, abs=1e-4)


def test_a_packed_field_is_the_same_field() -> None:
    field, xy = fit()
    again = unpack_field(field.pack())
    for what in ("features", "genes"):
        np.testing.assert_array_equal(again.predict(in_user_units(xy), what), field.predict(in_user_units(xy), what))
    assert again.embedding == "features"


def test_a_field_is_evaluated_in_parts_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    field, xy = fit()
    whole = field.predict(xy)
    monkeypatch.setattr("inst_align.core.fourier.CHUNK", 37)
    np.testing.assert_allclose(field.predict(xy), whole, atol=1e-5)


def test_only_some_cells_of_a_large_section_are_looked_at() -> None:
    few, xy = fit(2000, config=FieldConfig(max_cells=500))
    assert np.sqrt(np.square(few.predict(in_user_units(xy)) - truth(xy)).mean()) < 0.1


def test_what_a_field_does_not_have_is_refused() -> None:
    field, xy = fit(expression=None)
    with pytest.raises(ValueError, match=r"`what='genes'` is not in this field; it has \['features'\]"):
        field.predict(xy, "genes")
    with pytest.raises(ValueError, match="`what='latent'`"):
        field.predict(xy, "latent")
    assert "to_genes" not in field.pack()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_frequencies": 0}, "`n_frequencies=0`"),
        ({"ridge": float("nan")}, "`ridge=nan`"),
        ({"max_cells": -1}, "`max_cells=-1`"),
        ({"bandwidths": ()}, r"`bandwidths=\(\)`"),
        ({"bandwidths": (1.0, 0.0)}, "`bandwidths="),
    ],
)
def test_constants_of_the_field_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FieldConfig(**changes)
