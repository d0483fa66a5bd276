"""Metrics against cases solved by hand, against theory, and against what must not change them."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import ot
import pandas as pd
import pytest
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from inst_align.metrics import (
    chamfer_distance,
    chamfer_floor,
    fold_fraction,
    label_transfer_ari,
    nn_accuracy,
    ot_accuracy,
    registration_error,
    spacing,
)

LABEL_METRICS = [ot_accuracy, nn_accuracy, label_transfer_ari]
GEOMETRIC = [chamfer_distance, chamfer_floor]


def layered(n: int, m: int, seed: int = 0, n_layers: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two independent samples of one tissue in wavy layers."""
    rng = np.random.default_rng(seed)
    ref, src = rng.random((n, 2)), rng.random((m, 2))

    def layer(xy: np.ndarray) -> np.ndarray:
        return ((xy[:, 1] + 0.03 * np.sin(9 * xy[:, 0])) * n_layers // 1).astype(int)

    return ref, src, layer(ref), layer(src)


class Map:
    """A map whose derivative at each point is given by a function of x alone."""

    def __init__(self, derivative: Any) -> None:
        self.derivative = derivative

    def jacobian(self, xy: np.ndarray) -> np.ndarray:
        return np.array([self.derivative(x) for x, _ in xy], dtype=float)


def grid(n: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(n) - (n - 1) / 2, np.arange(n)), axis=-1).reshape(-1, 2).astype(float)


# --- what holds for all of them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", LABEL_METRICS)
def test_identical_sections_score_one_even_with_intermixed_labels(metric: Any) -> None:
    rng = np.random.default_rng(0)
    xy, labels = rng.random((300, 2)), rng.integers(0, 4, 300)
    assert metric(xy, xy, labels, labels) == 1.0


def test_identical_sections_score_one_in_the_approximation_too() -> None:
    rng = np.random.default_rng(0)
    xy, labels = rng.random((1000, 2)), rng.integers(0, 4, 1000)
    assert ot_accuracy(xy, xy, labels, labels, max_exact=100, rng=0) == 1.0


def test_identical_sections_have_no_distance_and_no_error() -> None:
    xy = np.random.default_rng(0).random((300, 2))
    assert chamfer_distance(xy, xy) == 0.0
    assert (registration_error(xy, xy) == 0.0).all()


@pytest.mark.parametrize("metric", LABEL_METRICS)
@pytest.mark.parametrize("on_a_lattice", [False, True])
def test_the_order_of_the_rows_does_not_matter_to_the_last_bit(metric: Any, on_a_lattice: bool) -> None:
    ref, src, labels_ref, labels_src = layered(200, 170)
    if on_a_lattice:  # many coinciding cells, equal distances and equally cheap plans
        ref, src = np.round(ref * 8), np.round(src * 8)
    rng = np.random.default_rng(1)
    p, q = rng.permutation(len(ref)), rng.permutation(len(src))
    assert metric(ref[p], src[q], labels_ref[p], labels_src[q]) == metric(ref, src, labels_ref, labels_src)


def test_the_order_of_the_rows_does_not_matter_to_the_approximation() -> None:
    ref, src, labels_ref, labels_src = layered(400, 350)
    p = np.random.default_rng(1).permutation(len(src))
    one = ot_accuracy(ref, src, labels_ref, labels_src, max_exact=100, rng=0)
    assert ot_accuracy(ref, src[p], labels_ref, labels_src[p], max_exact=100, rng=0) == one


@pytest.mark.parametrize("metric", GEOMETRIC)
def test_distances_do_not_depend_on_the_order_of_the_rows(metric: Any) -> None:
    ref, src, *_ = layered(200, 170)
    assert metric(ref[::-1], src[::-1]) == pytest.approx(metric(ref, src), rel=1e-12)


@pytest.mark.parametrize("metric", [ot_accuracy, nn_accuracy])
def test_label_accuracies_are_symmetric_in_the_two_sections(metric: Any) -> None:
    ref, src, labels_ref, labels_src = layered(200, 170)
    there, back = metric(ref, src, labels_ref, labels_src), metric(src, ref, labels_src, labels_ref)
    assert there == pytest.approx(back, abs=1e-12)
    assert 0.5 < there < 1


