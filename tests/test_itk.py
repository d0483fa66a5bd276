"""A displacement field for ITK moves points and images to where the map does, in SimpleITK and in nibabel."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import inst_align as ia
from inst_align.core.transforms import Affine, Displacement, FoldError, Transform

if TYPE_CHECKING:
    from pathlib import Path

sitk = pytest.importorskip("SimpleITK")

SUFFIXES = (".nrrd", ".nii.gz", ".nii")
TOLERANCE = 0.02
"""Where nodes of the map are 10 apart: what linear interpolation and NIfTI's single precision may cost."""


def bent() -> Displacement:
    """A swirl over a grid that is not square, 18 units at most, in the reference's frame."""
    y, x = np.mgrid[:41, :61] / 10.0
    window = np.sin(np.pi * x / 6) ** 2 * np.sin(np.pi * y / 4) ** 2
    return Displacement(np.stack([18 * window * np.sin(y), -15 * window * np.cos(x)]), (900, -250), 10)


def fitted(mirror: bool = False) -> Transform:
    """From a source at (5000, 800) or so, turned by 40 degrees, to a reference around (1200, -50)."""
    turn = Affine.from_rigid(np.deg2rad(40), (0, 0), mirror=mirror)
    shift = np.array([1200, -50]) - turn([[5000, 800]])[0]
    return bent() @ Affine.from_rigid(0, shift) @ turn


def cells(n: int = 200) -> np.ndarray:
    """Points of the reference within the tissue, off the nodes."""
    low, high = bent().bounds
    return np.random.default_rng(0).uniform(low + 20, high - 20, (n, 2))


def field(path: Path) -> Any:
    return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))


def moved_by_itk(path: Path, xy: np.ndarray) -> np.ndarray:
    transform = field(path)
    return np.array([transform.TransformPoint(point) for point in xy.tolist()])


def moved_by_nibabel(path: Path, xy: np.ndarray) -> np.ndarray:
    """Add the vector found at each point by linear interpolation; nodes lie at minus what the header says."""
    nibabel = pytest.importorskip("nibabel")
    from scipy.ndimage import map_coordinates

    file = nibabel.load(path)
    assert file.header.get_intent()[0] == "vector"
    assert file.shape[2:] == (1, 1, 2)
    vectors = file.get_fdata()[:, :, 0, 0]
    placement = -file.affine[:2][:, [0, 1, 3]]
    index = (xy - placement[:, 2]) @ np.linalg.inv(placement[:, :2]).T
    return xy + np.stack([map_coordinates(vectors[..., k], index.T, order=1) for k in (0, 1)], axis=1)


# --- points -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mirror", [False, True])
def test_points_of_the_source_go_where_the_map_takes_them(tmp_path: Path, suffix: str, mirror: bool) -> None:
    transform = fitted(mirror)
    path = tmp_path / f"map{suffix}"
    ia.transforms.to_itk(transform, path, direction="src_to_ref")
    xy = transform.inverse()(cells())
    assert np.linalg.norm(transform(xy) - xy, axis=1).min() > 1000
    assert np.linalg.norm(transform(xy) - transform.parts[0](xy), axis=1).max() > 15
    np.testing.assert_allclose(moved_by_itk(path, xy), transform(xy), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_points_of_the_reference_go_back_the_other_way(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"map{suffix}"
    ia.transforms.to_itk(fitted(), path, direction="ref_to_src")
    np.testing.assert_allclose(moved_by_itk(path, cells()), fitted().inverse()(cells()), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("direction", ["src_to_ref", "ref_to_src"])
def test_nibabel_finds_the_same_vectors_at_the_same_places(tmp_path: Path, direction: Any) -> None:
    ia.transforms.to_itk(fitted(), tmp_path / "map.nii.gz", direction=direction)
    move = fitted() if direction == "src_to_ref" else fitted().inverse()
    xy = cells() if direction == "ref_to_src" else fitted().inverse()(cells())
    np.testing.assert_allclose(moved_by_nibabel(tmp_path / "map.nii.gz", xy), move(xy), rtol=0, atol=TOLERANCE)


def test_a_finer_field_is_closer_by_the_square(tmp_path: Path) -> None:
    errors = []
    for spacing in (10, 5, 2.5):
        path = tmp_path / f"{spacing}.nrrd"
        ia.transforms.to_itk(bent(), path, direction="src_to_ref", spacing=spacing)
        errors.append(np.abs(moved_by_itk(path, cells()) - bent()(cells())).max())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.3)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.3)


def test_the_field_covers_the_grid_of_the_map_unless_told_otherwise(tmp_path: Path) -> None:
    ia.transforms.to_itk(bent(), tmp_path / "own.nrrd", direction="src_to_ref")
    own = sitk.ReadImage(str(tmp_path / "own.nrrd"))
    assert own.GetOrigin() == (900, -250)
    assert own.GetSpacing() == (5, 5)
    assert own.GetSize() == (121, 81)
    box = [[1000, -200], [1100, -170]]
    ia.transforms.to_itk(bent(), tmp_path / "part.nrrd", direction="src_to_ref", bounds=box, spacing=20)
    part = sitk.ReadImage(str(tmp_path / "part.nrrd"))
    assert (part.GetOrigin(), part.GetSpacing(), part.GetSize()) == ((1000, -200), (20, 20), (6, 3))


def test_the_field_of_an_affine_map_is_exact_within_its_bounds_and_nothing_beyond(tmp_path: Path) -> None:
    turn = Affine.from_rigid(0.4, (300, -20))
    ia.transforms.to_itk(turn, tmp_path / "map.nrrd", direction="src_to_ref", bounds=[[0, 0], [90, 50]], spacing=10)
    inner, outer = np.array([[3.0, 7.0], [89.0, 49.0]]), np.array([[-20.0, 0.0], [95.0, 61.0]])
    np.testing.assert_allclose(moved_by_itk(tmp_path / "map.nrrd", inner), turn(inner), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(moved_by_itk(tmp_path / "map.nrrd", outer), outer)


# --- images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_image_of_the_source_is_resampled_onto_the_reference(tmp_path: Path, suffix: str) -> None:
    """A blob around a source point is found where the map takes that point, on a grid of the reference."""
    transform = fitted()
    target = np.array([[1085.0, -95.0], [1330.0, 40.0]])
    centres = transform.inverse()(target)
    low = centres.min(axis=0) - 60
    pixel = 2.0
    columns, rows = np.ceil((centres.max(axis=0) + 60 - low) / pixel).astype(int)
    x, y = np.meshgrid(low[0] + pixel * np.arange(columns), low[1] + pixel * np.arange(rows))
    blobs = [np.exp(-0.5 * ((x - a) ** 2 + (y - b) ** 2) / 6**2) for a, b in centres]
    moving = sitk.GetImageFromArray(blobs[0] + 3 * blobs[1])
    moving.SetOrigin(low.tolist())
    moving.SetSpacing((pixel, pixel))

    path = tmp_path / f"warp{suffix}"
    ia.transforms.to_itk(transform, path, direction="ref_to_src")
    fixed = sitk.Image(600, 400, sitk.sitkFloat64)
    fixed.SetOrigin((900.0, -250.0))
    warped = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, field(path), sitk.sitkLinear, 0.0))

    assert warped.shape == (400, 600)
    for (x0, y0), height in zip(target, (1, 3), strict=True):
        row, column = int(y0 + 250) - 25, int(x0 - 900) - 25
        part = warped[row : row + 51, column : column + 51]
        found_y, found_x = np.unravel_index(part.argmax(), part.shape)
        assert part.max() == pytest.approx(height, rel=0.05)
        assert np.hypot(found_x + column + 900 - x0, found_y + row - 250 - y0) < 1.5


