"""A fit that was killed goes on where it was, to the last bit, and nothing but the same fit does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import inst_align as ia
from inst_align.core.checkpoint import MANIFEST
from inst_align.core.fourier import FieldConfig
from inst_align.core.paper_config import PaperConfig
from inst_align.core.prepared import PairConfig
from inst_align.core.registration import Level, RegistrationConfig
from inst_align.datasets import toy_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData

    Pair = tuple[AnnData, AnnData]

KEY = "spatial_aligned"

LEVELS = tuple(Level(sigma=sigma, control_spacing=2.5 * sigma + 0.3, steps=6) for sigma in (0.6, 0.5, 0.4, 0.3))
CONFIG = PairConfig(registration=RegistrationConfig(levels=LEVELS, n_pixels=40), field=FieldConfig(n_frequencies=32))
PAPER = PaperConfig(
    phase1_epochs=5,
    phase2_epochs=7,
    batch_size=128,
    field_width=16,
    field_depth=1,
    decoder_width=16,
    deformation_depth=1,
)


def sections() -> Pair:
    return toy_pair(n_cells=300, n_genes=60, rng=3)


def pose() -> np.ndarray:
    return np.linalg.inv(sections()[1].uns["toy"]["affine"])


def align(checkpoint: Any, *, pair: Pair | None = None, **changes: Any) -> AnnData:
    """Align copies of the sections, and return the source."""
    known: dict[str, Any] = {"config": CONFIG, "init": pose(), "accept": "nonrigid", "rng": 0}
    if changes.get("preset") == "paper":
        known |= {"config": PAPER, "accept": "auto"}
    arguments = known | {"device": "cpu", "progress": False, "checkpoint": checkpoint} | changes
    found = ia.tl.align_pair(*(pair or sections()), copy=True, **arguments)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def straight() -> AnnData:
    """The source after a fit that nothing interrupted."""
    return align(None)


def assert_same_tree(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_tree(one[key], other[key])
    else:
        np.testing.assert_array_equal(one, other)


def assert_same(one: AnnData, other: AnnData) -> None:
    np.testing.assert_array_equal(one.obsm[KEY], other.obsm[KEY])
    assert_same_tree(one.uns["inst_align"][KEY], other.uns["inst_align"][KEY])


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Return a function that makes a later fit stop after a step; what was resumed counts."""
    from tqdm.auto import tqdm

    update = tqdm.update

    def at(step: int | None) -> None:
        def counted(bar: Any, n: float = 1) -> None:
            steps[0] += 1
            if steps[0] == step:
                raise KeyboardInterrupt

        steps = [0]
        monkeypatch.setattr("tqdm.auto.tqdm.update", update if step is None else counted)

    return at


def test_interrupted_again_and_again_a_fit_ends_with_the_same_bits(
    tmp_path: Path, straight: AnnData, interrupt_at: Callable[[int | None], None]
) -> None:
    for step in (2, 7, 12, 16, 23, 24):
        interrupt_at(step)
        with pytest.raises(KeyboardInterrupt):
            align(tmp_path)
    interrupt_at(None)
    assert_same(align(tmp_path), straight)


@pytest.mark.usefixtures("coarse_search")
def test_the_search_and_the_trial_are_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    searching: dict[str, Any] = {"init": "search", "accept": "auto", "field": False}
    with monkeypatch.context() as patch:
        patch.setattr("inst_align.core.fit.map_report", interrupted)
        with pytest.raises(KeyboardInterrupt):
            align(tmp_path, **searching)
    wanted = align(None, **searching)
    monkeypatch.setattr("inst_align.core.fit.find_pose", interrupted)
    monkeypatch.setattr("inst_align.core.fit.judge", interrupted)
    assert_same(align(tmp_path, **searching), wanted)


def test_the_published_preset_resumes_too(tmp_path: Path, interrupt_at: Callable[[int | None], None]) -> None:
    wanted = align(None, preset="paper")
    for step in (3, 10):
        interrupt_at(step)
        with pytest.raises(KeyboardInterrupt):
            align(tmp_path, preset="paper")
    interrupt_at(None)
    assert_same(align(tmp_path, preset="paper"), wanted)