@pytest.mark.parametrize("metric", GEOMETRIC)
def test_distances_are_symmetric_in_the_two_sections(metric: Any) -> None:
    ref, src, *_ = layered(200, 170)
    assert metric(ref, src) == pytest.approx(metric(src, ref), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-14, 1e-3, 1e5])
def test_units_and_origin_change_no_score_and_scale_every_distance(scale: float) -> None:
    ref, src, labels_ref, labels_src = layered(200, 170)
    far, near = ref * scale + 7 * scale, src * scale + 7 * scale
    for metric in LABEL_METRICS:
        assert metric(far, near, labels_ref, labels_src) == pytest.approx(metric(ref, src, labels_ref, labels_src))
    for distance in GEOMETRIC:
        assert distance(far, near) == pytest.approx(scale * distance(ref, src))
    assert spacing(far) == pytest.approx(scale * spacing(ref))


def test_importing_the_metrics_loads_nothing_heavy() -> None:
    code = "import inst_align.metrics, sys; print({'torch', 'scanpy', 'sklearn', 'ot'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stderr


# --- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", LABEL_METRICS)
@pytest.mark.parametrize("missing", [np.nan, None, "", pd.NA])
def test_cells_without_a_label_are_as_if_they_were_not_there(metric: Any, missing: Any) -> None:
    ref, src, labels_ref, labels_src = layered(120, 100)
    names_ref, names_src = (np.array([f"L{v}" for v in labels], dtype=object) for labels in (labels_ref, labels_src))
    kept_ref, kept_src = np.arange(120) % 5 != 0, np.arange(100) % 3 != 0
    expected = metric(ref[kept_ref], src[kept_src], names_ref[kept_ref], names_src[kept_src])
    names_ref[~kept_ref] = missing
    names_src[~kept_src] = missing
    assert metric(ref, src, names_ref, names_src) == expected


def test_missing_labels_are_no_class_of_their_own() -> None:
    xy = [[0, 0], [1, 0], [2, 0]]
    assert nn_accuracy(xy, xy, ["a", None, "b"], ["a", None, "c"]) == 0.5
    assert ot_accuracy(xy, xy, ["a", None, "b"], ["a", None, "c"]) == 0.5


@pytest.mark.parametrize("metric", LABEL_METRICS)
def test_the_container_of_the_labels_does_not_matter(metric: Any) -> None:
    ref, src, labels_ref, labels_src = layered(120, 100)
    expected = metric(ref, src, labels_ref, labels_src)
    names = [f"L{v}" for v in labels_src]
    shuffled_index = pd.Series([f"L{v}" for v in labels_ref], index=np.arange(120)[::-1])
    assert metric(ref, src, shuffled_index, pd.Categorical(names)) == expected
    assert metric(ref, src, shuffled_index.astype("category"), np.array(names)) == expected
    assert metric(ref, src, shuffled_index.astype("string"), names) == expected
    assert metric(pd.DataFrame(ref), src.tolist(), labels_ref.astype(float), labels_src.tolist()) == expected


def test_unused_categories_and_missing_codes_of_a_categorical_are_ignored() -> None:
    labels = pd.Categorical(["a", None, "b"], categories=["z", "a", "b"])
    xy = [[0, 0], [1, 0], [2, 0]]
    assert nn_accuracy(xy, xy, labels, ["a", "b", "b"], direction="ref_to_src") == 1.0


# --- optimal transport ----------------------------------------------------------------------------------------------


def test_optimal_transport_agrees_with_a_case_solved_by_hand() -> None:
    # Reference cells at 0 and 10 weigh 1/2, source cells at 0, 1 and 10 weigh 1/3 each. On a line the best plan keeps
    # the order: 0 takes the source's 0 whole (1/3) and half of its 1 (1/6); 10 takes the other half (1/6) and the 10 (1/3).
    ref, src = [[0, 0], [10, 0]], [[0, 0], [1, 0], [10, 0]]
    assert ot_accuracy(ref, src, ["a", "b"], ["a", "b", "b"]) == pytest.approx(1 / 3 + 1 / 6 + 1 / 3)
    assert ot_accuracy(ref, src, ["a", "b"], ["b", "a", "b"]) == pytest.approx(1 / 6 + 1 / 3)


