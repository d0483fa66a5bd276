"""What is said of a map without the truth is right where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inst_align.core.quality import feature_correlation, map_report
from inst_align.core.section import Section
from inst_align.core.transforms import Affine, Compose, Displacement


def field(xy: np.ndarray) -> torch.Tensor:
    waves = np.random.default_rng(0).normal(size=(2, 6)) * 2
    return torch.as_tensor(np.sin(xy @ waves + np.arange(6)), dtype=torch.float32)


def cells(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 2, (n, 2))


def section(xy: np.ndarray) -> Section:
    return Section(xy=xy, expression=np.zeros((len(xy), 1), "f4"))


def correlation(xy_src: np.ndarray, features: torch.Tensor, width: float = 0.1) -> float:
    xy = cells(1500, 0)
    return feature_correlation(xy, xy_src, field(xy), features, width=width)


def test_correlation_is_high_in_register_and_falls_with_the_distance_from_it() -> None:
    xy = cells(600, 1)
    found = [correlation(xy + [shift, 0], field(xy)) for shift in (0.0, 0.1, 0.25, 0.5)]
    assert found[0] > 0.99
    assert (np.diff(found) < 0).all()


def test_correlation_of_unrelated_and_of_opposite_features() -> None:
    xy = cells(600, 1)
    assert abs(correlation(xy, field(xy)[torch.randperm(600, generator=torch.Generator().manual_seed(0))])) < 0.1
    assert correlation(xy, -field(xy)) < -0.99


def test_a_section_against_itself_is_nearly_perfect() -> None:
    xy = cells(1500, 0)
    assert correlation(xy, field(xy)) > 0.99


def test_cells_without_a_counterpart_do_not_count() -> None:
    xy = cells(600, 1)
    beside = xy[:300] + [50, 0]
    both = np.concatenate([xy, beside])
    nonsense = 100 * torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    assert correlation(both, torch.cat([field(xy), nonsense])) == pytest.approx(correlation(xy, field(xy)))
    assert np.isnan(correlation(beside, nonsense))


def test_cells_at_one_place_are_no_trouble() -> None:
    xy = np.repeat(cells(30, 0), 10, axis=0)
    found = feature_correlation(xy, xy, field(xy), field(xy), width=0.03)
    assert found == pytest.approx(1, abs=1e-6)


def test_the_identity_moves_stretches_and_folds_nothing() -> None:
    xy = cells(400, 0) * 100
    same = Affine(np.eye(3))
    report = map_report(section(xy), section(xy), same, same)
    assert report["spacing_reference"] == report["spacing_source"] == section(xy).spacing
    wanted = {"displacement_median": 0, "displacement_max": 0, "area_change_min": 1, "area_change_max": 1}
    wanted |= {"fold_fraction": 0, "overlap": 1}
    assert {key: report[key] for key in wanted} == pytest.approx(wanted)


def test_a_mirror_image_is_no_fold() -> None:
    xy = cells(400, 0) * 100
    mirror = Affine(np.diag([-1.0, 1.0, 1.0]))
    report = map_report(section(mirror(xy)), section(xy), mirror, mirror)
    assert report["fold_fraction"] == 0
    assert report["area_change_min"] == pytest.approx(1)
    assert report["overlap"] == 1


def displaced(size: float) -> Compose:
    """A shift, then a bump of a given size at (100, 100) with a standard deviation of 20."""
    column, row = np.meshgrid(np.arange(50), np.arange(50))
    bump = np.exp(-0.5 * ((column * 5 - 100) ** 2 + (row * 5 - 100) ** 2) / 20**2)
    return Compose((Affine.from_rigid(0, (30, 0)), Displacement(np.stack([size * bump, 0 * bump]), (0, 0), 5)))


def test_displacements_are_told_in_neighbour_distances_of_the_reference_without_the_affine_part() -> None:
    xy = cells(900, 0) * 100
    ref = section(xy)
    transform = displaced(10.0)
    report = map_report(ref, section(xy - [30, 0]), transform.parts[0], transform)
    assert report["displacement_max"] == pytest.approx(10 / ref.spacing, rel=0.02)
    assert report["displacement_median"] < 0.1 * report["displacement_max"]
    steepest = 10 / 20 * np.exp(-0.5)
    assert report["area_change_max"] == pytest.approx(1 + steepest, rel=0.02)
    assert report["area_change_min"] == pytest.approx(1 - steepest, rel=0.02)
    assert report["fold_fraction"] == 0


def test_folds_are_counted() -> None:
    xy = cells(900, 0) * 100
    transform = displaced(60.0)
    report = map_report(section(xy), section(xy - [30, 0]), transform.parts[0], transform)
    area = np.linalg.det(transform.jacobian(xy - [30, 0]))
    assert report["fold_fraction"] == (area <= 0).mean() > 0
    assert report["area_change_min"] < 0


def test_overlap_is_the_share_of_the_source_on_the_reference() -> None:
    xy = cells(2000, 0) * 100
    shift = Affine.from_rigid(0, (100, 0))
    report = map_report(section(xy), section(cells(2000, 1) * 100), shift, shift)
    assert report["overlap"] == pytest.approx(0.5, abs=0.06)


def test_some_of_the_cells_tell_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    xy = cells(2000, 0) * 100
    shift = Affine.from_rigid(0, (50, 0))
    arguments = section(xy), section(cells(2000, 1) * 100), shift, shift
    whole = map_report(*arguments), correlation(cells(2000, 1), field(cells(2000, 1)))
    monkeypatch.setattr("inst_align.core.quality.MAX_CELLS", 500)
    some = map_report(*arguments), correlation(cells(2000, 1), field(cells(2000, 1)))
    assert some[0]["overlap"] == pytest.approx(whole[0]["overlap"], abs=0.05)
    assert some[0]["overlap"] != whole[0]["overlap"]
    assert {**some[0], "overlap": 0} == {**whole[0], "overlap": 0}
    assert some[1] == pytest.approx(whole[1], abs=0.01)
    assert some[1] != whole[1]