def test_the_direction_for_points_puts_an_image_elsewhere(tmp_path: Path) -> None:
    """What the test above would be worth if both directions passed it: nothing."""
    ia.transforms.to_itk(fitted(), tmp_path / "points.nrrd", direction="src_to_ref")
    assert np.abs(moved_by_itk(tmp_path / "points.nrrd", cells()) - fitted().inverse()(cells())).min() > 100


# --- files and refusals -----------------------------------------------------------------------------------------


def test_a_file_is_replaced_only_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "map.nrrd"
    path.write_text("x")
    with pytest.raises(FileExistsError, match="is there already; pass `overwrite=True`"):
        ia.transforms.to_itk(bent(), path, direction="src_to_ref")
    assert path.read_text() == "x"
    ia.transforms.to_itk(bent(), path, direction="src_to_ref", overwrite=True)
    assert sitk.ReadImage(str(path)).GetSize() == (121, 81)
    assert [each.name for each in tmp_path.iterdir()] == ["map.nrrd"]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("map.tif", ValueError, "does not end in .nrrd, .nii.gz, .nii"),
        ("map", ValueError, "does not end in"),
        ("none/map.nrrd", FileNotFoundError, "there is no folder"),
        ("folder.nrrd", FileExistsError, "is a folder"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, name: str, error: Any, message: str) -> None:
    (tmp_path / "folder.nrrd").mkdir()
    with pytest.raises(error, match=f"`path`: .*{message}"):
        ia.transforms.to_itk(bent(), tmp_path / name, direction="src_to_ref")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "forward"}, "`direction='forward'` is not known; pass 'src_to_ref'"),
        ({"spacing": 0}, "`spacing=0.0` must be positive"),
        ({"spacing": "fine"}, "`spacing` must hold real numbers"),
        ({"bounds": [[0, 0], [0, 5]]}, "`bounds` must be the lowest"),
        ({"bounds": [0, 0, 5, 5]}, r"`bounds` must have shape \(2, 2\)"),
    ],
)
def test_a_wrong_argument_is_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ia.transforms.to_itk(bent(), tmp_path / "map.nrrd", **{"direction": "src_to_ref", **options})
    assert not any(tmp_path.iterdir())


def test_the_direction_has_to_be_said(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="direction"):
        ia.transforms.to_itk(bent(), tmp_path / "map.nrrd")


def test_an_affine_map_has_no_grid_of_its_own(tmp_path: Path) -> None:
    for options in ({}, {"bounds": [[0, 0], [1, 1]]}, {"spacing": 1}):
        with pytest.raises(ValueError, match="is affine and has no grid of its own; pass `bounds` and `spacing`"):
            ia.transforms.to_itk(Affine(np.eye(3)), tmp_path / "map.nrrd", direction="src_to_ref", **options)


def test_what_is_no_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="`transform` is a numpy.ndarray; pass a map"):
        ia.transforms.to_itk(np.eye(3), tmp_path / "map.nrrd", direction="src_to_ref")


def test_a_map_that_folds_has_no_other_direction(tmp_path: Path) -> None:
    vectors = np.zeros((2, 7, 7))
    vectors[0, 3, 3], vectors[0, 3, 4] = 9, -9
    with pytest.raises(FoldError):
        ia.transforms.to_itk(Displacement(vectors, (0, 0), 5), tmp_path / "map.nrrd", direction="ref_to_src")
    assert not any(tmp_path.iterdir())


def test_a_missing_simpleitk_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        ia.transforms.to_itk(bent(), tmp_path / "map.nrrd", direction="src_to_ref")
    assert 'pip install "inst-align[itk]"' in caught.value.__notes__[0]