def test_the_cost_is_the_distance_and_not_its_square() -> None:
    ref, src = [[0, 0], [4, 3]], [[4, 3], [8, 0]]
    # Staying at (4, 3) costs 0 + 8 = 8, shifting both costs 5 + 5 = 10; squared it is 64 against 50.
    assert ot_accuracy(ref, src, ["a", "b"], ["b", "a"]) == 1.0


def test_optimal_transport_agrees_with_a_general_linear_program() -> None:
    ref, src, labels_ref, labels_src = layered(14, 9, seed=3)
    cost = cdist(ref, src)
    rows, columns = np.kron(np.eye(14), np.ones(9)), np.kron(np.ones(14), np.eye(9))
    marginals = np.concatenate([np.full(14, 1 / 14), np.full(9, 1 / 9)])
    plan = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=marginals).x.reshape(14, 9)
    expected = plan[labels_ref[:, None] == labels_src].sum()
    assert 0 < expected < 1
    assert ot_accuracy(ref, src, labels_ref, labels_src) == pytest.approx(expected)


def test_balanced_transport_punishes_partial_overlap_and_nearest_neighbours_do_not() -> None:
    ref, _, labels_ref, _ = layered(400, 1)
    overlap = ref[:, 1] < 0.5
    arguments = ref, ref[overlap], labels_ref, labels_ref[overlap]
    assert ot_accuracy(*arguments) < 0.6  # the half without a partner has to go somewhere
    assert nn_accuracy(*arguments, direction="src_to_ref") == 1.0


def test_disjoint_labels_score_zero() -> None:
    ref, src, labels_ref, labels_src = layered(50, 40)
    assert ot_accuracy(ref, src, labels_ref, labels_src + 100) == 0.0
    assert nn_accuracy(ref, src, labels_ref, labels_src + 100) == 0.0


@pytest.mark.parametrize("sizes", [(1500, 1300), (1500, 250), (250, 1501)])
def test_the_approximation_is_within_two_percent_of_the_exact_value(sizes: tuple[int, int]) -> None:
    ref, src, labels_ref, labels_src = layered(*sizes)
    exact = ot_accuracy(ref, src, labels_ref, labels_src)
    for seed in range(2):
        close = ot_accuracy(ref, src, labels_ref, labels_src, max_exact=300, rng=seed)
        assert close == pytest.approx(exact, abs=0.02)


def test_the_approximation_holds_where_cell_types_are_intermixed() -> None:
    rng = np.random.default_rng(5)
    ref, src = rng.random((1400, 2)), rng.random((1400, 2))
    types_ref, types_src = rng.integers(0, 3, 1400), rng.integers(0, 3, 1400)
    exact = ot_accuracy(ref, src, types_ref, types_src)
    assert ot_accuracy(ref, src, types_ref, types_src, max_exact=300, rng=0) == pytest.approx(exact, abs=0.03)


def test_the_approximation_moves_all_mass_at_nearly_the_least_cost() -> None:
    from inst_align.metrics._labels import _transport_plan

    ref, src, *_ = layered(900, 700)
    plans = [_transport_plan(ref, src, max_exact=size, rng=np.random.default_rng(0)) for size in (900, 200)]
    costs = []
    for i, j, mass in plans:
        np.testing.assert_array_equal(np.bincount(i, mass), np.full(900, 7))
        np.testing.assert_array_equal(np.bincount(j, mass), np.full(700, 9))
        costs.append((mass * np.linalg.norm(ref[i] - src[j], axis=1)).sum())
    assert costs[0] <= costs[1] < 1.05 * costs[0]


