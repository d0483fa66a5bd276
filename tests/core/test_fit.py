"""The fit of a pair: every stage reports, nothing leaks, and the same cells give the same map in whatever order."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import sparse

from inst_align.core.fit import fit_pair, fit_pose
from inst_align.core.prepared import PairConfig
from inst_align.core.registration import RegistrationConfig
from inst_align.core.section import Section
from inst_align.core.transforms import Affine, Compose, Displacement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inst_align.core.alignment import Alignment, Step

CPU = torch.device("cpu")
POSE = Affine.from_rigid(np.deg2rad(-40), (300.0, -120.0))
"""Source to reference."""
WAVES = np.random.default_rng(0).normal(size=(2, 30)) / 70


def tissue(n: int, seed: int) -> np.ndarray:
    xy = np.random.default_rng(seed).uniform(-100, 100, (4 * n, 2))
    bite = ((xy - [80, 40]) ** 2).sum(axis=1) < 40**2
    return xy[((xy / [100, 70]) ** 2).sum(axis=1) < 1 - bite][:n]


def counts(xy: np.ndarray, seed: int) -> sparse.csr_matrix:
    rate = 2 * np.exp(np.sin(xy @ WAVES + np.arange(30)))
    return sparse.csr_matrix(np.log1p(np.random.default_rng(seed).poisson(rate)).astype(np.float32))


def bend(xy: np.ndarray) -> np.ndarray:
    return xy + 25 * np.exp(-0.5 * ((xy - [10, 10]) ** 2).sum(axis=1, keepdims=True) / 40**2) * [0.8, -0.6]


def pair(n: int = 350) -> tuple[Section, Section, np.ndarray]:
    """A reference, a bent and turned source, and where its cells belong."""
    ref, truth = tissue(n, 1), tissue(n - 50, 2)
    return (
        Section(xy=ref, expression=counts(ref, 3), name="reference"),
        Section(xy=POSE.inverse()(bend(truth)), expression=counts(truth, 4), name="source"),
        truth,
    )


def fit(ref: Section, src: Section, config: PairConfig, **changes: Any) -> Alignment:
    arguments: dict[str, Any] = {
        "init": POSE,
        "accept": "nonrigid",
        "generator": torch.Generator().manual_seed(0),
        "device": CPU,
    }
    return fit_pair(ref, src, config=config, **(arguments | changes))


def error(result: Alignment, src: Section, truth: np.ndarray, ref: Section) -> float:
    return float(np.median(np.linalg.norm(result.transform(src.xy) - truth, axis=1)) / ref.spacing)


def test_the_map_is_the_pose_followed_by_a_displacement_that_improves_on_it(tiny: PairConfig) -> None:
    ref, src, truth = pair()
    result = fit(ref, src, tiny)
    assert result.affine == POSE
    assert isinstance(result.transform, Compose)
    affine, displacement = result.transform.parts
    assert affine == POSE
    assert isinstance(displacement, Displacement)
    posed = float(np.median(np.linalg.norm(POSE(src.xy) - truth, axis=1)) / ref.spacing)
    assert error(result, src, truth, ref) < 0.8 * posed
    assert result.report["fold_fraction"] == 0
    assert np.linalg.det(displacement.jacobian(POSE(src.xy))).min() > 0


def test_far_from_the_tissue_the_map_is_the_pose(tiny: PairConfig) -> None:
    ref, src, _ = pair()
    far = src.xy + 10_000
    np.testing.assert_array_equal(fit(ref, src, tiny).transform(far), POSE(far))


def test_the_report_says_how_the_pose_came_about_and_how_far_cells_moved(tiny: PairConfig) -> None:
    ref, src, _ = pair()
    result = fit(ref, src, tiny)
    report = result.report
    assert report["pose_method"] == "given"
    assert report["angle"] == pytest.approx(-40)
    assert report["mirrored"] is False
    moved = np.linalg.norm(result.transform(src.xy) - POSE(src.xy), axis=1) / ref.spacing
    assert report["displacement_median"] == pytest.approx(np.median(moved))
    assert report["displacement_max"] == pytest.approx(moved.max())
    assert report["overlap"] > 0.9
    assert -1 <= report["feature_correlation_rigid"] <= report["feature_correlation"] <= 1
    assert all(isinstance(value, str | bool | int | float) for value in report.values())


def test_history_and_seconds_cover_every_stage(tiny: PairConfig) -> None:
    ref, src, _ = pair()
    result = fit(ref, src, tiny)
    assert set(result.seconds) == {"features", "pose", "trial", "registration", "field", "export"}
    assert all(seconds >= 0 for seconds in result.seconds.values())
    assert {name.split(".")[0] for name in result.history} == {"registration"}
    assert all(np.isfinite(values).all() for values in result.history.values())
    assert len(result.history["registration.data"]) == tiny.registration.n_steps
    assert result.field is not None


def test_without_a_field_the_map_is_that_of_the_registration(tiny: PairConfig) -> None:
    ref, src, truth = pair()
    plain = PairConfig(registration=tiny.registration, field=None)
    result = fit(ref, src, plain)
    assert result.field is None
    assert plain.n_steps == 10
    np.testing.assert_array_equal(result.transform(src.xy), fit(ref, src, tiny).transform(src.xy))


def test_the_callback_counts_every_step_up_to_the_total(tiny: PairConfig) -> None:
    ref, src, _ = pair()
    steps: list[Step] = []
    fit(ref, src, tiny, callback=steps.append)
    assert [step.done for step in steps] == list(range(1, tiny.n_steps + 1))
    assert {step.total for step in steps} == {tiny.n_steps} == {10}
    assert {step.stage for step in steps} == {"registration"}


def test_an_interruption_gets_through_and_leaves_no_trace_in_torch(tiny: PairConfig) -> None:
    ref, src, _ = pair()

    def interrupt(step: Step) -> None:
        if step.done == 3:
            raise KeyboardInterrupt

    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(ref, src, tiny, callback=interrupt)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.is_grad_enabled()


def test_the_same_seed_gives_the_same_bits(tiny: PairConfig) -> None:
    ref, src, _ = pair()
    one, two = fit(ref, src, tiny), fit(ref, src, tiny)
    assert one.transform == two.transform
    assert one.report == two.report
    assert one.history.keys() == two.history.keys()
    assert all(np.array_equal(one.history[name], two.history[name]) for name in one.history)


def test_the_order_of_the_cells_does_not_matter(tiny: PairConfig) -> None:
    ref, src, _ = pair()
    rng = np.random.default_rng(0)
    shuffled = [section.take(rng.permutation(len(section))) for section in (ref, src)]
    assert fit(ref, src, tiny).transform.allclose(fit(*shuffled, tiny).transform, rtol=1e-6, atol=1e-6)


def test_the_sections_given_are_left_as_they_were(tiny: PairConfig) -> None:
    ref, src, _ = pair()
    before = [(s.xy.copy(), s.expression.toarray()) for s in (ref, src)]
    fit(ref, src, tiny)
    for section, (xy, expression) in zip((ref, src), before, strict=True):
        np.testing.assert_array_equal(section.xy, xy)
        np.testing.assert_array_equal(section.expression.toarray(), expression)


def test_a_representation_is_fitted_too(tiny: PairConfig) -> None:
    ref, src, truth = pair()
    as_rep = [Section(xy=s.xy, expression=s.expression.toarray(), is_rep=True, name=s.name) for s in (ref, src)]
    result = fit(*as_rep, tiny)
    assert error(result, src, truth, ref) < 3
    assert result.field is not None


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


OUTSIDE = {"float64": lambda: default_dtype(torch.float64), "no_grad": torch.no_grad, "inference": torch.inference_mode}


@pytest.mark.parametrize("state", list(OUTSIDE))
def test_torch_may_be_set_to_anything_outside(tiny: PairConfig, state: str) -> None:
    """A notebook that computes in float64, or without gradients, gets the same map as any other."""
    ref, src, _ = pair(150)
    wanted = fit(ref, src, tiny).transform
    with OUTSIDE[state]():
        found = fit(ref, src, tiny).transform
        assert (torch.get_default_dtype() == torch.float64) is (state == "float64")
        assert torch.is_grad_enabled() is (state == "float64")
    assert found == wanted


@pytest.mark.usefixtures("coarse_search")
@pytest.mark.parametrize("method", ["fft", "icp"])
def test_both_methods_find_the_pose_and_say_which_they_are(tiny: PairConfig, method: Any) -> None:
    ref, src, truth = pair()
    generator = torch.Generator().manual_seed(0)
    result = fit_pose(ref, src, method=method, config=tiny, generator=generator, device=CPU)
    assert result.transform == result.affine
    assert result.report["pose_method"] == method
    assert result.report["angle"] == pytest.approx(-40, abs=5)
    assert np.linalg.det(result.affine.matrix[:2, :2]) == pytest.approx(1)
    rigid = float(np.median(np.linalg.norm(POSE(src.xy) - truth, axis=1)) / ref.spacing)
    assert error(result, src, truth, ref) < 1.5 * rigid
    assert set(result.seconds) == {"features", "pose"}


@pytest.mark.usefixtures("coarse_search")
def test_a_search_finds_the_mirror_image_that_it_is_allowed_to(tiny: PairConfig) -> None:
    ref, src, truth = pair()
    flipped = Section(xy=src.xy * [-1, 1], expression=src.expression, name="source")
    arguments: dict[str, Any] = {"config": tiny, "generator": torch.Generator().manual_seed(0), "device": CPU}
    refused = fit_pose(ref, flipped, **arguments)
    assert refused.report["pose_mirrored_better"] is True
    assert refused.report["mirrored"] is False
    allowed = fit_pose(ref, flipped, allow_reflection=True, **arguments)
    assert allowed.report["mirrored"] is True
    assert allowed.report["pose_mirrored_better"] is False
    assert error(allowed, flipped, truth, ref) < 4


@pytest.mark.usefixtures("coarse_search")
def test_a_symmetric_tissue_is_told_to_be_ambiguous(tiny: PairConfig) -> None:
    one, two = tissue(300, 1), tissue(300, 2)
    xy, other = np.concatenate([one, -one]), np.concatenate([two, -two])
    sections = [
        Section(xy=at, expression=sparse.csr_matrix(counts(at, i) + counts(-at, i + 9)), name=name)
        for i, (at, name) in enumerate(((xy, "reference"), (other, "source")))
    ]
    generator = torch.Generator().manual_seed(0)
    report = fit_pose(*sections, config=tiny, generator=generator, device=CPU).report
    assert report["pose_ambiguous"] is True
    assert report["pose_runner_up"] >= 0.95 * report["pose_score"]


@pytest.mark.parametrize("name", ["n_components", "n_neighbors"])
def test_constants_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}=0`: must be at least 1"):
        PairConfig(**{name: 0})


def test_a_section_that_is_not_bent_keeps_the_pose_and_says_so(tiny: PairConfig) -> None:
    ref, src, _ = pair()
    truth = tissue(300, 2)
    straight = Section(xy=POSE.inverse()(truth), expression=src.expression, name="source")
    result = fit(ref, straight, tiny, accept="auto")
    assert isinstance(result.transform, Affine)
    assert result.transform == result.affine
    assert result.report["verdict"] == "rigid sufficient"
    assert result.report["displacement_max"] == 0
    assert not any(name.startswith("registration") for name in result.history)
    assert result.field is not None
    assert error(result, straight, truth, ref) < 0.3


def test_a_bent_section_is_bent_back_and_says_so(tiny: PairConfig) -> None:
    ref, _, truth = pair()
    far = POSE.inverse()(truth + 2.5 * (bend(truth) - truth))
    src = Section(xy=far, expression=counts(truth, 4), name="source")
    longer = tuple(replace(level, steps=30) for level in tiny.registration.levels)
    config = replace(tiny, registration=replace(tiny.registration, levels=longer), field=None)
    result = fit(ref, src, config, accept="auto")
    assert isinstance(result.transform, Compose)
    assert result.report["verdict"] == "non-rigid"
    assert result.report["heldout_gain"] > 0


def test_a_trial_on_some_of_the_cells_says_what_one_on_all_does(
    tiny: PairConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, _, truth = pair()
    monkeypatch.setattr("inst_align.core.verdict.TRIAL_CELLS", 250)
    config = replace(tiny, field=None)
    for bent, verdict in ((bend(truth) + 1.5 * (bend(truth) - truth), "non-rigid"), (truth, "rigid sufficient")):
        src = Section(xy=POSE.inverse()(bent), expression=counts(truth, 4), name="source")
        result = fit(ref, src, config, accept="auto")
        assert result.report["verdict"] == verdict
        assert result.cells is not None
        assert len(result.cells.overlap_ref) == len(ref)


def test_some_of_the_cells_keep_what_is_known_of_them(tiny: PairConfig) -> None:
    ref, src, _ = pair()
    whole = tiny.prepare(ref, src, generator=torch.Generator().manual_seed(0), device=CPU)
    some = whole.at_most(320, n_neighbors=tiny.n_neighbors)
    assert (len(some.ref), len(some.src), some.shared.n_genes) == (320, 300, whole.shared.n_genes)
    np.testing.assert_array_equal(some.ref.xy, ref.xy[some.orders[0]])
    np.testing.assert_array_equal(some.src.xy, whole.src.xy)
    kept = np.isin(whole.orders[0], some.orders[0])
    torch.testing.assert_close(some.features_ref, whole.features_ref[kept])
    assert whole.at_most(len(ref), n_neighbors=tiny.n_neighbors) is whole


@pytest.mark.usefixtures("coarse_search")
def test_a_whole_fit_is_the_same_however_the_sections_lie() -> None:
    """A descent of many steps makes visible what differs in the last digit, so that nothing may differ there."""
    ref, src, _ = pair()
    config = PairConfig(field=None, registration=RegistrationConfig(n_pixels=48))
    wanted = fit(ref, src, config, init=None)
    turn, other = Affine.from_rigid(np.deg2rad(127), (3e4, -50.0)), Affine.from_rigid(np.deg2rad(-33), (-70.0, 1e5))
    moved_ref = replace(ref, xy=0.3467 * turn(ref.xy))
    moved_src = replace(src, xy=0.3467 * other(src.xy))
    found = fit(moved_ref, moved_src, config, init=None).transform(moved_src.xy)
    back = turn.inverse()(found / 0.3467)
    assert np.abs(wanted.transform(src.xy) - wanted.affine(src.xy)).max() > ref.spacing  # something is bent
    assert np.linalg.norm(back - wanted.transform(src.xy), axis=1).max() < 0.01 * ref.spacing


def test_a_large_section_is_fitted_as_a_small_one_is(tiny: PairConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its expression is not copied into the order of the fit."""
    ref, src, _ = pair()
    small = fit(ref, src, tiny)
    monkeypatch.setattr("inst_align.core.section.HELD_CELLS", 10)
    large = fit(ref, src, tiny)
    np.testing.assert_allclose(large.transform(src.xy), small.transform(src.xy), atol=1e-2 * ref.spacing)
    assert large.field is not None
    assert small.field is not None
    np.testing.assert_allclose(large.field["to_genes"], small.field["to_genes"], atol=1e-2)
