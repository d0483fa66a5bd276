"""A smooth warp between two samples of one field is undone, without folds, and nothing moves that need not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from inst_align.core.drawn import Cells, Drawn
from inst_align.core.mismatch import Mismatch, residuals
from inst_align.core.raster import Grid, sample
from inst_align.core.registration import Level, Registration, RegistrationConfig, register
from inst_align.core.velocity import singular_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from inst_align.core.mismatch import Both

CONFIG = RegistrationConfig(
    levels=(
        Level(sigma=0.5, control_spacing=1.5, steps=20),
        Level(sigma=0.27, control_spacing=1.1, steps=20),
        Level(sigma=0.16, control_spacing=0.9, steps=20),
    ),
    n_pixels=64,
)
BRIEF = RegistrationConfig(levels=(Level(sigma=0.4, control_spacing=1.2, steps=6),), n_pixels=40)
WAVES = np.random.default_rng(0).normal(size=(2, 10)) * 1.6


def field(xy: np.ndarray, seed: int) -> torch.Tensor:
    """Ten smooth channels, measured with noise."""
    noise = 0.2 * np.random.default_rng(seed).normal(size=(len(xy), 10))
    return torch.as_tensor(np.sin(xy @ WAVES + np.arange(10)) + noise, dtype=torch.float32) / np.sqrt(10)


def tissue(n: int, seed: int) -> np.ndarray:
    """Cells of an ellipse of about the size of the unit frame."""
    xy = np.random.default_rng(seed).uniform(-2.2, 2.2, (4 * n, 2))
    return xy[(xy[:, 0] / 2.2) ** 2 + (xy[:, 1] / 1.5) ** 2 < 1][:n]


def warp(xy: np.ndarray) -> np.ndarray:
    one = np.exp(-0.5 * ((xy - [0.8, 0.2]) ** 2).sum(axis=1, keepdims=True) / 0.7**2)
    two = np.exp(-0.5 * ((xy - [-0.9, -0.3]) ** 2).sum(axis=1, keepdims=True) / 0.8**2)
    return xy + one * [0.25, 0.2] + two * [-0.1, 0.3]


def unwarp(xy: np.ndarray) -> np.ndarray:
    """The inverse of the warp, by fixed-point iteration."""
    back = xy
    for _ in range(60):
        back = xy - (warp(back) - back)
    return back


def spacing(xy: np.ndarray) -> float:
    return float(np.median(cKDTree(xy).query(xy, k=2)[0][:, 1]))


def moved(result: Registration, xy: np.ndarray) -> np.ndarray:
    points = torch.as_tensor(xy, dtype=torch.float32)
    return xy + sample(torch.tensor(result.forward.vectors), result.grid, points).T.numpy()


def solve(
    displace: Callable[[np.ndarray], np.ndarray], keep: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[Registration, np.ndarray, np.ndarray]:
    """Register a displaced sample; return the result and the errors before and after, in neighbour distances."""
    ref, truth = tissue(900, 1), tissue(800, 2)
    if keep is not None:
        truth = truth[keep(truth)]
    src = displace(truth)
    result = register(ref, src, field(ref, 3), field(truth, 4), CONFIG)
    before, after = (np.linalg.norm(xy - truth, axis=1) / spacing(ref) for xy in (src, moved(result, src)))
    return result, before, after


def determinants(result: Registration) -> torch.Tensor:
    large, small = singular_values(torch.tensor(result.forward.vectors), result.grid.pixel)
    return large * small


@pytest.mark.parametrize("displace", [warp, unwarp])
def test_a_known_warp_is_undone_whichever_way_round_it_was_made(displace: Callable[[np.ndarray], np.ndarray]) -> None:
    result, before, after = solve(displace)
    assert np.median(before) > 3
    assert np.median(after) < np.median(before) / 3
    assert np.percentile(after, 95) < np.percentile(before, 95) / 2
    assert determinants(result).min() > 0


def test_the_displacement_is_zero_on_the_border() -> None:
    result, _, _ = solve(warp)
    border = torch.ones(result.grid.height, result.grid.width, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert result.forward.vectors.shape == (2, result.grid.height, result.grid.width)
    assert result.forward.vectors.dtype == np.float32
    assert np.abs(result.forward.vectors[:, border.numpy()]).max() == 0


def test_a_section_stays_where_it_is_against_itself() -> None:
    xy = tissue(900, 1)
    features = field(xy, 3)
    result = register(xy, xy, features, features, CONFIG)
    assert np.linalg.norm(moved(result, xy) - xy, axis=1).mean() < 0.1 * spacing(xy)


def test_two_samples_that_are_in_register_stay_nearly_where_they_are() -> None:
    _, before, after = solve(lambda xy: xy)
    assert before.max() == 0
    assert np.median(after) < 1


@pytest.mark.parametrize("side", [[1.0, 0.2], [-1.0, 0.3]])
def test_a_source_that_was_cropped_is_neither_stretched_nor_pulled_over_the_reference(side: list[float]) -> None:
    result, before, after = solve(warp, keep=lambda xy: xy @ side > 0)
    assert np.median(after) < 0.5 * np.median(before)
    assert np.percentile(after, 95) < np.percentile(before, 95)
    assert determinants(result).min() > 0


def test_a_reference_that_was_cropped_leaves_the_rest_of_the_source_in_place() -> None:
    ref, src = tissue(900, 1), tissue(800, 2)
    ref = ref[ref[:, 0] < 0.3]
    result = register(ref, src, field(ref, 3), field(src, 4), CONFIG)
    travel = np.linalg.norm(moved(result, src) - src, axis=1) / spacing(src)
    assert np.median(travel) < 1.5
    assert travel.max() < 5


def test_swapping_the_sections_gives_the_inverse_map() -> None:
    ref, truth = tissue(500, 1), tissue(400, 2)
    src = warp(truth)
    of_ref, of_src = field(ref, 3), field(truth, 4)
    forward = register(ref, src, of_ref, of_src, BRIEF)
    backward = register(src, ref, of_src, of_ref, BRIEF)
    there = moved(forward, src)
    assert np.linalg.norm(there - src, axis=1).max() > 2 * spacing(ref)
    assert np.linalg.norm(moved(backward, there) - src, axis=1).max() < 0.15 * spacing(ref)


def test_channels_of_noise_do_not_pull() -> None:
    ref, src = tissue(700, 1), tissue(600, 2)
    noise = [torch.randn(len(xy), 10, generator=torch.Generator().manual_seed(len(xy))) / 3 for xy in (ref, src)]
    alone = register(ref, src, field(ref, 3), field(src, 4), CONFIG)
    with_noise = register(
        ref, src, torch.cat([field(ref, 3), noise[0]], dim=1), torch.cat([field(src, 4), noise[1]], dim=1), CONFIG
    )
    change = np.linalg.norm(moved(alone, src) - moved(with_noise, src), axis=1) / spacing(ref)
    assert np.median(change) < 1


@pytest.mark.parametrize("n_cells", [10, 15, 30, 60, 120])
def test_small_sections_get_a_finite_map(n_cells: int) -> None:
    """The finest rasters have far more pixels than a small section has cells."""
    ref, src = tissue(n_cells, 1), tissue(n_cells, 2)
    levels = tuple(Level(sigma=s, control_spacing=0.8, steps=2) for s in (0.5, 0.11, 0.04))
    result = register(ref, src, field(ref, 3), field(src, 4), RegistrationConfig(levels=levels))
    assert np.isfinite(result.forward.vectors).all()
    assert np.isfinite(result.history["registration.data"]).all()


def test_the_same_input_gives_the_same_bits() -> None:
    ref, src = tissue(300, 1), warp(tissue(250, 2))
    one, two = (register(ref, src, field(ref, 3), field(src, 4), BRIEF) for _ in range(2))
    np.testing.assert_array_equal(one.forward.vectors, two.forward.vectors)


def test_every_step_is_counted_and_recorded_and_the_cost_falls() -> None:
    ref, truth = tissue(500, 1), tissue(400, 2)
    steps: list[int] = []
    result = register(
        ref, warp(truth), field(ref, 3), field(truth, 4), CONFIG, on_step=lambda: steps.append(len(steps))
    )
    assert len(steps) == CONFIG.n_steps == 60
    data, smoothness = result.history["registration.data"], result.history["registration.smoothness"]
    assert data.shape == smoothness.shape == (60,)
    for start in (0, 20, 40):
        assert (data + smoothness)[start + 19] < (data + smoothness)[start]
    assert smoothness[0] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": ()}, "`levels` is empty"),
        ({"strain": -1.0}, "`strain=-1.0`"),
        ({"bending": -1.0}, "`bending=-1.0`"),
        ({"escape_cost": -0.1}, "`escape_cost=-0.1`"),
        ({"learning_rate": 0.0}, "`learning_rate=0.0`"),
        ({"learning_rate": float("nan")}, "`learning_rate=nan`"),
        ({"margin": 0.0}, "`margin=0.0`"),
        ({"n_pixels": 1}, "`n_pixels=1`"),
    ],
)
def test_constants_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RegistrationConfig(**changes)


@pytest.mark.parametrize("changes", [{"sigma": 0.0}, {"control_spacing": 0.0}, {"steps": 0}])
def test_a_level_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        Level(**({"sigma": 0.5, "control_spacing": 1.0, "steps": 5} | changes))


def channels(seed: int = 0) -> torch.Tensor:
    """Two channels of variance one at 150 pixels."""
    return torch.randn(150, 2, generator=torch.Generator().manual_seed(seed))


ONE, NONE = torch.ones(150), torch.zeros(150)


def ratio(*arguments: Any) -> torch.Tensor:
    return residuals(*arguments)[0]


def test_residuals_are_nothing_for_a_match_and_about_two_for_unrelated_channels() -> None:
    own, variance = channels(), torch.ones(2)
    assert ratio(own, own, ONE, NONE, variance, 2.0).abs().max() < 1e-6
    assert ratio(own, channels(1), ONE, NONE, variance, 2.0).numpy() == pytest.approx(2, rel=0.3)


def test_residuals_take_out_a_constant_offset_and_scale_with_the_channel() -> None:
    own, other, variance = channels(), channels(1), torch.ones(2)
    shifted = own + torch.tensor([3.0, -1.0])
    assert ratio(own, shifted, ONE, NONE, variance, 2.0).abs().max() < 1e-5
    plain, scaled = (ratio(f * own, f * other, 0.5 * ONE, 0.5 * ONE, f**2 * variance, 2.0) for f in (1, 7))
    torch.testing.assert_close(plain, scaled, atol=1e-5, rtol=1e-4)


def test_the_slopes_of_the_residuals_are_their_changes() -> None:
    own, variance, weights = (
        each.double() for each in (channels(), torch.tensor([0.7, 1.3]), torch.tensor([0.3, 2.0]))
    )
    found, matched, left = (each.double() for each in (channels(1) + 2, 1 - 0.5 * torch.rand(150), torch.rand(150)))
    _, slopes = residuals(own, found, matched, left, variance, 2.0)
    for number, slope in enumerate(slopes(weights)):
        step = 1e-5 * torch.randn(slope.shape, dtype=torch.float64)
        up, down = ([found, matched, left] for _ in range(2))
        up[number], down[number] = up[number] + step, down[number] - step
        change = (ratio(own, *up, variance, 2.0) - ratio(own, *down, variance, 2.0)) @ weights / 2
        torch.testing.assert_close((slope * step).sum(), change, atol=0, rtol=1e-6)


def test_leaving_the_tissue_costs_twice_the_variance() -> None:
    own = channels()
    half = ONE.clone()
    half[75:] = 0
    free = ratio(own, own * half[:, None], half, NONE, torch.ones(2), 2.0)
    paid = ratio(own, own * half[:, None], half, 1 - half, torch.ones(2), 2.0)
    assert free.abs().max() < 1e-5
    assert paid.numpy() == pytest.approx(1, rel=0.3)  # half of the tissue, at twice the variance


def drawn(seed: int, *, size: int = 40) -> Drawn:
    grid = Grid(origin=(-2.0, -2.0), pixel=4 / (size - 1), height=size, width=size)
    xy = np.random.default_rng(seed).uniform(-1.2, 1.2, (1500, 2))
    values = torch.tensor(np.column_stack([np.sin(2 * xy[:, 0]), np.cos(3 * xy[:, 1])]), dtype=torch.float32)
    return Drawn.draw(grid, Cells.of(xy, values), 0.15)


def test_the_halves_of_a_chessboard_agree_and_together_ask_every_pixel_of_tissue() -> None:
    ref, src = drawn(0), drawn(1)

    def shifted(places: Both) -> Both:
        step = torch.tensor([0.1, 0.0])
        return places[0] + step, places[1] - step

    mismatch = Mismatch.begin(ref, src, shifted, escape_cost=2.0, sigma=0.15)
    assert len(mismatch.parts) == 2
    asked = [torch.cat([part[row].pixels for part in mismatch.parts]) for row in (0, 1)]
    for pixels, section in zip(asked, (src, ref), strict=True):
        assert sorted(pixels.tolist()) == section.tissue.flatten().nonzero()[:, 0].tolist()
    first, second = (float(mismatch(shifted, turn)) for turn in (0, 1))
    assert first == pytest.approx(second, abs=0.1)
    assert float(mismatch(shifted, 2)) == first


def test_the_mismatch_is_least_where_sections_lie_on_each_other() -> None:
    ref, src = drawn(0), drawn(1)
    mismatch = Mismatch.begin(ref, src, lambda places: places, escape_cost=2.0, sigma=0.15)

    def cost(shift: float) -> float:
        step = torch.tensor([shift, 0.0])
        return float(mismatch(lambda places: (places[0] + step, places[1] - step), 0))

    assert cost(0.0) < min(cost(0.1), cost(-0.1)) < min(cost(0.3), cost(-0.3))


@pytest.mark.parametrize("shift", [0.031, 0.307, 1.013])
def test_the_slope_of_the_mismatch_is_its_change(shift: float) -> None:
    mismatch = Mismatch.begin(drawn(0), drawn(1), lambda places: places, escape_cost=2.0, sigma=0.15)
    at = torch.tensor([shift, -0.5 * shift], requires_grad=True)

    def cost(step: torch.Tensor) -> torch.Tensor:
        return mismatch(lambda places: (places[0] + step, places[1] - step), 0)

    (slope,) = torch.autograd.grad(cost(at), at)
    with torch.no_grad():
        changes = [float(cost(at + step) - cost(at - step)) / 2e-4 for step in 1e-4 * torch.eye(2)]
    assert slope.tolist() == pytest.approx(changes, rel=0.05, abs=0.01)


def test_many_cells_are_gathered_on_the_finest_grid_without_a_difference_to_the_drawing() -> None:
    grid = Grid(origin=(-2.0, -2.0), pixel=0.1, height=41, width=41)
    coarse = Grid(origin=(-2.1, -2.05), pixel=0.3, height=15, width=15)
    xy = np.random.default_rng(0).uniform(-1.2, 1.2, (20_000, 2))
    values = torch.tensor(np.column_stack([np.sin(2 * xy[:, 0]), np.cos(3 * xy[:, 1])]), dtype=torch.float32)
    cells = Cells.of(xy, values)
    few = cells.gathered(grid)
    assert len(few.xy) < 1000
    for one, other in zip(cells.drawn(grid), few.drawn(grid), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)
    direct, gathered = (Drawn.draw(coarse, each, 0.4) for each in (cells, few))
    assert torch.equal(direct.tissue, gathered.tissue)
    torch.testing.assert_close(direct.features, gathered.features, atol=0.02, rtol=0)


def test_few_cells_are_left_as_they_are() -> None:
    cells = Cells.of(np.random.default_rng(0).uniform(-1, 1, (100, 2)), torch.zeros(100, 1))
    assert cells.gathered(Grid(origin=(-2.0, -2.0), pixel=0.1, height=41, width=41)) is cells


def test_levels_that_would_tell_single_cells_apart_are_left_out() -> None:
    config = RegistrationConfig()
    assert config.suited(0.01) == config
    assert min(level.sigma for level in config.suited(0.058).levels) == 0.045
    assert config.suited(100.0).levels == config.levels[:1]