@pytest.mark.parametrize("max_exact", [1, 2, 7])
def test_the_approximation_works_down_to_a_single_patch(max_exact: int) -> None:
    ref, src, labels_ref, labels_src = layered(41, 17)
    assert 0 <= ot_accuracy(ref, src, labels_ref, labels_src, max_exact=max_exact, rng=0) <= 1
    assert ot_accuracy(ref, src, [1] * 41, [1] * 17, max_exact=max_exact, rng=0) == 1.0


def test_coinciding_cells_can_be_transported() -> None:
    ref, src = np.zeros((30, 2)), np.zeros((20, 2))
    assert ot_accuracy(ref, src, ["a"] * 30, ["a"] * 20) == 1.0
    assert ot_accuracy(ref, src, ["a"] * 30, ["a"] * 20, max_exact=5, rng=0) == 1.0


def test_the_same_seed_gives_the_same_bits_and_leaves_global_randomness_alone() -> None:
    ref, src, labels_ref, labels_src = layered(500, 450)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    values = [
        ot_accuracy(ref, src, labels_ref, labels_src, max_exact=100, rng=rng) for rng in (3, np.random.default_rng(3))
    ]
    assert values[0] == values[1]
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_a_solver_that_gives_up_is_an_error_and_not_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ot.emd

    def impatient(*args: Any, **kwargs: Any) -> Any:
        return real(*args, **{**kwargs, "numItermax": 2})

    monkeypatch.setattr(ot, "emd", impatient)
    ref, src, labels_ref, labels_src = layered(100, 90)
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="did not converge"):
        ot_accuracy(ref, src, labels_ref, labels_src)


# --- nearest neighbours ---------------------------------------------------------------------------------------------


def test_the_two_directions_of_nearest_neighbours_differ_and_both_is_their_mean() -> None:
    ref, src = [[0, 0], [9, 0], [10, 0], [11, 0]], [[1, 0], [2, 0]]
    arguments = ref, src, ["a", "b", "b", "a"], ["a", "b"]
    assert nn_accuracy(*arguments, direction="src_to_ref") == 0.5
    assert nn_accuracy(*arguments, direction="ref_to_src") == 0.75
    assert nn_accuracy(*arguments) == nn_accuracy(*arguments, direction="both") == 0.625


def test_labels_are_transferred_by_majority_and_ties_go_to_the_nearer_cell() -> None:
    ref, labels_ref = [[0, 0], [1, 0], [2, 0], [10, 0], [11, 0], [12, 0]], ["z", "b", "b", "c", "c", "c"]
    src, labels_src = [[-1, 0], [1.5, 0], [11, 0]], ["b", "b", "c"]
    assert label_transfer_ari(ref, src, labels_ref, labels_src, n_neighbors=3) == 1.0
    assert label_transfer_ari(ref, src, labels_ref, labels_src, n_neighbors=1) < 1.0
    tied = label_transfer_ari(ref, src, labels_ref, labels_src, n_neighbors=2)
    assert tied == label_transfer_ari(ref, src, labels_ref, labels_src, n_neighbors=1)


def test_the_rand_index_compares_groupings_and_is_zero_by_chance() -> None:
    ref, src, labels_ref, labels_src = layered(800, 800)
    assert label_transfer_ari(ref, ref, labels_ref, labels_ref + 10) == 1.0
    shuffled = np.random.default_rng(0).permutation(labels_src)
    assert abs(label_transfer_ari(ref, src, labels_ref, shuffled)) < 0.02


# --- distances ------------------------------------------------------------------------------------------------------


def test_the_chamfer_distance_agrees_with_a_case_solved_by_hand() -> None:
    ref, src = [[0, 0], [4, 0]], [[1, 0]]
    assert chamfer_distance(ref, src) == ((1 + 3) / 2 + 1) / 2
    assert chamfer_distance(ref, src, squared=True) == ((1 + 9) / 2 + 1) / 2


