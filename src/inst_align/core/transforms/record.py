"""A transform as a plain dictionary of arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align.core.transforms.affine import Affine
from inst_align.core.transforms.compose import Compose
from inst_align.core.transforms.displacement import Displacement

if TYPE_CHECKING:
    from inst_align.core.transforms.base import Transform

VERSION = 1
_AXES = "xy"
_ALWAYS = {"version", "affine", "axes"}
_GRID = {"displacement", "origin", "spacing"}


def to_dict(transform: Transform) -> dict[str, Any]:
    """Return a transform as a dictionary that h5ad and zarr can hold.

    Parameters
    ----------
    transform
        An affine map, a displacement, or an affine map followed by a displacement.

    Returns
    -------
    ``version`` (1), ``affine`` ((3, 3) float64), ``axes`` ("xy") and, with a displacement, ``displacement``
    ((2, H, W) float32), ``origin`` ((2,) float64) and ``spacing`` (float), as in Affine and Displacement.
    The arrays are copies.

    Raises
    ------
    TypeError
        If the transform is of another kind, for example an inverse: store the forward map and invert it after reading.

    Examples
    --------
    >>> shift = Affine.from_rigid(0, (3, 4))
    >>> sorted(to_dict(shift))
    ['affine', 'axes', 'version']
    >>> from_dict(to_dict(shift)) == shift
    True
    """
    parts = transform.parts if isinstance(transform, Compose) else (transform,)
    if [type(part) for part in parts] == [Displacement]:
        parts = (Affine(np.eye(3)), *parts)
    kinds = [type(part) for part in parts]
    if kinds not in ([Affine], [Affine, Displacement]):
        found = ", ".join(kind.__name__ for kind in kinds)
        raise TypeError(
            f"`transform` is made of ({found}), but only an Affine, a Displacement, or an Affine followed by a "
            "Displacement can be stored; store the forward map and invert it after reading."
        )
    record: dict[str, Any] = {"version": VERSION, "axes": _AXES}
    for part in parts:
        if isinstance(part, Affine):
            record["affine"] = part.matrix.copy()
        elif isinstance(part, Displacement):
            record |= {"displacement": part.vectors.copy(), "origin": part.origin.copy(), "spacing": part.spacing}
    return record


def from_dict(record: Mapping[str, Any]) -> Affine | Compose:
    """Return the transform that :func:`to_dict` stored, bit for bit.

    Parameters
    ----------
    record
        As made by :func:`to_dict`; scalars may come back from a file as numpy scalars or arrays without dimensions.

    Returns
    -------
    An Affine, or the Compose of an Affine (the identity if there was none) and a Displacement.

    Raises
    ------
    TypeError
        If ``record`` is no mapping.
    ValueError
        If a key is missing, the version is newer or unknown, the axes are not "xy", or a value does not fit.
    """
    if not isinstance(record, Mapping):
        raise TypeError(f"`record` must be a dictionary made by `to_dict`, but is {type(record).__name__}.")
    needed = _ALWAYS | _GRID if _GRID & set(record) else _ALWAYS
    if missing := needed - set(record):
        raise ValueError(f"`record` is no complete transform: it lacks {sorted(missing)} and has {sorted(record)}.")
    _check_version(_scalar(record["version"]))
    if (axes := _scalar(record["axes"])) != _AXES:
        raise ValueError(f"`record['axes']` must be {_AXES!r}, but is {axes!r}.")
    try:
        affine = Affine(record["affine"])
        if needed == _ALWAYS:
            return affine
        return Compose((affine, Displacement(record["displacement"], record["origin"], _scalar(record["spacing"]))))
    except ValueError as error:
        raise ValueError(f"`record` holds no valid transform: {error}") from error


def _check_version(version: Any) -> None:
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"`record['version']` must be {VERSION}, but is {version!r}.")
    if version > VERSION:
        raise ValueError(
            f"`record['version']` is {version}, but this inst-align reads up to {VERSION}: install a newer inst-align."
        )


def _scalar(value: Any) -> Any:
    """Return the plain Python value of a scalar, however a file format wrapped it."""
    array = np.asarray(value)
    value = array.item() if array.size == 1 else value
    return value.decode() if isinstance(value, bytes) else value
