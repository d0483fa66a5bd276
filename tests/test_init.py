"""Where a non-rigid fit starts: at any matrix, or at coordinates that another tool has laid over the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from anndata import AnnData

import inst_align as ia
from inst_align._anndata import read_pair
from inst_align._coordinates import coordinates_of
from inst_align.tl._init import Start, read_init

if TYPE_CHECKING:
    from inst_align.core.prepared import PairConfig

Pair = tuple[AnnData, AnnData]
POSE = ia.transforms.Affine.from_rigid(0.5, (100.0, -20.0))
BUMP = ia.transforms.Displacement(np.pad(np.ones((2, 3, 3)), ((0, 0), (3, 3), (3, 3))), (0.0, 0.0), 10.0)


def start(init: Any, pair: Pair, *, allow_reflection: bool = False, searched: bool = False) -> Start:
    read = read_pair(*pair)
    return read_init(init, pair[1], read, allow_reflection=allow_reflection, searched=searched)


class Foreign:
    """A transform of another package."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix


class Named:
    """A transform of SpatialData, whose axes have names."""

    def to_affine_matrix(self, input_axes: tuple[str, ...], output_axes: tuple[str, ...]) -> np.ndarray:
        assert (input_axes, output_axes) == (("x", "y"), ("x", "y"))
        return POSE.matrix


FORMS = {
    "array": POSE.matrix,
    "lists": POSE.matrix.tolist(),
    "Affine": POSE,
    "a composition of affine maps": ia.transforms.Compose((POSE,)),
    "another package's": Foreign(POSE.matrix),
    "SpatialData's": Named(),
}


def test_the_doubts_about_a_recorded_pose_are_handed_on(pair: Pair) -> None:
    ref, src = pair
    xy = [np.asarray(section.obsm["spatial"], dtype=np.float64) for section in pair]
    src.uns["inst_align"] = {
        "spatial_rigid": {
            "version": 1,
            "role": "source",
            "transform": ia.transforms.to_dict(POSE),
            "coordinates": coordinates_of(*xy),
            "report": {"pose_method": "fft", "pose_ambiguous": True, "pose_score": 0.5, "verdict": "ambiguous pose"},
        }
    }
    assert start("auto", pair).report == {"pose_method": "recorded", "pose_ambiguous": True, "pose_score": 0.5}


@pytest.mark.parametrize("form", FORMS)
def test_a_pose_may_come_in_any_form_that_is_a_matrix(pair: Pair, form: str) -> None:
    found = start(FORMS[form], pair)
    assert found.pose == POSE
    assert found.report == {}


