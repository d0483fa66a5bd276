"""A descent that leaves the finite numbers stops, goes back to what was fine, and says so once."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import sparse

from inst_align.core import fourier, pose, pose_refine
from inst_align.core.fit import fit_pair
from inst_align.core.guards import CHECK_EVERY, Guard, tell, telling
from inst_align.core.mismatch import Mismatch
from inst_align.core.polish import STEPS, polish_pose
from inst_align.core.prepared import PairConfig
from inst_align.core.registration import Level, RegistrationConfig, _Problem, register
from inst_align.core.section import Section
from inst_align.core.transforms import Affine

if TYPE_CHECKING:
    from inst_align.core.alignment import Alignment

LEVELS = (Level(sigma=0.5, control_spacing=1.5, steps=25), Level(sigma=0.27, control_spacing=1.1, steps=25))
REGISTRATION = RegistrationConfig(levels=LEVELS, n_pixels=40)


def descend(losses: list[float], values: list[float] | None = None) -> tuple[float, Guard, list[bool]]:
    """Add each of ``values`` to a number, by these losses; returns the number, the guard, and what it said."""
    number = torch.zeros(1)
    guard = Guard([number], len(losses))
    said = []
    for step, loss in enumerate(losses):
        number += 1.0 if values is None else values[step]
        said.append(guard.fine(torch.tensor(loss)))
        if not said[-1]:
            break
    return float(number), guard, said


@pytest.mark.parametrize("n_steps", [1, 19, 20, 21, 40, 47])
def test_a_descent_that_stays_finite_is_left_alone(n_steps: int) -> None:
    number, guard, said = descend([0.5] * n_steps)
    assert number == n_steps == guard.good == len(said)
    assert all(said)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("at", "good"), [(1, 0), (20, 0), (21, 20), (33, 20), (47, 40)])
def test_a_bad_loss_brings_back_what_was_last_looked_at(bad: float, at: int, good: int) -> None:
    stops: list[str] = []
    with telling("field", stops):
        number, guard, said = descend([bad if step == at else 0.5 for step in range(1, 48)])
    assert number == guard.good == good
    assert len(said) == min(good + CHECK_EVERY, 47)
    assert said == [True] * (len(said) - 1) + [False]
    assert stops == [f"field: loss not finite at step {at}"]


def test_bad_values_under_good_losses_are_seen_too() -> None:
    stops: list[str] = []
    with telling("field", stops):
        number, _, _ = descend([0.5] * 40, [1.0] * 25 + [float("nan")] * 15)
    assert number == 20
    assert stops == ["field: not finite after step 40"]


def test_the_device_is_asked_now_and_then_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    known = torch.Tensor.__bool__
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: asked.append(1) or known(tensor))
    descend([0.5] * 100)
    assert len(asked) == 100 / CHECK_EVERY


def test_what_is_told_when_nobody_listens_is_lost_and_what_is_told_twice_counts_once() -> None:
    tell("loss not finite at step 1")
    stops: list[str] = []
    with telling("pose", stops):
        tell("a")
        tell("a")
        with telling("trial", stops):
            tell("a")
        tell("b")
    tell("c")
    assert stops == ["pose: a", "trial: a", "pose: b"]


def sections(*, units: float = 1.0, expression: float = 1.0, rep: bool = False) -> tuple[Section, Section]:
    rng = np.random.default_rng(0)
    waves, phase = rng.normal(size=(2, 30)) / 3, rng.uniform(0, 6, 30)
    found = []
    for name in ("reference", "source"):
        xy = rng.uniform(0, 20, (300, 2)) * [1, 0.7]
        logged = np.log1p(rng.poisson(2 * np.exp(np.sin(xy @ waves + phase))))
        values = (logged * expression).astype(np.float32)
        matrix = values if rep else sparse.csr_matrix(values)
        found.append(Section(xy=xy * units, expression=matrix, is_rep=rep, name=name))
    return found[0], found[1]


def fit(pair: tuple[Section, Section], **arguments: Any) -> Alignment:
    known: dict[str, Any] = {"init": Affine(np.eye(3)), "accept": "nonrigid"}
    return fit_pair(
        *pair,
        config=PairConfig(registration=REGISTRATION),
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        **(known | arguments),
    )


def nan_at(step: int, function: Any) -> Any:
    """Return the function, whose result turns NaN from its so-many-eth call on."""
    calls = [0]

    def spoilt(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        result = function(*arguments, **more)
        return result * float("nan") if calls[0] >= step else result

    return spoilt


@pytest.mark.parametrize(("step", "good"), [(1, 0), (7, 0), (22, 20), (30, 25), (49, 40)])
def test_a_registration_keeps_its_last_good_map(monkeypatch: pytest.MonkeyPatch, step: int, good: int) -> None:
    monkeypatch.setattr(Mismatch, "__call__", nan_at(step, Mismatch.__call__))
    found = fit(sections())
    assert found.report["stopped_early"] == f"registration: loss not finite at step {step}"
    assert np.isfinite(found.transform(sections()[1].xy)).all()
    history = found.history["registration.data"]
    assert len(history) == good
    assert np.isfinite(history).all()
    moved = np.linalg.norm(found.transform(sections()[1].xy) - sections()[1].xy, axis=1).max()
    assert (moved == 0) == (good == 0)


def test_a_stopped_registration_is_that_of_fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    one_level = replace(REGISTRATION, levels=LEVELS[:1])
    rng = np.random.default_rng(1)
    xy = rng.normal(size=(200, 2)), rng.normal(size=(200, 2))
    features = torch.as_tensor(np.sin(xy[0] @ rng.normal(size=(2, 4))), dtype=torch.float32)
    controls: list[torch.Tensor] = []
    descend = _Problem.descend

    def watched(self: _Problem, control: torch.Tensor, on_step: Any, **more: Any) -> Any:
        controls.append(control)
        return descend(self, control, on_step, **more)

    def stop() -> None:
        steps.append(1)
        if len(steps) == 20:
            raise KeyboardInterrupt

    steps: list[int] = []
    monkeypatch.setattr(_Problem, "descend", watched)
    with pytest.raises(KeyboardInterrupt):
        register(*xy, features, features.flip(0), one_level, on_step=stop)
    monkeypatch.setattr(Mismatch, "__call__", nan_at(23, Mismatch.__call__))
    found = register(*xy, features, features.flip(0), one_level)
    assert controls[0].abs().max() > 0
    assert torch.equal(controls[1].detach(), controls[0].detach())
    assert len(found.history["registration.data"]) == 20


@pytest.mark.parametrize("step", [3, STEPS + 5])
def test_a_polish_keeps_its_last_good_pose(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    rng = np.random.default_rng(1)
    xy = rng.normal(size=(200, 2))
    features = torch.as_tensor(np.sin(xy @ rng.normal(size=(2, 4))), dtype=torch.float32)
    arguments = (xy, xy + 0.05, features, features, REGISTRATION)
    one_round = polish_pose(*arguments, rounds=1)
    monkeypatch.setattr(Mismatch, "__call__", nan_at(step, Mismatch.__call__))
    stops: list[str] = []
    with telling("pose", stops):
        found = polish_pose(*arguments)
    np.testing.assert_array_equal(found, np.eye(3) if step <= STEPS else one_round)
    assert stops == [f"pose: loss not finite at step {step if step <= STEPS else step - STEPS}"]


@pytest.mark.parametrize("step", [1, 30])
def test_candidates_of_the_search_that_leave_the_finite_keep_their_start(
    monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    calls = [0]
    score = pose_refine._score_at_cells

    def spoilt(*arguments: Any) -> Any:
        calls[0] += 1
        values, overlap = score(*arguments)
        return values * (float("nan") if calls[0] >= step else 1.0), overlap

    monkeypatch.setattr(pose, "N_PIXELS", 33)
    monkeypatch.setattr(pose_refine, "_score_at_cells", spoilt)
    found = fit(sections(), init=None, accept="rigid")
    assert found.report["stopped_early"] == "pose: 12 of 12 candidates not finite once refined"
    assert np.isfinite(found.transform.matrix).all()


def unsolvable(*_: Any) -> Any:
    raise np.linalg.LinAlgError("singular matrix")


def infinite(values: torch.Tensor) -> Any:
    return lambda *_: values


@pytest.mark.parametrize("solution", [unsolvable, infinite(torch.full((1025, 30), float("nan")))])
@pytest.mark.parametrize("part", ["_read_out", "_genes_read_out"])
def test_without_a_field_the_rest_of_the_fit_stands(monkeypatch: pytest.MonkeyPatch, part: str, solution: Any) -> None:
    wanted = fit(sections())
    monkeypatch.setattr(fourier, part, solution)
    found = fit(sections())
    assert wanted.field is not None
    assert found.field is None
    assert found.report["stopped_early"] == "field: its equations have no finite solution, so that there is none"
    assert found.transform == wanted.transform


def test_features_that_are_not_finite_make_no_field_and_no_error() -> None:
    found = fourier._finite_or_none(lambda: fourier._read_out(torch.full((9, 3), float("nan")), torch.ones(9, 2), 1.0))
    assert found is None


@pytest.mark.parametrize(("epoch", "good"), [(5, {"phase1": 0, "phase2": 4}), (23 + 3, {"phase1": 23, "phase2": 0})])
def test_networks_keep_their_last_good_weights(
    monkeypatch: pytest.MonkeyPatch, epoch: int, good: dict[str, int]
) -> None:
    from inst_align.core import losses
    from inst_align.core.paper import PaperConfig, fit_paper

    config = PaperConfig(
        phase1_epochs=23, phase2_epochs=4, field_width=8, field_depth=1, decoder_width=8, deformation_depth=1
    )
    spoilt = nan_at(2 * epoch - 1, losses.reconstruction_loss)  # of both sections, in every epoch
    if not good["phase1"]:  # phase 2 goes on from the last good weights, and is well again
        first = losses.reconstruction_loss
        calls = [0]

        def once(*arguments: Any, **more: Any) -> Any:
            calls[0] += 1
            return first(*arguments, **more) * (float("nan") if calls[0] == 2 * epoch - 1 else 1.0)

        spoilt = once
    monkeypatch.setattr(losses, "reconstruction_loss", spoilt)
    rng = np.random.default_rng(0)
    xy, counts = rng.normal(size=(60, 2)), rng.poisson(1.0, size=(60, 8)).astype(np.float32)
    stops: list[str] = []
    with telling("fit", stops):
        found = fit_paper(
            xy,
            xy,
            counts,
            counts,
            counts,
            counts,
            config=config,
            generator=torch.Generator().manual_seed(0),
            device="cpu",
        )
    at = epoch if good["phase1"] == 0 else epoch - 23
    assert stops == [f"fit: loss not finite at step {at}"]
    assert np.isfinite(found.embed(xy)).all()
    assert np.isfinite(found.displace(xy)).all()
    for phase, n_epochs in good.items():
        lengths = {len(values) for name, values in found.history.items() if name.startswith(phase)}
        assert lengths == ({n_epochs} if n_epochs else set())
        assert all(np.isfinite(values).all() for values in found.history.values())


def test_a_fit_that_goes_well_says_nothing() -> None:
    assert "stopped_early" not in fit(sections()).report


@pytest.mark.parametrize(
    "extreme",
    [
        {"units": 1e12},
        {"units": 1e-12},
        {"expression": 2.0**100},  # a power of two, so that float32 holds the same digits
        {"expression": 2.0**-17},
        {"expression": 2.0**-100},
        {"expression": 2.0**122},
        {"rep": True, "expression": 2.0**100},
        {"rep": True, "expression": 2.0**-100},
    ],
)
def test_extreme_units_of_coordinates_and_expression_do_not_change_the_result(extreme: dict[str, Any]) -> None:
    usual = {"units": 1.0, "expression": 1.0}
    wanted = fit(sections(**(extreme | usual)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="overflow encountered", category=RuntimeWarning)  # sums of cells
        found = fit(sections(**extreme))
    assert "stopped_early" not in found.report
    ref, src = sections(**extreme)
    moved = found.transform(src.xy) / extreme.get("units", 1.0)
    expected = wanted.transform(sections(**(extreme | usual))[1].xy)
    assert np.abs(moved - expected).max() < 1e-3 * ref.spacing / extreme.get("units", 1.0)
    assert np.abs(expected - src.xy / extreme.get("units", 1.0)).max() > 0.1  # something moves at all