def test_the_same_call_on_a_folder_that_is_done_finds_its_outcome_again(
    tmp_path: Path, straight: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_same(align(tmp_path), straight)

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("inst_align.core.registration._Problem.descend", forbidden)
    assert_same(align(tmp_path), straight)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        MANIFEST,
        "pose.npz",
        "registration.npz",
        "trial.npz",
    ]


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the state of a fit that was interrupted."""
    from unittest import mock

    folder = tmp_path_factory.mktemp("half")
    with mock.patch("inst_align.core.fit.fit_field", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        align(folder)
    return folder


def other(what: str) -> Pair:
    ref, src = sections()
    if what == "a cell elsewhere":
        src.obsm["spatial"][7] += 1e-9
    if what == "a count more":
        ref.X[5, 5] += 1
    if what == "cells in another order":
        src = src[::-1].copy()
    return ref, src


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
@pytest.mark.parametrize(
    ("what", "differs"),
    [
        ("a cell elsewhere", "coordinates of the source"),
        ("a count more", "expression of the reference"),
        ("cells in another order", "coordinates of the source, expression of the source"),
    ],
)
def test_other_data_is_refused_and_the_state_stays(half_done: Path, what: str, differs: str) -> None:
    before = {path.name: path.read_bytes() for path in half_done.iterdir()}
    with pytest.raises(ValueError, match=rf"is that of a fit of other data \({differs}"):
        align(half_done, pair=other(what))
    assert {path.name: path.read_bytes() for path in half_done.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"rng": 1}, "rng"),
        ({"rng": None}, "rng"),
        ({"rng": np.random.default_rng(1)}, "rng"),
        ({"accept": "auto"}, "accept"),
        ({"allow_reflection": True}, "allow_reflection"),
        ({"field": False}, "config"),
        ({"config": replace(CONFIG, n_components=7)}, "config"),
        ({"init": np.eye(3)}, "init"),
        ({"deterministic": True}, "deterministic"),
        ({"preset": "paper", "accept": "nonrigid"}, "preset, config"),
    ],
)
def test_other_parameters_are_refused_by_name(half_done: Path, changes: dict[str, Any], differs: str) -> None:
    with pytest.raises(ValueError, match=rf"is that of a fit with other parameters \({differs}\)"):
        align(half_done, **changes)


def test_landmarks_are_part_of_the_data(half_done: Path) -> None:
    truth = sections()[1]
    marks = {"landmarks_ref": truth.obsm["spatial_true"][:4], "landmarks_src": truth.obsm["spatial"][:4]}
    with pytest.raises(ValueError, match=r"is that of a fit of other data \(landmarks\)"):
        align(half_done, **marks)


def test_another_version_is_refused(half_done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ia, "__version__", "99.0")
    with pytest.raises(ValueError, match=r"is that of a fit by inst-align .* and this is 99\.0"):
        align(half_done)


def test_the_same_generator_may_go_on(half_done: Path, straight: AnnData) -> None:
    found = align(half_done, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(found.obsm[KEY], straight.obsm[KEY])


def test_a_seed_that_nobody_gave_is_drawn_once(tmp_path: Path, interrupt_at: Callable[[int | None], None]) -> None:
    interrupt_at(15)
    with pytest.raises(KeyboardInterrupt):
        align(tmp_path / "a", rng=None)
    interrupt_at(None)
    resumed = align(tmp_path / "a", rng=None)
    again = align(tmp_path / "a", rng=None)
    np.testing.assert_array_equal(resumed.obsm[KEY], again.obsm[KEY])
    assert "rng" not in ia.get.params(resumed)
    afresh = align(tmp_path / "b", rng=None)
    same, other = (ia.get.field(found).predict(resumed.obsm[KEY][:9]) for found in (again, afresh))
    np.testing.assert_array_equal(ia.get.field(resumed).predict(resumed.obsm[KEY][:9]), same)
    assert not np.array_equal(same, other)  # the map of so few genes is the same for all seeds


def test_the_form_that_the_data_is_kept_in_does_not_matter(
    tmp_path: Path, straight: AnnData, interrupt_at: Callable[[int | None], None]
) -> None:
    interrupt_at(15)
    with pytest.raises(KeyboardInterrupt):
        align(tmp_path)
    interrupt_at(None)
    ref, src = sections()
    ref.X, src.X = ref.X.toarray().astype(np.float64), src.X.tocsc()
    np.testing.assert_array_equal(align(tmp_path, pair=(ref, src)).obsm[KEY], straight.obsm[KEY])


def test_what_is_no_path_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`checkpoint` is a int; pass the name of a folder, or None\."):
        align(3)


def test_on_a_cpu_deterministic_algorithms_give_the_bits_that_there_are_without(straight: AnnData) -> None:
    found = align(None, deterministic=True)
    np.testing.assert_array_equal(found.obsm[KEY], straight.obsm[KEY])
    assert ia.get.params(found)["deterministic"] is True


@pytest.mark.gpu
def test_on_cuda_two_deterministic_runs_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    one, other = (align(None, device="cuda", deterministic=True) for _ in range(2))
    assert_same(one, other)


@pytest.mark.gpu
def test_on_cuda_two_deterministic_runs_of_the_published_preset_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    one, other = (align(None, device="cuda", deterministic=True, preset="paper") for _ in range(2))
    assert_same(one, other)


def test_a_stage_that_stops_early_warns_and_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inst_align.core.registration.strain_energy", lambda *_: float("nan"))
    message = r"part of the fit stopped early \(registration: loss not finite at step 1\), and what it had last found"
    with pytest.warns(UserWarning, match=message):
        found = align(None)
    assert ia.get.report(found)["stopped_early"] == "registration: loss not finite at step 1"
    np.testing.assert_allclose(found.obsm[KEY], ia.transforms.Affine(pose())(found.obsm["spatial"]))
    ia.pl.convergence(found)
