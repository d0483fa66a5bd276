"""Verdicts take precedence over each other, and a poor pair is not bent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import sparse

from inst_align.core.fit import fit_pair
from inst_align.core.prepared import PairConfig
from inst_align.core.registration import Level, RegistrationConfig
from inst_align.core.section import Section
from inst_align.core.transforms import Affine, Compose
from inst_align.core.verdict import MIN_CELLS, verdict_of

if TYPE_CHECKING:
    from inst_align.core.alignment import Alignment

WAVES = np.random.default_rng(0).normal(size=(2, 40)) / 50
CONFIG = PairConfig(
    field=None,
    registration=RegistrationConfig(
        levels=(Level(sigma=0.5, control_spacing=1.5, steps=5), Level(sigma=0.27, control_spacing=1.1, steps=5)),
        n_pixels=48,
    ),
)


def section(name: Any, seed: int, n: int = 350) -> Section:
    xy = np.random.default_rng(seed).uniform(-100, 100, (4 * n, 2))
    xy = xy[(xy[:, 0] / 100) ** 2 + (xy[:, 1] / 70) ** 2 < 1][:n]
    rate = 2 * np.exp(np.sin(xy @ WAVES + np.arange(40)))
    counts = np.random.default_rng(seed + 50).poisson(rate)
    return Section(xy=xy, expression=sparse.csr_matrix(np.log1p(counts).astype(np.float32)), name=name)


def shuffled(src: Section) -> Section:
    return replace(src, expression=src.expression[np.random.default_rng(0).permutation(len(src))])


def fit(ref: Section, src: Section, **arguments: Any) -> Alignment:
    known = {"config": CONFIG, "generator": torch.Generator().manual_seed(0), "device": torch.device("cpu")}
    return fit_pair(ref, src, **(known | {"init": Affine(np.eye(3))} | arguments))


def test_a_pair_of_one_tissue_is_judged_by_its_bending() -> None:
    report = fit(section("reference", 1), section("source", 2)).report
    assert report["verdict"] in ("rigid sufficient", "non-rigid")
    assert report["heldout_z"] > 3
    assert 0 <= report["heldout_correlation_null"] < 0.3 < report["heldout_correlation_pose"]
    assert report["heldout_correlation_stored"] == pytest.approx(report["heldout_correlation_pose"], abs=0.15)


def test_a_source_whose_cells_changed_places_is_poor_and_is_not_bent() -> None:
    result = fit(section("reference", 1), shuffled(section("source", 2)))
    assert result.report["verdict"] == "poor"
    assert isinstance(result.transform, Affine)
    assert "heldout_gain" not in result.report
    assert result.report["heldout_z"] < 3


@pytest.mark.parametrize(("accept", "kind"), [("nonrigid", Compose), ("rigid", Affine)])
def test_whoever_decides_beforehand_is_still_told_that_nothing_agrees(accept: str, kind: type) -> None:
    result = fit(section("reference", 1), shuffled(section("source", 2)), accept=accept)
    assert result.report["verdict"] == "poor"
    assert result.report["feature_z"] < 3
    assert isinstance(result.transform, kind)


def test_a_wrong_pose_is_poor() -> None:
    wrong = Affine.from_rigid(np.pi / 2, (20.0, -10.0))
    assert fit(section("reference", 1), section("source", 2), init=wrong).report["verdict"] == "poor"


def test_sections_of_few_cells_are_not_called_poor() -> None:
    result = fit(section("reference", 1), shuffled(section("source", 2, MIN_CELLS - 5)), accept="rigid")
    assert result.report["verdict"] == "untested"


def test_the_map_of_a_related_pair_does_not_depend_on_the_null(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = section("reference", 1), section("source", 2)
    judged = fit(*arguments, accept="nonrigid")
    monkeypatch.setattr("inst_align.core.verdict.relation", lambda *_: {})
    at = arguments[1].xy
    np.testing.assert_array_equal(judged.transform(at), fit(*arguments, accept="nonrigid").transform(at))


@pytest.mark.parametrize(
    ("verdict", "pose", "said"),
    [
        ("non-rigid", {}, "non-rigid"),
        ("non-rigid", {"pose_ambiguous": False, "pose_mirrored_better": False}, "non-rigid"),
        ("non-rigid", {"pose_ambiguous": True}, "ambiguous pose"),
        ("rigid sufficient", {"pose_mirrored_better": True}, "ambiguous pose"),
        ("untested", {"pose_ambiguous": True}, "ambiguous pose"),
        ("poor", {"pose_ambiguous": True}, "poor"),
    ],
)
def test_nothing_agrees_comes_before_an_uncertain_pose_and_that_before_bending(
    verdict: str, pose: dict[str, Any], said: str
) -> None:
    assert verdict_of(verdict, pose) == said
