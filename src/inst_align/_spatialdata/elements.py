"""Elements by name: which ones live in a coordinate system, their transformations, and which new names are free."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from dask.dataframe import DataFrame as DaskDataFrame
from geopandas import GeoDataFrame
from spatialdata import SpatialData
from spatialdata.models import get_axes_names
from spatialdata.transformations import get_transformation, set_transformation
from xarray import DataArray, DataTree

from inst_align._checks import listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from spatialdata.transformations import BaseTransformation

Raster: TypeAlias = DataArray | DataTree
Element: TypeAlias = Raster | GeoDataFrame | DaskDataFrame

_NAME = re.compile(r"[\w.-]+")


def check_spatialdata(sdata: object, argument: str) -> None:
    """Raise TypeError unless ``sdata`` is a SpatialData."""
    if not isinstance(sdata, SpatialData):
        raise TypeError(f"`{argument}` is a {type(sdata).__module__}.{type(sdata).__name__}; pass a SpatialData.")


def transformations(element: Element) -> dict[str, BaseTransformation]:
    """Return an element's transformations by coordinate system, in a dictionary of one's own."""
    return dict(get_transformation(element, get_all=True))


def register(element: Element, system: str, transformation: BaseTransformation, *, alone: bool = False) -> None:
    """Set one transformation, in memory and on every scale; ``alone`` removes all others.

    Elements that were made with the same dictionary of transformations share it: it is replaced, never changed.
    """
    others = {} if alone else transformations(element)
    set_transformation(element, {**others, system: transformation}, set_all=True)


def matrix_to(element: Element, system: str) -> np.ndarray:
    """Return the homogeneous matrix to a coordinate system for the element's columns: x, y, and z if points have it."""
    axes = get_axes_names(element) if isinstance(element, DaskDataFrame) else ("x", "y")
    matrix: np.ndarray = get_transformation(element, system).to_affine_matrix(axes, axes)
    return np.asarray(matrix, dtype=np.float64)


def spatial_elements(sdata: SpatialData) -> dict[str, Element]:
    """Return all elements but tables, by name."""
    return {name: element for _, name, element in sdata.gen_spatial_elements()}


def elements_in(sdata: SpatialData, system: str, names: Iterable[str] | None, *, argument: str) -> dict[str, Element]:
    """Return the elements that live in a coordinate system: all of them, or those named.

    Raises
    ------
    KeyError
        There is no element of a name.
    TypeError
        ``names`` is one string.
    ValueError
        An element of these does not live in the system, or nothing does.
    """
    found = spatial_elements(sdata)
    if names is None:
        here = {name: element for name, element in found.items() if system in transformations(element)}
        if not here:
            raise ValueError(
                f"`coordinate_system={system!r}`: no element of `{argument}` lives there; its coordinate systems are "
                f"{listing(sorted(sdata.coordinate_systems), 10)}."
            )
        return here
    if isinstance(names, str):
        raise TypeError(f"`elements={names!r}` is one string; pass a list of names, or None for all.")
    names = list(names)
    unknown = [name for name in names if name not in found]
    if unknown:
        raise KeyError(
            f"`elements`: no {listing(unknown)} in `{argument}`, whose elements are {listing(sorted(found), 20)}."
        )
    for name in names:
        check_lives_in(found[name], name, system)
    return {name: found[name] for name in names}


def check_lives_in(element: Element, name: str, system: str) -> None:
    """Raise ValueError unless an element has a transformation to a coordinate system."""
    systems = transformations(element)
    if system not in systems:
        raise ValueError(
            f"`coordinate_system={system!r}`: element {name!r} does not live there, only in "
            f"{listing(sorted(systems), 10)}; set its transformation, or name one of these."
        )


def new_names(sdata: SpatialData, names: Iterable[str], suffix: str, *, ours: Iterable[str] = ()) -> dict[str, str]:
    """Return the names of new elements by those of the old, or raise ValueError if one is taken or impossible.

    SpatialData does not tell names apart by upper and lower case. Names in ``ours`` may be taken.
    """
    if not isinstance(suffix, str) or not _NAME.fullmatch(suffix):
        raise ValueError(
            f"`suffix={suffix!r}` cannot end the name of an element; pass letters, digits, '_', '-' or '.', at least one."
        )
    fresh = {name: name + suffix for name in names}
    free = {name.lower() for name in ours}
    taken = {name.lower() for _, name, _ in sdata.gen_elements()} - free
    clash = [new for new in fresh.values() if new.lower() in taken]
    if clash:
        raise ValueError(
            f"`suffix={suffix!r}`: there is {listing(clash)} already; pass another `suffix`, or delete what is there."
        )
    return fresh


def add(sdata: SpatialData, elements: Mapping[str, Element]) -> None:
    """Put finished, valid elements into an object."""
    for name, element in elements.items():
        if name in sdata:
            del sdata[name]  # this package's own, from an earlier run
        sdata[name] = element


def copied(sdata: SpatialData) -> SpatialData:
    """Return an object that shares no element and no transformation with this one, without loading what is lazy."""
    kinds: dict[str, dict[str, Any]] = {kind: {} for kind in ("images", "labels", "points", "shapes", "tables")}
    for kind, name, element in sdata.gen_elements():
        kinds[kind][name] = element.copy()
        if kind != "tables":
            set_transformation(kinds[kind][name], copy.deepcopy(transformations(element)), set_all=True)
    return SpatialData(**kinds, attrs=copy.deepcopy(dict(sdata.attrs)))
