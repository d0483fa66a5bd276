"""The cells of a section: which rows of a table they are, and where they lie in a coordinate system."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from inst_align._checks import Role, listing
from inst_align._keys import SPATIAL, UNS, cell_columns
from inst_align._spatialdata.centroids import instances
from inst_align._spatialdata.elements import matrix_to, spatial_elements, transformations

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from inst_align._spatialdata.elements import Element

logger = logging.getLogger("inst_align")

ATTRS = "spatialdata_attrs"


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """The rows of a table that belong to one section.

    Parameters
    ----------
    sdata
        The object that holds the table.
    name
        Of the table.
    regions
        The elements that these rows annotate.
    rows
        Positions in the table, ascending, shape ``(n,)``.
    xy
        Their instances' centres in the named coordinate system, shape ``(n, 2)``.
    """

    sdata: SpatialData
    name: str
    regions: tuple[str, ...]
    rows: np.ndarray
    xy: np.ndarray

    def to_anndata(self) -> AnnData:
        """Return the rows as an AnnData with ``obsm["spatial"]``; it shares the arrays of a table of which it is all."""
        table = self.sdata.tables[self.name]
        part = table if len(self.rows) == table.n_obs else table[self.rows].copy()
        return AnnData(
            X=part.X,
            obs=pd.DataFrame(index=part.obs_names),
            var=pd.DataFrame(index=part.var_names),
            layers=dict(part.layers),
            obsm={**part.obsm, SPATIAL: self.xy},
            uns=dict(part.uns),
        )

    def write(self, key: str, result: AnnData) -> None:
        """Put a result's coordinates and record under ``key`` into the table, NaN for rows of other sections."""
        table = self.sdata.tables[self.name]
        if table.is_view:
            table = self.sdata.tables[self.name] = table.copy()
        xy = np.full((table.n_obs, 2), np.nan)
        xy[self.rows] = result.obsm[key]
        table.obsm[key] = xy
        for column in cell_columns(key):
            if column in result.obs:
                values = np.full(table.n_obs, np.nan)
                values[self.rows] = result.obs[column]
                table.obs[column] = values
        table.uns[UNS] = {**table.uns.get(UNS, {}), key: result.uns[UNS][key]}


def read_cells(sdata: SpatialData, name: str, system: str, role: Role) -> Cells:
    """Return the rows of a table whose element lives in a coordinate system, with their places.

    Raises
    ------
    KeyError
        There is no such table, or it has lost the columns or the elements that it names.
    ValueError
        The table annotates nothing, nothing that lives in the system, or instances that the element does not have.
    """
    table = _table(sdata, name, role)
    regions, region_key, instance_key = _annotation(table, name, role)
    elements = _regions(sdata, regions, name, role)
    here = {region: element for region, element in elements.items() if system in transformations(element)}
    if not here:
        lives = "; ".join(f"{region!r} in {listing(sorted(transformations(e)), 10)}" for region, e in elements.items())
        raise ValueError(
            f"`coordinate_system={system!r}`: nothing that `table={name!r}` of the {role} annotates lives there ({lives}); "
            "name a coordinate system of these, or set a transformation to it."
        )
    region_of = np.asarray(table.obs[region_key], dtype=object)
    rows, xy = [], []
    for region, element in here.items():
        member = np.flatnonzero(region_of == region)
        if len(member):
            wanted = pd.Index(np.asarray(table.obs[instance_key])[member])
            rows.append(member)
            xy.append(_places(element, wanted, system, where=f"`table={name!r}` of the {role}, region {region!r}"))
    if not rows:
        raise ValueError(
            f"`table={name!r}` of the {role} has no row whose `obs[{region_key!r}]` is {listing(here, 10)}; check its regions."
        )
    if sum(map(len, rows)) < table.n_obs:
        logger.info(
            "%d of %d rows of table %r annotate what lives in %r", sum(map(len, rows)), table.n_obs, name, system
        )
    order = np.argsort(np.concatenate(rows))
    return Cells(
        sdata=sdata, name=name, regions=tuple(here), rows=np.concatenate(rows)[order], xy=np.concatenate(xy)[order]
    )


def _table(sdata: SpatialData, name: str, role: Role) -> AnnData:
    if name not in sdata.tables:
        raise KeyError(
            f"`table={name!r}`: the {role} has no such table, only {listing(sorted(sdata.tables), 10)}; pass one of these."
        )
    return sdata.tables[name]


def _annotation(table: AnnData, name: str, role: Role) -> tuple[list[str], str, str]:
    """Return the annotated elements, and the columns of ``obs`` with each row's element and instance."""
    attrs = table.uns.get(ATTRS) or {}
    where = f"`table={name!r}` of the {role}"
    missing = [key for key in ("region", "region_key", "instance_key") if attrs.get(key) is None]
    if missing:
        raise ValueError(
            f"{where} annotates no element: `uns[{ATTRS!r}]` has no {listing(missing)}; "
            "set them by `spatialdata.models.TableModel.parse`."
        )
    region, region_key, instance_key = attrs["region"], attrs["region_key"], attrs["instance_key"]
    for column in (region_key, instance_key):
        if column not in table.obs:
            raise KeyError(
                f"{where}: no `obs[{column!r}]`, which `uns[{ATTRS!r}]` names; restore it, or parse the table again."
            )
    return np.atleast_1d(region).tolist(), region_key, instance_key


def _regions(sdata: SpatialData, regions: list[str], name: str, role: Role) -> dict[str, Element]:
    found = spatial_elements(sdata)
    lost = [region for region in regions if region not in found]
    if lost:
        raise KeyError(
            f"`table={name!r}` of the {role} annotates {listing(lost)}, but the elements are {listing(sorted(found), 20)}; "
            "add what is missing, or change the table's regions."
        )
    images = [region for region in regions if region in sdata.images]
    if images:
        raise ValueError(
            f"`table={name!r}` of the {role} annotates the image {images[0]!r}, which has no instances; "
            "let it annotate shapes, labels or points."
        )
    return {region: found[region] for region in regions}


def _places(element: Element, wanted: pd.Index, system: str, *, where: str) -> np.ndarray:
    """Return the centres of instances in a coordinate system, in the order asked for, shape ``(n, 2)``."""
    index, xy = instances(element)
    if not index.is_unique:
        twice = index[index.duplicated()].unique()
        raise ValueError(f"{where}: {len(twice)} instances of the element occur more than once ({listing(twice)}).")
    at = index.get_indexer(wanted)
    lost = wanted[at < 0]
    if len(lost):
        raise ValueError(
            f"{where}: {len(lost)} of {len(wanted)} rows name instances that the element does not have "
            f"({listing(lost)}, {wanted.dtype}; it has {listing(index)}, {index.dtype}); match them first."
        )
    matrix = matrix_to(element, system)
    return xy[at] @ matrix[:2, :2].T + matrix[:2, -1]
