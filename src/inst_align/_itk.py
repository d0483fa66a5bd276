"""A map as the displacement field that ITK, SimpleITK, elastix, ANTs and 3D Slicer read."""

from __future__ import annotations

from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inst_align._maps import Direction, lattice, oriented
from inst_align._replace import replacing
from inst_align.core.transforms.base import frozen_array
from inst_align.core.transforms.sampling import sampled

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import ArrayLike

    from inst_align.core.transforms import Transform

SUFFIXES = (".nrrd", ".nii.gz", ".nii")
FINER = 2
"""ITK interpolates linearly: at half the spacing of our cubic splines that costs a quarter."""


def to_itk(
    transform: Transform,
    path: str | PathLike[str],
    *,
    direction: Direction,
    bounds: ArrayLike | None = None,
    spacing: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write a map as a displacement field for ITK and what is built on it (SimpleITK, elastix, ANTs, 3D Slicer).

    Points and images need opposite directions. ITK moves a *point* by adding the vector found there: to move points of
    the source, write "src_to_ref". It fills a new *image* by asking for each of its pixels which place of the old
    image to look at: to resample an image of the source onto the reference, write "ref_to_src".

    Coordinates of the file are those of the sections, (x, y), in their unit. An image has to be given an origin (its
    first pixel's centre) and a spacing in that unit, too. NIfTI turns the signs of its axes around in the header,
    which ITK undoes; other readers find the place of a node as minus what the header says. Vectors keep their signs.
    NIfTI keeps origin and spacing in single precision.

    Needs SimpleITK: ``pip install "inst-align[itk]"``.

    Parameters
    ----------
    transform
        The map from the source to the reference, its affine part included.
    path
        A file ending in ``.nrrd``, ``.nii.gz`` or ``.nii``. It appears complete or not at all.
    direction
        "src_to_ref" to move points of the source, or "ref_to_src" to resample images of the source.
    bounds
        Lowest and highest (x, y) of the field, shape ``(2, 2)``, in the frame that it takes points from: the source's
        for "src_to_ref", the reference's for "ref_to_src". ``None`` takes the box around the map's grid, which holds
        both sections. *Beyond the field ITK moves nothing*, not even by the affine part, so what is to be moved has
        to lie within.
    spacing
        Distance of the field's nodes in the unit of the coordinates; ``None`` takes half of the grid's. ITK
        interpolates linearly in between.
    overwrite
        Whether to replace a file.

    Raises
    ------
    FileExistsError
        The file is there, and ``overwrite`` is False.
    FileNotFoundError
        The folder that it is to lie in does not exist.
    ModuleNotFoundError
        SimpleITK is not installed.
    TypeError
        ``transform`` is no map.
    ValueError
        The suffix, the direction, ``bounds`` or ``spacing`` cannot be used, they are missing for a map without a grid,
        or the map folds, so that it has no other direction.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import SimpleITK as sitk
    >>> import inst_align as ia
    >>> shift = ia.transforms.Affine.from_rigid(0, (3, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "map.nrrd"
    ...     ia.transforms.to_itk(shift, path, direction="src_to_ref", bounds=[[0, 0], [9, 9]], spacing=3)
    ...     field = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
    >>> sitk.DisplacementFieldTransform(field).TransformPoint((1.0, 2.0))
    (4.0, 6.0)
    """
    path = Path(path)
    _check_place(path, overwrite=overwrite)
    move = oriented(transform, direction)
    low, step, shape = _grid(move, bounds, spacing)
    itk = _simpleitk()
    vectors = sampled(move, low, step, shape)
    image = itk.GetImageFromArray(np.ascontiguousarray(np.moveaxis(vectors, 0, -1)), isVector=True)
    image.SetOrigin(low.tolist())
    image.SetSpacing((step, step))
    with replacing(path) as new:
        itk.WriteImage(image, fspath(new), useCompression=True)


def _check_place(path: Path, *, overwrite: bool) -> None:
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"`path`: {fspath(path)!r} does not end in {', '.join(SUFFIXES)}; give a path that does.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"`path`: there is no folder {fspath(path.parent)!r}; make it first.")
    if path.is_dir():
        raise FileExistsError(f"`path`: {fspath(path)!r} is a folder; choose another name.")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"`path`: {fspath(path)!r} is there already; pass `overwrite=True` to replace it, or choose another name."
        )


def _grid(
    transform: Transform, bounds: ArrayLike | None, spacing: float | None
) -> tuple[np.ndarray, float, tuple[int, int]]:
    """Return the first node, the spacing, and the number of rows and columns."""
    own = lattice(transform)
    if own is None and (bounds is None or spacing is None):
        raise ValueError(
            "`transform` is affine and has no grid of its own; pass `bounds` and `spacing` to say where the field is "
            "wanted and how fine."
        )
    if own is not None:
        bounds = own.bounds if bounds is None else bounds
        spacing = own.spacing / FINER if spacing is None else spacing
    low, high = frozen_array(bounds, "bounds", np.float64, (2, 2))
    step = float(frozen_array(spacing, "spacing", np.float64, ()))
    if not (high > low).all():
        raise ValueError(f"`bounds` must be the lowest (x, y) and then the highest, but is {low} and {high}.")
    if not step > 0:
        raise ValueError(f"`spacing={step}` must be positive.")
    columns, rows = (np.ceil((high - low) / step).astype(int) + 1).tolist()
    return low, step, (max(rows, 2), max(columns, 2))


def _simpleitk():  # type: ignore[no-untyped-def]
    try:
        import SimpleITK
    except ModuleNotFoundError as error:
        error.add_note('Displacement fields for ITK need SimpleITK: pip install "inst-align[itk]".')
        raise
    return SimpleITK
