"""A saved map is the same map again, lies on disk as RFC-5 says, and anything else at the path is refused or left alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

import inst_align as ia
from inst_align import _transform_file
from inst_align.core.transforms import Affine, Compose, Displacement, InverseDisplacement, Transform


def grid(seed: int = 0, amplitude: float = 0.12) -> Displacement:
    """Rough, free of folds, with a non-square grid, an odd origin and a spacing without a short decimal form."""
    rng = np.random.default_rng(seed)
    spacing = 7 + rng.random()
    vectors = np.zeros((2, 9, 12))
    vectors[:, 1:-1, 1:-1] = rng.uniform(-amplitude, amplitude, (2, 7, 10)) * spacing
    return Displacement(vectors, rng.normal(0, 1e3, 2), spacing)


def affine(seed: int = 0) -> Affine:
    rng = np.random.default_rng(seed)
    turn = Affine.from_rigid(rng.uniform(-3, 3), rng.normal(0, 1e3, 2), mirror=bool(seed % 2))
    return turn @ Affine(np.diag([*rng.uniform(0.5, 2, 2), 1.0]))


KINDS: dict[str, Transform] = {
    "affine": affine(),
    "displacement": grid(),
    "fitted": grid() @ affine(),
    "inverse": grid().inverse(),
    "fitted, inverted": (grid() @ affine()).inverse(),
    "chain": grid(2) @ affine(1) @ grid(1) @ affine(0),
    "one part": Compose((affine(),)),
    "nothing moves": Displacement(np.zeros((2, 3, 4)), (0, 0), 1),
}


def around(transform: Transform, n: int = 400) -> np.ndarray:
    """Points in and around the first grid of a map, in the frame of the points that it takes."""
    from inst_align._maps import lattice

    found = lattice(transform)
    low, high = (np.zeros(2), np.full(2, 50.0)) if found is None else found.bounds
    return np.random.default_rng(1).uniform(low - 0.1 * (high - low), high + 0.1 * (high - low), (n, 2))


def text(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- round trip -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", KINDS.values(), ids=KINDS)
def test_what_is_loaded_equals_what_was_saved(tmp_path: Path, transform: Transform) -> None:
    transform.save(tmp_path / "map.zarr")
    back = ia.transforms.load(tmp_path / "map.zarr")
    assert back == transform
    assert type(back) is type(transform)
    xy = around(transform)
    np.testing.assert_array_equal(back(xy), transform(xy))
    np.testing.assert_array_equal(back.jacobian(xy), transform.jacobian(xy))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_bit_comes_back(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    transform = grid(seed) @ affine(seed)
    path = tmp_path_factory.mktemp("maps") / "map.zarr"
    transform.save(path)
    first, second = ia.transforms.load(path).parts
    assert first.matrix.tobytes() == transform.parts[0].matrix.tobytes()
    assert second.vectors.tobytes() == transform.parts[1].vectors.tobytes()
    assert second.origin.tobytes() == transform.parts[1].origin.tobytes()
    assert second.spacing.hex() == transform.parts[1].spacing.hex()


def test_what_is_loaded_is_immutable_and_needs_the_file_no_more(tmp_path: Path) -> None:
    (grid() @ affine()).save(tmp_path / "map.zarr")
    first, second = ia.transforms.load(tmp_path / "map.zarr").parts
    shutil.rmtree(tmp_path / "map.zarr")
    for array in (first.matrix, second.vectors, second.origin):
        assert not array.flags.writeable
    assert (second @ first) == grid() @ affine()


def test_a_path_may_be_a_string_and_need_not_end_in_zarr(tmp_path: Path) -> None:
    affine().save(str(tmp_path / "map"))
    assert ia.transforms.load(str(tmp_path / "map")) == affine()


# --- other programs ---------------------------------------------------------------------------------------------


def by_the_specification(path: Path, xy: np.ndarray) -> np.ndarray:
    """Move points as RFC-5 says, with plain zarr and scipy, and nothing of this package."""
    root = zarr.open_group(path, mode="r")
    scene = root.attrs["ome"]["scene"]
    (description,) = scene["coordinateTransformations"]
    systems = {system["name"]: [axis["name"] for axis in system["axes"]] for system in scene["coordinateSystems"]}
    order = ["xy".index(name) for name in systems[description["input"]["name"]]]
    moved = apply(root, description, xy[:, order])
    back = [systems[description["output"]["name"]].index(name) for name in "xy"]
    return moved[:, back]


def apply(root: zarr.Group, description: dict[str, Any], points: np.ndarray) -> np.ndarray:
    """Apply one transformation to points in the order of the axes of the file."""
    if description["type"] == "sequence":
        for part in description["transformations"]:
            points = apply(root, part, points)
        return points
    if description["type"] == "bijection":
        return apply(root, description["forward"], points)
    if description["type"] == "affine":
        matrix = np.array(description["affine"])
        return points @ matrix[:, :-1].T + matrix[:, -1]
    group = root[description["path"]]
    (image,) = group.attrs["ome"]["multiscales"]
    kinds = [axis["type"] for axis in image["coordinateSystems"][0]["axes"]]
    dataset = image["datasets"][0]
    scale, translation = dataset["coordinateTransformations"][0]["transformations"]
    vectors = np.moveaxis(group[dataset["path"]][:], kinds.index("displacement"), 0)
    index = (points - translation["translation"][1:]) / scale["scale"][1:]
    assert description["interpolation"] == "cubic"
    moved = [map_coordinates(each.astype(float), index.T, order=3, mode="mirror") for each in vectors]
    within = ((index >= 0) & (index <= np.array(vectors.shape[1:]) - 1)).all(axis=1)
    return points + np.where(within, moved, 0).T


@pytest.mark.parametrize("kind", ["affine", "displacement", "fitted", "chain", "nothing moves"])
def test_plain_zarr_and_scipy_move_points_to_the_same_place(tmp_path: Path, kind: str) -> None:
    transform = KINDS[kind]
    transform.save(tmp_path / "map.zarr")
    xy = around(transform)
    if kind not in ("affine", "nothing moves"):
        assert np.abs(transform(xy) - xy).max() > 0.3
    np.testing.assert_allclose(by_the_specification(tmp_path / "map.zarr", xy), transform(xy), rtol=0, atol=1e-6)


def smooth() -> Displacement:
    """Bends over many nodes, as fitted maps do."""
    y, x = np.mgrid[:41, :61] / 10.0
    window = np.sin(np.pi * x / 6) ** 2 * np.sin(np.pi * y / 4) ** 2
    return Displacement(np.stack([5 * window * np.sin(y), -4 * window * np.cos(x)]), (50, 20), 10)


def test_others_find_a_sampled_inverse_beside_the_exact_one(tmp_path: Path) -> None:
    forward = smooth() @ affine()
    forward.inverse().save(tmp_path / "back.zarr", frames=("reference", "source"))
    xy = around(forward.inverse())
    found = by_the_specification(tmp_path / "back.zarr", xy)
    np.testing.assert_allclose(found, forward.inverse()(xy), rtol=0, atol=1e-3 * smooth().spacing)
    assert np.abs(found - affine().inverse()(xy)).max() > 0.1 * smooth().spacing


def test_the_layout_is_that_of_ome_zarr_0_6(tmp_path: Path) -> None:
    (grid() @ affine()).save(tmp_path / "map.zarr", unit="micrometer")
    root = zarr.open_group(tmp_path / "map.zarr", mode="r")
    assert root.metadata.zarr_format == 3
    assert root.attrs["inst_align"] == {"format": "transform", "version": 1}
    ome = root.attrs["ome"]
    assert ome["version"] == "0.6"
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    assert ome["scene"]["coordinateSystems"] == [
        {"name": "source", "axes": axes},
        {"name": "reference", "axes": axes},
    ]
    (whole,) = ome["scene"]["coordinateTransformations"]
    assert (whole["type"], whole["input"], whole["output"]) == ("sequence", {"name": "source"}, {"name": "reference"})
    first, second = whole["transformations"]
    assert first["type"] == "affine" and np.shape(first["affine"]) == (2, 3)
    assert (second["type"], second["interpolation"]) == ("displacements", "cubic")
    field = root[second["path"]]
    assert second["path"].startswith("coordinateTransformations/")
    assert field.attrs["ome"]["version"] == "0.6"
    (image,) = field.attrs["ome"]["multiscales"]
    (system,) = image["coordinateSystems"]
    assert system["axes"] == [{"name": "d", "type": "displacement", "discrete": True}, *axes]
    (dataset,) = image["datasets"]
    (placement,) = dataset["coordinateTransformations"]
    assert (placement["input"], placement["output"]) == ({"path": dataset["path"]}, {"name": system["name"]})
    assert [each["type"] for each in placement["transformations"]] == ["scale", "translation"]
    array = field[dataset["path"]]
    assert array.shape == (2, 9, 12) and array.dtype == np.float32
    assert list(array.metadata.dimension_names) == ["d", "y", "x"]


def test_frames_and_units_are_written_as_they_are_named(tmp_path: Path) -> None:
    affine().save(tmp_path / "map.zarr", frames=("slide 1", "atlas"))
    scene = zarr.open_group(tmp_path / "map.zarr", mode="r").attrs["ome"]["scene"]
    assert [system["name"] for system in scene["coordinateSystems"]] == ["slide 1", "atlas"]
    assert not any("unit" in axis for system in scene["coordinateSystems"] for axis in system["axes"])
    (whole,) = scene["coordinateTransformations"]
    assert (whole["input"]["name"], whole["output"]["name"]) == ("slide 1", "atlas")


def test_nothing_in_the_file_is_pickled(tmp_path: Path) -> None:
    KINDS["chain"].save(tmp_path / "map.zarr")
    for name, content in text(tmp_path / "map.zarr").items():
        assert json.loads(content) if name.endswith("zarr.json") else content.startswith(b"\x1f\x8b")  # gzip


# --- what is refused on the way in ------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    (grid() @ affine()).save(tmp_path / "map.zarr")
    return tmp_path / "map.zarr"


def edit(path: Path, change: Any) -> None:
    metadata = json.loads((path / "zarr.json").read_text("utf-8"))
    change(metadata["attributes"])
    (path / "zarr.json").write_text(json.dumps(metadata), "utf-8")


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no '.*nowhere.zarr'; check the path\.$"):
        ia.transforms.load(tmp_path / "nowhere.zarr")


def make_anndata(path: Path) -> None:
    import anndata as ad

    with ad.settings.override(zarr_write_format=3):
        ad.AnnData(np.ones((2, 2))).write_zarr(path)


@pytest.mark.filterwarnings("ignore")  # of anndata and zarr, about formats to come
@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.mkdir(),
        lambda path: path.write_text("x"),
        lambda path: zarr.create_group(path, attributes={"ome": {"version": "0.6"}}),
        lambda path: zarr.create_group(path, attributes={"inst_align": {"format": "something else", "version": 1}}),
        lambda path: zarr.create_group(path, attributes={"inst_align": 1}),
        lambda path: zarr.create_array(path, shape=(2,), dtype="f4"),
        make_anndata,
    ],
    ids=["folder", "file", "group", "other format", "other mark", "array", "AnnData"],
)
def test_what_is_no_saved_transform_is_neither_loaded_nor_replaced(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "map.zarr"
    make(path)
    before = text(tmp_path)
    with pytest.raises(ValueError, match="is no saved transform; pass a folder"):
        ia.transforms.load(path)
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="is no saved transform, so it is not replaced"):
            affine().save(path, overwrite=overwrite)
    assert text(tmp_path) == before


def test_a_newer_version_is_told_apart_from_damage(saved: Path) -> None:
    edit(saved, lambda attributes: attributes["inst_align"].update(version=2))
    with pytest.raises(ValueError, match="format version 2, and this inst-align reads up to 1; install a newer"):
        ia.transforms.load(saved)


FIELD = Path("coordinateTransformations/displacements_0")
CHUNK = FIELD / "0/c/0/0/0"


@pytest.mark.parametrize("lost", [FIELD.parent, FIELD, FIELD / "0", FIELD / "0/c", CHUNK, FIELD / "0/zarr.json"])
def test_a_missing_part_is_reported(saved: Path, lost: Path) -> None:
    shutil.rmtree(saved / lost) if (saved / lost).is_dir() else (saved / lost).unlink()
    with pytest.raises(ValueError, match="incomplete or damaged .*; save the transform again"):
        ia.transforms.load(saved)


@pytest.mark.parametrize("left", [0, 1, 20, 0.5, -1])
def test_vectors_that_are_cut_off_are_reported(saved: Path, left: float) -> None:
    content = (saved / CHUNK).read_bytes()
    (saved / CHUNK).write_bytes(content[: int(left * len(content)) if isinstance(left, float) else left])
    with pytest.raises(ValueError, match="incomplete or damaged"):
        ia.transforms.load(saved)


def test_a_single_wrong_byte_among_the_vectors_is_noticed(saved: Path) -> None:
    content = bytearray((saved / CHUNK).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / CHUNK).write_bytes(content)
    with pytest.raises(ValueError, match="incomplete or damaged"):
        ia.transforms.load(saved)


def whole(attributes: dict[str, Any]) -> dict[str, Any]:
    return attributes["ome"]["scene"]["coordinateTransformations"][0]


@pytest.mark.parametrize(
    "change",
    [
        lambda attributes: attributes.pop("ome"),
        lambda attributes: attributes["ome"].pop("scene"),
        lambda attributes: attributes["ome"]["scene"].update(coordinateTransformations=[]),
        lambda attributes: whole(attributes).update(type="rotation"),
        lambda attributes: whole(attributes).update(transformations=3),
        lambda attributes: whole(attributes)["transformations"][0].update(affine=[[1, 0, 0]]),
        lambda attributes: whole(attributes)["transformations"][0].update(affine=[[1, 0, 0], [1, 0, 0]]),
        lambda attributes: whole(attributes)["transformations"][0].update(affine="identity"),
        lambda attributes: whole(attributes)["transformations"][1].update(path="elsewhere"),
        lambda attributes: whole(attributes)["transformations"][1].update(path="coordinateTransformations"),
    ],
)
def test_metadata_that_make_no_transform_are_reported(saved: Path, change: Any) -> None:
    edit(saved, change)
    with pytest.raises(ValueError, match="incomplete or damaged"):
        ia.transforms.load(saved)


def image(attributes: dict[str, Any]) -> dict[str, Any]:
    return attributes["ome"]["multiscales"][0]


def placement(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return image(attributes)["datasets"][0]["coordinateTransformations"][0]["transformations"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda attributes: image(attributes)["coordinateSystems"][0]["axes"].reverse(), "and not d, y, x"),
        (lambda attributes: placement(attributes)[0].update(scale=[1, 7, 8]), "7 along y and 8 along x"),
        (lambda attributes: placement(attributes)[0].update(scale=[1, -7, -7]), "must be positive"),
        (lambda attributes: placement(attributes).pop(), "not enough values"),
        (lambda attributes: image(attributes)["datasets"][0].update(path="c"), "'c'"),
        (lambda attributes: image(attributes)["datasets"][0].update(path=""), "."),
    ],
)
def test_a_field_that_lies_otherwise_is_reported(saved: Path, change: Any, message: str) -> None:
    edit(saved / FIELD, change)
    with pytest.raises(ValueError, match=f"incomplete or damaged .*{message}"):
        ia.transforms.load(saved)


# --- what is refused on the way out -----------------------------------------------------------------------------


def test_a_saved_transform_is_replaced_only_when_asked_for(saved: Path) -> None:
    with pytest.raises(FileExistsError, match="is there already; pass `overwrite=True`"):
        affine(5).save(saved)
    assert ia.transforms.load(saved) == grid() @ affine()
    affine(5).save(saved, overwrite=True)
    assert ia.transforms.load(saved) == affine(5)
    assert not (saved / "coordinateTransformations").exists()


def test_a_transform_saved_by_a_newer_version_can_be_replaced(saved: Path) -> None:
    edit(saved, lambda attributes: attributes["inst_align"].update(version=9))
    affine().save(saved, overwrite=True)
    assert ia.transforms.load(saved) == affine()


def test_the_folder_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder .*; make it first"):
        affine().save(tmp_path / "none" / "map.zarr")


@pytest.mark.parametrize("unit", ["", 3, b"um"])
def test_a_unit_is_a_name(tmp_path: Path, unit: Any) -> None:
    with pytest.raises(ValueError, match="is no unit; pass its name in full"):
        affine().save(tmp_path / "map.zarr", unit=unit)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("frames", ["ab", ("a",), ("a", "a"), ("a", ""), ("a", 1), None])
def test_frames_are_two_names(tmp_path: Path, frames: Any) -> None:
    with pytest.raises(ValueError, match="must be two different names"):
        affine().save(tmp_path / "map.zarr", frames=frames)


def test_a_transform_of_another_make_cannot_be_saved(tmp_path: Path) -> None:
    class Swirl(Transform):
        def inverse(self) -> Transform:
            return self

    with pytest.raises(TypeError, match="Swirl cannot be saved; save a transform made of Affine"):
        Swirl().save(tmp_path / "map.zarr")
    with pytest.raises(TypeError, match="Swirl cannot be saved"):
        Compose((affine(), Swirl())).save(tmp_path / "map.zarr")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("there", [False, True])
def test_an_interrupted_save_leaves_everything_as_it_was(
    tmp_path: Path, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "map.zarr"
    if there:
        affine().save(path)
    before = text(tmp_path)

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_transform_file, "_write_field", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grid().save(path, overwrite=True)
    assert text(tmp_path) == before
    assert [each.name for each in tmp_path.iterdir()] == (["map.zarr"] if there else [])


def test_saving_does_not_change_what_is_saved(tmp_path: Path) -> None:
    inverse = grid().inverse()
    inverse.save(tmp_path / "map.zarr")
    assert inverse == grid().inverse()
    assert isinstance(inverse, InverseDisplacement)
