"""Maps as files of their own: a folder in zarr v3, laid out after OME-Zarr 0.6 (NGFF RFC-5), and back.

The group is an OME-Zarr *scene* with one transformation between two coordinate systems. Its axes are (y, x), as image
programs have them, so rows and columns of matrices, and the components of vectors, are the other way round than in
this package. Fields of vectors are OME-Zarr images with the axes (d, y, x) below ``coordinateTransformations``. What
this package needs beyond that is one attribute of the group, ``inst_align``, with the version of the layout.
"""

from __future__ import annotations

import zlib
from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align._replace import replacing
from inst_align.core.transforms import Affine, Compose, Displacement, InverseDisplacement
from inst_align.core.transforms.sampling import sampled_inverse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from inst_align.core.transforms import Transform

FORMAT_VERSION = 1
"""Of our layout; a reader refuses a newer one."""
OME_VERSION = "0.6"
MARK = "inst_align"
"""Attribute of the group that says that it is a transform of ours."""
FIELDS = "coordinateTransformations"
LEVEL = "0"
INTERPOLATION = "cubic"
"""Cubic B-spline through the vectors, even about the outermost nodes; the schema's name for it."""
DAMAGE = (EOFError, IndexError, KeyError, OSError, RuntimeError, TypeError, ValueError, zlib.error)
"""What reading raises when something is missing, cut off or of another kind."""


def save(
    transform: Transform,
    path: str | PathLike[str],
    *,
    unit: str | None,
    frames: tuple[str, str],
    overwrite: bool,
) -> None:
    """Write a transform; see :meth:`inst_align.core.transforms.Transform.save`."""
    path = Path(path)
    axes = _axes(unit)
    source, target = _checked_frames(frames)
    fields: dict[str, Displacement] = {}
    description = _described(transform, fields)
    _check_place(path, overwrite=overwrite)
    scene = {
        "coordinateSystems": [{"name": name, "axes": axes} for name in (source, target)],
        FIELDS: [description | {"input": {"name": source}, "output": {"name": target}}],
    }
    attributes = {
        "ome": {"version": OME_VERSION, "scene": scene},
        MARK: {"format": "transform", "version": FORMAT_VERSION},
    }
    with replacing(path) as new:
        _write(new, attributes, fields, axes)


