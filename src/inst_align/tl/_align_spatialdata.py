"""Non-rigid alignment of two sections in SpatialData objects, with everything that belongs to them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from inst_align import _keys
from inst_align._calls import finish
from inst_align.tl._align_pair import align_pair, fit_sections

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spatialdata import SpatialData

    from inst_align._random import RNGLike, SeedLike
    from inst_align._spatialdata.sections import SpatialSection


def align_spatialdata(
    sdata_ref: SpatialData,
    sdata_src: SpatialData,
    *,
    table: str | tuple[str, str] = "table",
    coordinate_system: str | tuple[str, str] = "global",
    elements: Iterable[str] | None = None,
    suffix: str = _keys.SUFFIX_ALIGNED,
    to: str = _keys.SYSTEM_ALIGNED,
    affine_to: str = _keys.SYSTEM_AFFINE,
    pixel_size: float | None = None,
    like: str | None = None,
    crop: bool = False,
    max_edge: float | None = None,
    key_added: str = _keys.SPATIAL_ALIGNED,
    rng: SeedLike | RNGLike | None = None,
    copy: bool = False,
    **options: Any,
) -> tuple[SpatialData, SpatialData] | None:
    """Align one section to another as :func:`align_pair` does, and move all that belongs to it along.

    A section is what lives in a coordinate system of a SpatialData object. For two sections in one object pass it
    twice, with two coordinate systems. Its cells are the rows of the table that annotate shapes, labels or points
    there; their places are the centres of these, in that coordinate system.

    Convention: the map takes (x, y) of the source's coordinate system to (x, y) of the reference's; both are in the
    same unit.

    Parameters
    ----------
    sdata_ref
        The object with the reference, which stays where it is.
    sdata_src
        The object with the source, which moves; it may be the same one.
    table
        Name of the table, or of both tables, (reference, source).
    coordinate_system
        Name of the coordinate system, or of both, (reference, source).
    elements
        Names of the source's elements to move by :func:`move_elements`; ``None`` takes all that live in its coordinate
        system, ``[]`` none.
    suffix
        New elements are called as the old ones, with this at the end.
    to
        The coordinate system of the new elements, and of the reference's elements as they are.
    affine_to
        The coordinate system to which the affine part of the map is registered: for each element of the source the
        transformation that it has, followed by the affine part. The reference's elements are in it as they are.
    pixel_size
        See :func:`move_elements`.
    like
        Name of an image or labels of the reference, whose pixel grid moved rasters continue. Excludes ``pixel_size``.
    crop
        With ``like``, take its grid as it is; what lies beyond is lost.
    max_edge
        See :func:`move_elements`.
    key_added
        Key of the result in both tables.
    rng
        Seed or generator (SPEC 7).
    copy
        Return changed copies, which share no element with the objects given.
    **options
        All other keywords of :func:`align_pair`: ``preset``, ``init``, ``use_rep``, ``layer``, ``normalize``,
        ``allow_reflection``, ``field``, ``config``, ``device``, ``deterministic``, ``checkpoint``, ``progress``.

    Returns
    -------
    ``None``, or with ``copy=True`` the changed ``(sdata_ref, sdata_src)``. Sets, at the end and in memory:

    ``table.obsm[key_added]``
        In both tables, float64, shape ``(n, 2)``: the cells in the reference's coordinate system; NaN in rows that
        belong to neither section.
    ``table.uns["inst_align"][key_added]``
        The record; see :func:`inst_align.get.transform`. Where both sections share a table it holds the source's.
    transformations
        To ``to`` and ``affine_to`` as above. No transformation that is there is replaced, except by the same call
        under the same key.
    new elements
        In the source's object, in ``to``; see :func:`move_elements`.

    Raises
    ------
    KeyError
        If a table, column or element is missing.
    TypeError
        If an argument is no SpatialData, or a keyword is not known.
    ValueError
        If the table annotates nothing in the coordinate system, instances do not match, or a name or a transformation
        is taken. Nothing has been written then.

    Examples
    --------
    >>> import geopandas
    >>> import inst_align as ia
    >>> import shapely
    >>> from spatialdata import SpatialData
    >>> from spatialdata.models import ShapesModel, TableModel
    >>> def section(adata):
    ...     cells = geopandas.GeoDataFrame({"geometry": shapely.points(adata.obsm["spatial"]), "radius": 5.0})
    ...     adata.obs["region"], adata.obs["cell"] = "cells", range(adata.n_obs)
    ...     table = TableModel.parse(adata, region="cells", region_key="region", instance_key="cell")
    ...     return SpatialData(shapes={"cells": ShapesModel.parse(cells)}, tables={"table": table})
    >>> ref, src = map(section, ia.datasets.toy_pair(n_cells=300, n_genes=40, rng=0))
    >>> ia.tl.align_spatialdata(ref, src, field=False, rng=0, progress=False)
    >>> src["table"].obsm["spatial_aligned"].shape
    (300, 2)
    >>> sorted(src.coordinate_systems)
    ['aligned', 'aligned_affine', 'global']
    >>> sorted(src.shapes)
    ['cells', 'cells_aligned']
    """
    from inst_align._spatialdata.canvas import grid_of
    from inst_align._spatialdata.detail import Detail
    from inst_align._spatialdata.elements import check_spatialdata, copied
    from inst_align._spatialdata.move import moved
    from inst_align._spatialdata.sections import make_plan, read_sections
    from inst_align.core.pullback import affine_part

    _check_options(options)
    check_spatialdata(sdata_ref, "sdata_ref")
    check_spatialdata(sdata_src, "sdata_src")
    if copy:
        one = sdata_ref is sdata_src
        sdata_ref = copied(sdata_ref)
        sdata_src = sdata_ref if one else copied(sdata_src)
    ref, src = read_sections(
        (sdata_ref, sdata_src), _both(table, "table"), _both(coordinate_system, "coordinate_system")
    )
    plan = make_plan(ref, src, key=key_added, to=to, affine_to=affine_to, elements=elements, suffix=suffix)
    grid = None if like is None else grid_of(_raster(ref, like), ref.system)
    detail = Detail(pixel_size=pixel_size, like=grid, crop=crop, max_edge=max_edge)

    results = ref.cells.to_anndata(), src.cells.to_anndata()
    pair, result, params = fit_sections(*results, key_added=key_added, rng=rng, **options)
    params |= {"table": src.cells.name, "coordinate_system": src.system}
    finish(*results, pair, result, key_added=key_added, spatial_key=_keys.SPATIAL, copy=False, rng=rng, **params)
    chosen = {name: src.elements[name] for name in plan.names}
    new = moved(chosen, result.transform, system=src.system, to=to, detail=detail)
    plan.write(affine_part(result.transform), new, results)
    return (sdata_ref, sdata_src) if copy else None


def _both(names: str | tuple[str, str], argument: str) -> tuple[str, str]:
    """Return the names for the reference and the source."""
    if isinstance(names, str):
        return names, names
    if len(names) != 2:
        raise ValueError(f"`{argument}={names!r}` has {len(names)} names; pass one, or two: (reference, source).")
    return names[0], names[1]


def _raster(ref: SpatialSection, name: str) -> Any:
    """Return an image or labels of the reference."""
    from inst_align._checks import listing
    from inst_align._spatialdata.move import is_raster

    rasters = {each: element for each, element in ref.elements.items() if is_raster(element)}
    if name not in rasters:
        raise KeyError(
            f"`like={name!r}`: the images and labels of the reference in {ref.system!r} are "
            f"{listing(sorted(rasters), 10)}; pass one of these."
        )
    return rasters[name]


_OTHER = {"adata_ref", "adata_src", "spatial_key", "key_added", "rng", "copy"}
"""Arguments of :func:`align_pair` that are not handed on."""


def _check_options(options: dict[str, Any]) -> None:
    """Raise TypeError for keywords that :func:`align_pair` does not have, or that say where AnnData's coordinates are."""
    known = inspect.signature(align_pair).parameters.keys() - _OTHER
    for name in options:
        if name not in known:
            raise TypeError(
                f"`align_spatialdata` takes no argument {name!r}; it takes {', '.join(sorted(known))} and its own."
            )