@pytest.mark.parametrize("extent", [(1, 1), (3, 500)])
def test_independent_uniform_samples_reach_the_chamfer_floor_within_five_percent(extent: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    scale = np.sqrt(extent)  # 3:500 is the strip that the edge effect is worst in
    ref, src = rng.random((9000, 2)) * scale, rng.random((6000, 2)) * scale
    floor = chamfer_floor(ref, src)
    assert chamfer_distance(ref, src) == pytest.approx(floor, rel=0.05)
    area = scale.prod()
    assert floor == pytest.approx((0.5 * np.sqrt(area / 9000) + 0.5 * np.sqrt(area / 6000)) / 2, rel=0.05)


def test_the_floor_follows_a_density_that_varies_over_the_tissue() -> None:
    rng = np.random.default_rng(0)
    ref, src = rng.random((2, 4000, 2))
    for xy in (ref, src):
        xy[:2000, 0] *= 0.05
    assert chamfer_distance(ref, src) == pytest.approx(chamfer_floor(ref, src), rel=0.05)


def test_a_collapse_is_seen_below_the_floor_and_a_wrong_pose_above_it() -> None:
    rng = np.random.default_rng(0)
    ref, src = rng.random((2, 1000, 2))
    floor = chamfer_floor(ref, src)
    assert chamfer_distance(ref, ref[rng.integers(0, 1000, 1000)]) < 0.5 * floor
    assert chamfer_distance(ref, src + 0.3) > 2 * floor


def test_a_lattice_is_not_a_poisson_sample() -> None:
    spots = grid(40)
    assert chamfer_distance(spots, spots) == 0.0
    # The mean distance of a random point to the nearest corner of a unit square lattice is 0.3826.
    offsets = np.random.default_rng(0).random((100, 2))
    mean = np.mean([chamfer_distance(spots, spots + offset) for offset in offsets])
    assert mean == pytest.approx(0.3826, rel=0.08)
    assert chamfer_floor(spots, spots) > 1.15 * mean


def test_coinciding_cells_count_once_for_spacing_and_floor() -> None:
    spots = grid(12)
    assert spacing(np.repeat(spots, 3, axis=0)) == spacing(spots) == 1.0
    assert chamfer_floor(np.repeat(spots, 3, axis=0), spots) == chamfer_floor(spots, spots)


def test_two_positions_are_enough_for_spacing_and_floor() -> None:
    assert spacing([[0, 0], [3, 4]]) == 5.0
    assert chamfer_floor([[0, 0], [3, 4]], [[0, 0], [3, 4]]) == pytest.approx(5.0)


def test_the_registration_error_is_one_distance_a_cell_in_the_unit_asked_for() -> None:
    truth = np.zeros((3, 2))
    found = np.array([[3.0, 4.0], [0.0, 0.0], [-6.0, 8.0]])
    np.testing.assert_array_equal(registration_error(found, truth), [5, 0, 10])
    np.testing.assert_array_equal(registration_error(found, truth, unit=2.5), [2, 0, 4])


# --- folds ----------------------------------------------------------------------------------------------------------


def test_identity_and_mirror_have_no_folds() -> None:
    assert fold_fraction(Map(lambda x: np.eye(2)), grid(6)) == 0.0
    assert fold_fraction(Map(lambda x: np.diag([-1, 1])), grid(6)) == 0.0


@pytest.mark.parametrize("mirror", [1, -1])
def test_a_section_folded_in_half_has_half_its_points_folded(mirror: int) -> None:
    fold = Map(lambda x: np.diag([np.sign(x), mirror]))
    assert fold_fraction(fold, grid(6)) == 0.5


@pytest.mark.parametrize("mirror", [1, -1])
def test_the_folded_part_is_the_smaller_one_and_flattened_points_count(mirror: int) -> None:
    xy = [[x, 0.0] for x in (-1, 0, 1, 2, 3, 4, 5, 6)]
    assert fold_fraction(Map(lambda x: np.diag([np.sign(x), mirror])), xy) == 0.25
    assert fold_fraction(Map(lambda x: np.zeros((2, 2))), xy) == 1.0


# --- bad input ------------------------------------------------------------------------------------------------------

GOOD = np.arange(12.0).reshape(6, 2)
HOLED = np.where(np.arange(12).reshape(6, 2) == 5, np.nan, GOOD)
NAMES = list("aabbcc")


@pytest.mark.parametrize("metric", [*LABEL_METRICS, *GEOMETRIC])
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (HOLED, "NaN or infinite coordinates in 1 of 6 rows"),
        (np.where(np.isnan(HOLED), np.inf, GOOD), "NaN or infinite coordinates in 1 of 6 rows"),
        (np.ones((6, 3)), "shape (6, 3)"),
        (np.ones(6), "shape (6,)"),
        (np.ones((0, 2)), "shape (0, 2)"),
        ([["x", "y"]] * 6, "must hold numbers"),
        (None, "`"),
    ],
)
@pytest.mark.parametrize("side", ["ref", "src"])
def test_bad_coordinates_are_named(metric: Any, bad: Any, words: str, side: str) -> None:
    pair = [bad, GOOD] if side == "ref" else [GOOD, bad]
    labels = [NAMES, NAMES] if metric in LABEL_METRICS else []
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        metric(*pair, *labels)
    assert f"`xy_{side}`" in str(caught.value)


