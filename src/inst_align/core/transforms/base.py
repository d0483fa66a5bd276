"""What every transform offers, and the checks that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import ArrayLike, DTypeLike

    from inst_align.core.transforms.compose import Compose


@runtime_checkable
class Transform(Protocol):
    """A map of the plane, in the axis order (x, y). Use it as a type hint.

    Coordinates may be any ``(n, 2)`` numbers; results are new float64 arrays. A row that holds a NaN or an infinite
    number comes out as NaN (and is not inside) and changes nothing for the other rows.
    """

    def __call__(self, xy: ArrayLike) -> np.ndarray:
        """Map coordinates of shape ``(n, 2)`` to coordinates of shape ``(n, 2)``."""
        ...

    def inverse(self) -> Transform:
        """Return the map that goes back."""
        ...

    def jacobian(self, xy: ArrayLike) -> np.ndarray:
        """Return the derivatives, shape ``(n, 2, 2)``: ``[n, i, j]`` is that of output i with respect to input j."""
        ...

    def log_area(self, xy: ArrayLike) -> np.ndarray:
        """Return the logarithm of the local change of area, shape ``(n,)``; NaN where a displacement folds."""
        ...

    def inside(self, xy: ArrayLike) -> np.ndarray:
        """Tell which points lie in the box of the grid, bool of shape ``(n,)``; an affine map has no outside.

        The grid of a fitted map holds both sections, as the pose laid them, and the margin over which the displacement
        fades out. It is a box: a hole in the tissue counts as inside.
        """
        ...

    def allclose(self, other: object, rtol: float = 1e-6, atol: float = 1e-8) -> bool:
        """Tell whether ``other`` is built in the same way from nearly the same numbers."""
        ...

    def __matmul__(self, other: Transform) -> Transform:
        """Return the map that applies ``other`` first, then this one."""
        return join(self, other)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy or what was pickled; numpy forgets on the way that an array is read-only."""
        for name, value in state.items():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
            object.__setattr__(self, name, value)

    def save(
        self,
        path: str | PathLike[str],
        *,
        unit: str | None = None,
        frames: tuple[str, str] = ("source", "reference"),
        overwrite: bool = False,
    ) -> None:
        """Write the map to a folder of its own, which :func:`inst_align.transforms.load` reads back bit for bit.

        The folder is zarr v3, laid out after OME-Zarr 0.6 (NGFF RFC-5), so that other programs can read it. There,
        the axes are (y, x). The inverse of a displacement, which has no formula, is stored together with a sampling of
        it on the same grid for those that cannot solve for it.

        Parameters
        ----------
        path
            The folder, by custom named ``*.zarr``. It appears complete or not at all.
        unit
            Unit of the coordinates, as RFC-5 names it: "micrometer", for example. It is written for others and does
            not change the map.
        frames
            Names of the frame that the map takes points from, and of the one that it takes them to. An inverse goes
            from "reference" to "source".
        overwrite
            Whether to replace a transform that is there already. Nothing else is ever replaced.

        Raises
        ------
        FileExistsError
            Something is there already, and ``overwrite`` is False or it is no saved transform.
        FileNotFoundError
            The folder that it is to lie in does not exist.
        TypeError
            A part of the map is not of this package.
        ValueError
            ``unit`` or ``frames`` are no names.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> import inst_align as ia
        >>> shift = ia.transforms.Affine.from_rigid(0, (3, 4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     shift.save(Path(folder) / "map.zarr", unit="micrometer")
        ...     ia.transforms.load(Path(folder) / "map.zarr")
        Affine(angle=0 deg, scale=1, shift=(3, 4))
        """
        from inst_align._transform_file import save  # the one arrow out of core: files are no business of it

        save(self, path, unit=unit, frames=frames, overwrite=overwrite)


def join(after: Transform, before: Transform) -> Compose:
    """Return ``after @ before``."""
    from inst_align.core.transforms.compose import Compose  # imports this module

    if not isinstance(before, Transform):
        raise TypeError(
            f"`@` joins two transforms, but its right side is {type(before).__name__}; to move points, call `t(xy)`."
        )
    return Compose((before, after))


def as_points(xy: ArrayLike) -> np.ndarray:
    """Return coordinates as float64 of shape ``(n, 2)``, with NaN in both columns of each row that is not finite."""
    points = as_numbers(xy, "xy", np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"`xy` must have shape (n, 2), one (x, y) per row, but has shape {points.shape}.")
    bad = ~np.isfinite(points).all(axis=1)
    return np.where(bad[:, None], np.nan, points) if bad.any() else points


def as_numbers(value: Any, name: str, dtype: DTypeLike) -> np.ndarray:
    """Return real numbers as an array of the given type, or raise a ValueError that names the argument."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"`{name}` must be a regular array of numbers, but its rows differ in length.") from error
    if array.dtype.kind not in "iuf":
        raise ValueError(f"`{name}` must hold real numbers, but holds {array.dtype}; convert it first.")
    return array.astype(dtype, copy=False)


def frozen_array(value: Any, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> np.ndarray:
    """Return a read-only copy that is checked to be finite and of the given shape (-1 stands for any length)."""
    with np.errstate(over="ignore"):  # what overflows the type is reported below as not finite
        array = np.array(as_numbers(value, name, dtype), order="C")
    if array.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, array.shape)):
        wanted = str(shape).replace("-1", "any")
        raise ValueError(f"`{name}` must have shape {wanted}, but has shape {array.shape}.")
    if not (finite := np.isfinite(array)).all():
        raise ValueError(f"`{name}` must be finite, but {np.sum(~finite)} of its {array.size} numbers are not.")
    array.flags.writeable = False
    return array