def load(path: str | PathLike[str]) -> Transform:
    """Return a transform that was written by its method ``save``, bit for bit.

    Parameters
    ----------
    path
        The folder.

    Returns
    -------
    A transform that equals the one saved. It is independent of the file, which is not kept open.

    Raises
    ------
    FileNotFoundError
        There is nothing at ``path``.
    ValueError
        It is no saved transform, it was written by a newer version of the package, or something in it is missing or
        damaged.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import inst_align as ia
    >>> shift = ia.transforms.Affine.from_rigid(0, (3, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     shift.save(Path(folder) / "map.zarr", unit="micrometer")
    ...     ia.transforms.load(Path(folder) / "map.zarr") == shift
    True
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"`path`: there is no {fspath(path)!r}; check the path.")
    root = _opened(path)
    if root is None:
        raise ValueError(
            f"`path`: {fspath(path)!r} is no saved transform; pass a folder that the `save` of a transform has made."
        )
    version = root.attrs[MARK]["version"]
    if version > FORMAT_VERSION:
        raise ValueError(
            f"`path`: {fspath(path)!r} has the format version {version}, and this inst-align reads up to "
            f"{FORMAT_VERSION}; install a newer inst-align."
        )
    try:
        (description,) = root.attrs["ome"]["scene"][FIELDS]
        return _built(root, description)
    except DAMAGE as error:
        raise ValueError(
            f"`path`: {fspath(path)!r} is incomplete or damaged ({type(error).__name__}: {error}); save the transform "
            "again."
        ) from error


def _axes(unit: str | None) -> list[dict[str, str]]:
    if unit is not None and (not isinstance(unit, str) or not unit):
        raise ValueError(f"`unit={unit!r}` is no unit; pass its name in full, such as 'micrometer', or None.")
    named = {} if unit is None else {"unit": unit}
    return [{"name": name, "type": "space", **named} for name in "yx"]


def _checked_frames(frames: tuple[str, str]) -> tuple[str, str]:
    names = list(frames) if isinstance(frames, tuple | list) else []
    if len(names) != 2 or not all(isinstance(name, str) and name for name in names) or names[0] == names[1]:
        raise ValueError(
            f"`frames={frames!r}` must be two different names, of the frame that the map takes points from and of the "
            "one that it takes them to, such as ('source', 'reference')."
        )
    return names[0], names[1]


def _check_place(path: Path, *, overwrite: bool) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"`path`: there is no folder {fspath(path.parent)!r}; make it first.")
    if not path.exists():
        return
    if _opened(path) is None:
        raise FileExistsError(
            f"`path`: {fspath(path)!r} is there and is no saved transform, so it is not replaced; choose another name."
        )
    if not overwrite:
        raise FileExistsError(
            f"`path`: {fspath(path)!r} is there already; pass `overwrite=True` to replace it, or choose another name."
        )


def _opened(path: Path) -> Any:
    """Return the zarr group of a saved transform, or None where there is anything else."""
    import zarr

    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
        mark = group.attrs.get(MARK)
    except DAMAGE:
        return None
    known = isinstance(mark, dict) and mark.get("format") == "transform" and isinstance(mark.get("version"), int)
    return group if known else None


def _described(transform: Transform, fields: dict[str, Displacement]) -> dict[str, Any]:
    """Return the metadata of a transform, and add the fields of vectors that it refers to, by name."""
    if isinstance(transform, Affine):
        matrix = transform.matrix[:2]
        return {"type": "affine", "affine": matrix[::-1, [1, 0, 2]].tolist()}
    if isinstance(transform, Displacement):
        name = f"displacements_{len(fields)}"
        fields[name] = transform
        return {
            "type": "displacements",
            "name": name,
            "path": f"{FIELDS}/{name}",
            "interpolation": INTERPOLATION,
        }
    if isinstance(transform, InverseDisplacement):
        forward = transform.forward
        backward = Displacement(sampled_inverse(transform), forward.origin, forward.spacing)
        return {
            "type": "bijection",
            "forward": _described(backward, fields),
            "inverse": _described(forward, fields),
        }
    if isinstance(transform, Compose):
        return {"type": "sequence", "transformations": [_described(part, fields) for part in transform.parts]}
    raise TypeError(
        f"A {type(transform).__module__}.{type(transform).__name__} cannot be saved; save a transform made of Affine, "
        "Displacement, their inverses and Compose."
    )


def _write(path: Path, attributes: dict[str, Any], fields: dict[str, Displacement], axes: list[dict[str, str]]) -> None:
    import zarr

    root = zarr.create_group(path, zarr_format=3, attributes=attributes)
    if not fields:
        return
    parent = root.create_group(FIELDS)
    for name, field in fields.items():
        _write_field(parent, name, field, axes)


def _write_field(parent: Any, name: str, field: Displacement, axes: list[dict[str, str]]) -> None:
    """Write vectors as an OME-Zarr image of one level, in one chunk."""
    from zarr.codecs import GzipCodec

    y, x = field.origin[::-1].tolist()
    placement = {
        "type": "sequence",
        "transformations": [
            {"type": "scale", "scale": [1.0, field.spacing, field.spacing]},
            {"type": "translation", "translation": [0.0, y, x]},
        ],
        "input": {"path": LEVEL},
        "output": {"name": name},
    }
    image = {
        "name": name,
        "coordinateSystems": [{"name": name, "axes": [{"name": "d", "type": "displacement", "discrete": True}, *axes]}],
        "datasets": [{"path": LEVEL, "coordinateTransformations": [placement]}],
    }
    group = parent.create_group(name, attributes={"ome": {"version": OME_VERSION, "multiscales": [image]}})
    group.create_array(
        LEVEL,
        data=np.ascontiguousarray(field.vectors[::-1]),
        chunks=field.vectors.shape,
        compressors=GzipCodec(level=6),  # every reader of zarr v3 has it, and it carries a checksum
        dimension_names=["d", "y", "x"],
        config={"write_empty_chunks": True},  # so that a missing chunk is told from vectors that are all zero
    )


def _built(root: Any, description: Mapping[str, Any]) -> Transform:
    """Return the transform of which this is the metadata."""
    kind = description["type"]
    if kind == "affine":
        rows = np.array(description["affine"], dtype=np.float64)
        return Affine(np.vstack([rows[::-1, [1, 0, 2]], (0, 0, 1)]))
    if kind == "displacements":
        return _read_field(root[description["path"]])
    if kind == "bijection":
        return _built(root, description["inverse"]).inverse()
    if kind == "sequence":
        return Compose(tuple(_built(root, part) for part in description["transformations"]))
    raise ValueError(f"there is no transformation of the type {kind!r}")


def _read_field(group: Any) -> Displacement:
    import zarr

    (image,) = group.attrs["ome"]["multiscales"]
    axes = [axis["name"] for axis in image["coordinateSystems"][0]["axes"]]
    if axes != ["d", "y", "x"]:
        raise ValueError(f"the axes of the vectors are {axes} and not d, y, x")
    (dataset,) = image["datasets"]
    (placement,) = dataset["coordinateTransformations"]
    scale, translation = placement["transformations"]
    _, spacing, across = scale["scale"]
    if spacing != across:
        raise ValueError(f"the spacing is {spacing} along y and {across} along x")
    origin = np.array(translation["translation"], dtype=np.float64)
    array = group[dataset["path"]]
    if not isinstance(array, zarr.Array) or array.nchunks_initialized < array.nchunks:
        raise ValueError("the vectors are not there")
    return Displacement(np.asarray(array[:])[::-1], origin[:0:-1], spacing)