def test_a_transform_of_spatialdata_is_read_by_the_names_of_its_axes(pair: Pair) -> None:
    transformations = pytest.importorskip("spatialdata.transformations")
    swapped = POSE.matrix[[1, 0, 2]][:, [1, 0, 2]]
    init = transformations.Affine(swapped, input_axes=("y", "x"), output_axes=("y", "x"))
    assert start(init, pair).pose == POSE


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "a displacement": (BUMP, TypeError, r"non-rigid transform \(Displacement\)"),
    "a bent map": (ia.transforms.Compose((POSE, BUMP)), TypeError, r"\(Affine and Displacement\).*pass \"auto\""),
    "another shape": (np.eye(2), ValueError, r"shape \(3, 3\)"),
    "a number": (3.5, ValueError, "shape"),
    "nothing that can be undone": (np.diag([1.0, 0.0, 1.0]), ValueError, "cannot be inverted"),
    "an unknown word": ("best", KeyError, "no key of `obsm` of the source, which has .*spatial"),
    "far away": (np.array([[1.0, 0, 1e200], [0, 1, 0], [0, 0, 1]]), ValueError, r"takes the source to \(1e\+200"),
    "a mirror image": (np.diag([-1.0, 1.0, 1.0]), ValueError, "turns the source over.*allow_reflection=True"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_pose_is_refused_with_what_is_accepted(pair: Pair, bad: str) -> None:
    init, error, words = BAD[bad]
    with pytest.raises(error, match=f"`init.*{words}"):
        start(init, pair)


def test_a_mirror_image_may_be_given_where_it_is_allowed(pair: Pair) -> None:
    found = start(np.diag([-1.0, 1.0, 1.0]), pair, allow_reflection=True).pose
    assert found is not None
    assert found.is_reflection


def test_a_recorded_pose_is_not_taken_when_there_are_landmarks_to_search_with(
    pair: Pair, true_pose: np.ndarray
) -> None:
    from inst_align._anndata import write_alignment
    from inst_align.core.alignment import Alignment

    pose = ia.transforms.Affine(true_pose)
    write_alignment(
        *pair,
        key_added="spatial_rigid",
        spatial_key="spatial",
        params={},
        alignment=Alignment(affine=pose, transform=pose, report={}),
        xy_aligned=pose(pair[1].obsm["spatial"]),
    )
    assert start("auto", pair) == Start(pose=pose, report={"pose_method": "recorded"})
    assert start("auto", pair, searched=True).pose is None
    assert start("search", pair).pose is None


# Coordinates of another tool


def laid(pair: Pair, xy: np.ndarray) -> Pair:
    pair[1].obsm["other_tool"] = xy
    return pair


def test_coordinates_that_were_moved_rigidly_give_that_map(pair: Pair) -> None:
    found = start("other_tool", laid(pair, POSE(pair[1].obsm["spatial"])))
    assert found.pose is not None
    np.testing.assert_allclose(found.pose.matrix, POSE.matrix, atol=1e-9)
    assert found.report["pose_method"] == "prealigned"
    assert found.report["init_residual_median"] == pytest.approx(0, abs=1e-9)
    assert found.report["init_scale"] == pytest.approx(1)


def test_coordinates_that_were_bent_give_the_rigid_part_and_a_warning(pair: Pair) -> None:
    ref, src = pair
    bent = src.obsm["spatial_true"]
    with pytest.warns(UserWarning, match=r"`init='other_tool'`: a rotation and a shift bring .* only to within"):
        found = start("other_tool", laid(pair, bent))
    assert found.pose is not None
    left = np.linalg.norm(found.pose(src.obsm["spatial"]) - bent, axis=1) / ia.metrics.spacing(ref.obsm["spatial"])
    assert found.report["init_residual_median"] == pytest.approx(np.median(left))
    assert found.report["init_residual_max"] == pytest.approx(left.max())
    assert found.pose.scale == pytest.approx(1)


def test_coordinates_that_were_scaled_keep_their_size_and_say_so(pair: Pair) -> None:
    with pytest.warns(UserWarning, match="which is 1.5 times as large"):
        found = start("other_tool", laid(pair, 1.5 * pair[1].obsm["spatial"]))
    assert found.pose is not None
    assert found.pose.scale == pytest.approx(1)
    assert found.report["init_scale"] == pytest.approx(1.5)


def test_coordinates_that_were_mirrored_need_leave(pair: Pair) -> None:
    laid(pair, pair[1].obsm["spatial"] * [-1, 1])
    with pytest.raises(ValueError, match=r"`init='other_tool'`.*mirror image.*allow_reflection=True"):
        start("other_tool", pair)
    found = start("other_tool", pair, allow_reflection=True).pose
    assert found is not None
    np.testing.assert_allclose(found.matrix, np.diag([-1.0, 1.0, 1.0]), atol=1e-6)


def test_coordinates_that_cannot_be_used_are_named(pair: Pair) -> None:
    bad = pair[1].obsm["spatial"].copy()
    bad[3] = np.nan
    with pytest.raises(ValueError, match="'other_tool'.*NaN or infinite in 1 of 500 cells"):
        start("other_tool", laid(pair, bad))


def test_an_alignment_that_starts_there_says_so(pair: Pair, tiny: PairConfig, true_pose: np.ndarray) -> None:
    ref, src = laid(pair, ia.transforms.Affine(true_pose)(pair[1].obsm["spatial"]))
    ia.tl.align_pair(ref, src, init="other_tool", field=False, config=tiny, rng=0, device="cpu", progress=False)
    report = ia.get.report(src)
    assert (report["pose_method"], ia.get.params(src)["init"]) == ("prealigned", "other_tool")
    assert report["init_residual_max"] < 1e-6
    np.testing.assert_allclose(ia.get.transform(src).parts[0].matrix, true_pose, atol=1e-6)
