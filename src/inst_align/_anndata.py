"""The door between AnnData and arrays: the only place that reads sections from objects and writes results to them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align import _checks as checks
from inst_align._coordinates import coordinates_of, extents_of
from inst_align._keys import ROLE_APPLIED, ROLE_REFERENCE, ROLE_SOURCE, SPATIAL_RIGID, UNS, cell_columns
from inst_align._pair import Cells, Pair, read_pair
from inst_align._record import RECORD_VERSION, plain, read_record

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData

    from inst_align.core.alignment import Alignment
    from inst_align.core.transforms import Affine, Compose

    Columns = Mapping[str, np.ndarray]

__all__ = [
    "Cells",
    "Pair",
    "check_key_added",
    "read_pair",
    "recorded_pose",
    "stored_like",
    "write_alignment",
    "write_columns",
    "write_embedding",
]

logger = logging.getLogger("inst_align")


def check_key_added(adata_ref: AnnData, adata_src: AnnData, *, key_added: str, spatial_key: str | None = None) -> None:
    """Raise ValueError when results could not be written under ``key_added``; to be called before the work starts."""
    checks.check_key_added(adata_ref, key_added, "reference", spatial_key=spatial_key)
    checks.check_key_added(adata_src, key_added, "source", spatial_key=spatial_key)


def write_alignment(
    adata_ref: AnnData,
    adata_src: AnnData,
    *,
    key_added: str,
    spatial_key: str,
    params: Mapping[str, Any],
    alignment: Alignment,
    xy_aligned: np.ndarray,
    columns: tuple[Columns, Columns] = ({}, {}),
) -> None:
    """Write coordinates in the reference's frame to ``obsm[key_added]`` of both sections, and the record to ``uns``.

    Parameters
    ----------
    adata_ref
        The section that stayed; it gets its own coordinates, float64, shape ``(n, 2)``.
    adata_src
        The section that moved; the map, the report, the history and the field are recorded on it alone.
    key_added
        Key in ``obsm`` and in ``uns["inst_align"]``.
    spatial_key
        Key in ``obsm`` of the coordinates that were aligned.
    params
        What the run was called with; recorded on both.
    alignment
        The outcome.
    xy_aligned
        The source's cells in the reference's frame and units, shape ``(n_src, 2)``.
    columns
        Of the reference and of the source, for ``obs``: names out of :func:`inst_align._keys.cell_columns`, and values.

    Raises
    ------
    ValueError
        The key is not this package's own, or the coordinates are not finite; nothing was written then.
    """
    from inst_align.core.transforms import to_dict

    check_key_added(adata_ref, adata_src, key_added=key_added, spatial_key=spatial_key)
    xy_ref = checks.coordinates(adata_ref, spatial_key, "reference", nan_policy="drop-from-fit")
    xy_src = checks.coordinates(adata_src, spatial_key, "source", nan_policy="drop-from-fit")
    xy_aligned = np.array(xy_aligned, dtype=np.float64)
    if xy_aligned.shape != xy_src.shape or (np.isfinite(xy_aligned) != np.isfinite(xy_src)).any():
        raise ValueError(
            f"`xy_aligned`: {np.isfinite(xy_aligned).all(axis=-1).sum()} finite points of shape {xy_aligned.shape} for "
            f"the {np.isfinite(xy_src[:, 0]).sum()} cells with a place of {len(xy_src)} of the source; nothing was written."
        )
    record = {"version": RECORD_VERSION, "params": params}
    outcome = {
        "coordinates": coordinates_of(xy_ref, xy_src),
        "extents": extents_of(xy_ref, xy_src),
        "transform": to_dict(alignment.transform),
        "report": alignment.report,
        "history": alignment.history,
        "field": alignment.field,
    }
    _assign(
        key_added,
        (
            adata_ref,
            stored_like(adata_ref.obsm[spatial_key], xy_ref),
            plain(record | {"role": ROLE_REFERENCE}),
            columns[0],
        ),
        (
            adata_src,
            stored_like(adata_src.obsm[spatial_key], xy_aligned),
            plain(record | {"role": ROLE_SOURCE} | outcome),
            columns[1],
        ),
    )


def stored_like(coordinates: Any, xy: np.ndarray) -> np.ndarray | pd.DataFrame:
    """Return new (x, y), shape ``(n, 2)``, in the form of the coordinates that they come from, as float64.

    A constant third column stays beside them, and a table stays a table with the same names of rows and columns.
    """
    import pandas as pd

    table = isinstance(coordinates, pd.DataFrame)
    values = coordinates.to_numpy(np.float64, na_value=np.nan) if table else np.asarray(coordinates, dtype=np.float64)
    result = np.column_stack([xy, values[:, 2:]])
    return pd.DataFrame(result, index=coordinates.index, columns=coordinates.columns) if table else result


def write_embedding(
    adata_ref: AnnData,
    adata_src: AnnData,
    *,
    key_added: str,
    z_ref: np.ndarray,
    z_src: np.ndarray,
    params: Mapping[str, Any],
    report: Mapping[str, Any] | None = None,
) -> None:
    """Write features, shapes ``(n_ref, d)`` and ``(n_src, d)``, to ``obsm[key_added]``, and the parameters to ``uns``.

    The report, if there is one, is recorded on the source.

    Raises
    ------
    ValueError
        The key is not this package's own, or the rows are not those of the sections; nothing was written then.
    """
    check_key_added(adata_ref, adata_src, key_added=key_added)
    if (len(z_ref), len(z_src)) != (adata_ref.n_obs, adata_src.n_obs):
        raise ValueError(
            f"`z_ref` and `z_src` have {len(z_ref)} and {len(z_src)} rows for {adata_ref.n_obs} and {adata_src.n_obs} "
            f"cells; nothing was written."
        )
    record = {"version": RECORD_VERSION, "params": params}
    _assign(
        key_added,
        (adata_ref, np.array(z_ref), plain(record | {"role": ROLE_REFERENCE}), {}),
        (adata_src, np.array(z_src), plain(record | {"role": ROLE_SOURCE, "report": report}), {}),
    )


def write_applied(adata: AnnData, *, key_added: str, xy: np.ndarray, params: Mapping[str, Any]) -> None:
    """Write where a map took the cells, shape ``(n, 2)``, to ``obsm[key_added]``, and the parameters to ``uns``."""
    _assign(key_added, (adata, xy, plain({"version": RECORD_VERSION, "role": ROLE_APPLIED, "params": params}), {}))


def _assign(key: str, *results: tuple[AnnData, np.ndarray | pd.DataFrame, dict[str, Any], Columns]) -> None:
    """Put finished results in place, all or, if that fails or is interrupted, none. Nothing here computes."""
    if any(key in adata.uns.get(UNS, {}) for adata, _, _, _ in results):
        logger.info("overwriting the results of an earlier run under %r", key)
    before = [(adata, adata.obsm.get(key), adata.uns.get(UNS), _columns_of(adata, key)) for adata, _, _, _ in results]
    try:
        for adata, array, record, columns in results:  # where both are one object, the source's results stay
            adata.obsm[key] = array
            write_columns(adata, key, columns)
            adata.uns[UNS] = {**adata.uns.get(UNS, {}), key: record}
    except BaseException:
        for adata, *old, columns in before:
            for where, name, value in zip((adata.obsm, adata.uns), (key, UNS), old, strict=True):
                if value is not None:
                    where[name] = value
                elif name in where:
                    del where[name]
            for name in cell_columns(key):
                if name in columns:
                    adata.obs[name] = columns[name]
                elif name in adata.obs:
                    del adata.obs[name]
        raise


def _columns_of(adata: AnnData, key: str) -> dict[str, Any]:
    """Return the columns of ``obs`` that belong to a key."""
    return {name: adata.obs[name].copy() for name in cell_columns(key) if name in adata.obs}


def write_columns(adata: AnnData, key: str, columns: Columns) -> None:
    """Put the columns that belong to a key into ``obs``; those that an earlier run left and this one lacks go."""
    for name in cell_columns(key):
        if name in columns:
            adata.obs[name] = columns[name]
        elif name in adata.obs and key in adata.uns.get(UNS, {}):
            del adata.obs[name]


def recorded_pose(
    adata_src: AnnData, pair: Pair, *, key: str = SPATIAL_RIGID, scale: checks.Scale = None
) -> Affine | Compose | None:
    """Return the map of an earlier run on the same coordinates of the same two sections, if there is one on record.

    It counts only if that run was given the same ``scale``, or if none is asked for now.
    """
    from inst_align.core.transforms import from_dict

    if key not in adata_src.uns.get(UNS, {}):
        return None
    record = read_record(adata_src, key)
    if scale is not None and record.get("params", {}).get("scale") != scale:
        return None
    now = coordinates_of(pair.cells[0].xy, pair.cells[1].xy)
    return from_dict(record["transform"]) if record.get("coordinates") == now else None
