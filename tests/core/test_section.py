"""The frame that numerics run in depends on the section, not on how it was placed, and leads back without loss."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from inst_align.core.section import STEP, Section, UnitFrame


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s], [s, c]])


@pytest.fixture
def cloud() -> np.ndarray:
    """An elongated cloud that is skewed along both axes."""
    rng = np.random.default_rng(0)
    return np.column_stack([rng.gamma(2.0, 300.0, 400), rng.gamma(3.0, 60.0, 400)])


def lattice(side: int = 12) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(side), np.arange(side + 3), indexing="ij"), axis=-1).reshape(-1, 2) * 1.0


def section(xy: np.ndarray, n_genes: int = 20, seed: int = 0) -> Section:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(1.0, (len(xy), n_genes)) * rng.uniform(0.5, 2, (len(xy), 1))
    return Section(xy=xy, expression=sparse.csr_matrix(np.log1p(counts).astype(np.float32)))


def test_the_frame_is_centred_isotropic_and_of_unit_size(cloud: np.ndarray) -> None:
    frame = UnitFrame.of(cloud)
    unit = frame.to_unit(cloud)
    np.testing.assert_allclose(unit.mean(axis=0), 0, atol=1e-12)
    assert np.sqrt((unit**2).sum(axis=1).mean()) == pytest.approx(np.sqrt(2))
    lengths = np.linalg.norm(np.diff(cloud, axis=0), axis=1) / np.linalg.norm(np.diff(unit, axis=0), axis=1)
    np.testing.assert_allclose(lengths, frame.scale)


def test_the_frame_is_a_rotation_and_never_a_mirror_image(cloud: np.ndarray) -> None:
    for xy in (cloud, cloud * [-1, 1], cloud[:, ::-1]):
        turn = UnitFrame.of(xy).rotation
        np.testing.assert_allclose(turn @ turn.T, np.eye(2), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)


def test_going_there_and_back_changes_nothing(cloud: np.ndarray) -> None:
    frame = UnitFrame.of(cloud)
    np.testing.assert_allclose(frame.to_user(frame.to_unit(cloud)), cloud, rtol=1e-12)


def test_the_matrix_does_what_the_function_does(cloud: np.ndarray) -> None:
    frame = UnitFrame.of(cloud)
    by_matrix = cloud @ frame.matrix[:2, :2].T + frame.matrix[:2, 2]
    np.testing.assert_allclose(by_matrix, frame.to_unit(cloud), atol=1e-12)
    np.testing.assert_array_equal(frame.matrix[2], [0, 0, 1])


@pytest.mark.parametrize("degrees", [10, 90, 180, 233])
def test_rotating_shifting_and_rescaling_the_input_leaves_unit_coordinates_alone(
    cloud: np.ndarray, degrees: float
) -> None:
    other = 0.37 * cloud @ rotation(degrees).T + [5e4, -3e4]
    np.testing.assert_allclose(UnitFrame.of(other).to_unit(other), UnitFrame.of(cloud).to_unit(cloud), atol=1e-9)


@pytest.mark.parametrize("degrees", [0, 10, 90, 180, 233])
def test_rounded_they_are_the_same_bits_and_still_where_they_were(cloud: np.ndarray, degrees: float) -> None:
    other = 0.37 * cloud @ rotation(degrees).T + [5e4, -3e4]
    rounded = UnitFrame.of(cloud).rounded(cloud)
    np.testing.assert_array_equal(UnitFrame.of(other).rounded(other), rounded)
    np.testing.assert_allclose(rounded, UnitFrame.of(cloud).to_unit(cloud), atol=STEP / 2, rtol=0)
    assert len(np.unique(rounded, axis=0)) == len(cloud)


def test_the_order_of_the_cells_does_not_depend_on_how_the_section_lies(cloud: np.ndarray) -> None:
    wanted = section(cloud).canonical_order()
    turned = section(cloud @ rotation(77).T * 12.3 - 45.6)
    np.testing.assert_array_equal(turned.canonical_order(), wanted)
    assert not np.array_equal(np.lexsort((turned.xy[:, 1], turned.xy[:, 0])), wanted)


def test_the_frame_of_a_symmetric_section_does_not_flip_when_it_is_shifted_or_rescaled() -> None:
    """A full lattice has no skewness, so that rounding must not be what chooses between its axes' two directions."""
    xy = lattice()
    unit = UnitFrame.of(xy).to_unit(xy)
    for other in (xy + [123.4, -77.7], xy + [3e4, 9e4], xy * 0.3467, xy * 1e6, xy * 55.3 + 1000.1):
        np.testing.assert_allclose(UnitFrame.of(other).to_unit(other), unit, atol=1e-6)


def test_a_given_scale_is_used(cloud: np.ndarray) -> None:
    frame = UnitFrame.of(cloud, scale=7.0)
    assert frame.scale == 7.0
    np.testing.assert_allclose(frame.to_user(frame.to_unit(cloud)), cloud, rtol=1e-12)


def test_spacing_is_the_pitch_of_a_lattice_and_ignores_cells_at_the_same_place() -> None:
    xy = lattice() * 55.0
    assert section(xy).spacing == pytest.approx(55.0)
    assert section(np.concatenate([xy, xy, xy])).spacing == pytest.approx(55.0)


def test_the_canonical_order_undoes_any_permutation_even_among_cells_at_one_place(cloud: np.ndarray) -> None:
    xy = np.round(cloud / 200) * 200  # many ties
    original = section(xy)
    shuffled = original.take(np.random.default_rng(1).permutation(len(xy)))
    a, b = (s.take(s.canonical_order()) for s in (original, shuffled))
    np.testing.assert_array_equal(a.xy, b.xy)
    np.testing.assert_array_equal(a.expression.toarray(), b.expression.toarray())


def test_taking_rows_keeps_everything_else(cloud: np.ndarray) -> None:
    whole = Section(xy=cloud, expression=cloud.astype(np.float32), is_rep=True, name="source")
    part = whole.take(np.array([5, 2]))
    assert (len(part), part.is_rep, part.name) == (2, True, "source")
    np.testing.assert_array_equal(part.xy, cloud[[5, 2]])
    np.testing.assert_array_equal(part.expression, whole.expression[[5, 2]])
    assert len(whole) == 400