@pytest.mark.parametrize("metric", LABEL_METRICS)
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (NAMES[:5], "shape (5,)"),
        ([NAMES] * 2, "shape (2, 6)"),
        ("a", "shape ()"),
        ([None] * 6, "holds no label: all 6"),
        (["", np.nan, None] * 2, "holds no label: all 6"),
        ([1, 1, 2, 2, 3, None], "numbers: convert one"),
        ([1.5] * 6, "numbers: convert one"),
        ([True] * 6, "numbers: convert one"),
        (pd.Categorical([1, 2, 3] * 2), "numbers: convert one"),
    ],
)
@pytest.mark.parametrize("side", ["ref", "src"])
def test_bad_labels_are_named(metric: Any, bad: Any, words: str, side: str) -> None:
    labels = [bad, NAMES] if side == "ref" else [NAMES, bad]
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        metric(GOOD, GOOD, *labels)
    assert f"`labels_{side}`" in str(caught.value)


def test_labels_of_mixed_kinds_on_one_side_are_compared_as_they_are() -> None:
    xy = [[0, 0], [1, 0]]
    assert nn_accuracy(xy, xy, ["1", 1], ["1", "1"], direction="src_to_ref") == 0.5
    assert nn_accuracy(xy, xy, [1, 2], [1.0, 2.0]) == 1.0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ot_accuracy(GOOD, GOOD, NAMES, NAMES, max_exact=0), ValueError, "`max_exact`"),
        (lambda: ot_accuracy(GOOD, GOOD, NAMES, NAMES, rng="seed"), TypeError, "`rng='seed'`"),
        (lambda: nn_accuracy(GOOD, GOOD, NAMES, NAMES, direction="up"), ValueError, "`direction` .* 'up'"),
        (lambda: label_transfer_ari(GOOD, GOOD, NAMES, NAMES, n_neighbors=0), ValueError, "`n_neighbors`"),
        (lambda: label_transfer_ari(GOOD, GOOD, NAMES, NAMES, n_neighbors=7), ValueError, "1 to 6.* 7"),
        (lambda: registration_error(GOOD, GOOD[:5]), ValueError, "`xy_true` has 5 rows"),
        (lambda: registration_error(GOOD, HOLED), ValueError, "`xy_true` has NaN"),
        (lambda: registration_error(GOOD, GOOD, unit=0.0), ValueError, "`unit`"),
        (lambda: registration_error(GOOD, GOOD, unit=np.nan), ValueError, "`unit`"),
        (lambda: spacing([[1, 1], [1, 1]]), ValueError, "`xy` needs at least 2 distinct positions"),
        (lambda: chamfer_floor(GOOD, [[1, 1]]), ValueError, "`xy_src` needs at least 2 distinct positions"),
        (lambda: fold_fraction(np.eye(3), GOOD), TypeError, "`transform` is a ndarray"),
        (lambda: fold_fraction(Map(lambda x: np.eye(2)), HOLED), ValueError, "`xy` has NaN"),
        (lambda: fold_fraction(Map(lambda x: np.full((2, 2), np.nan)), GOOD), ValueError, "at 6 of 6 points"),
    ],
)
def test_a_bad_argument_gets_one_sentence_that_names_it(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
