"""Read back what a run recorded: the map, the report, the parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inst_align._keys import ROLE_LIBRARY, ROLE_REFERENCE, SPATIAL_ALIGNED
from inst_align._record import read_record

if TYPE_CHECKING:
    from anndata import AnnData

    from inst_align.core.transforms import Affine, Compose

__all__ = ["params", "report", "transform"]


def transform(adata: AnnData, key: str = SPATIAL_ALIGNED) -> Affine | Compose:
    """Return the map that brought a source into its reference's frame.

    Parameters
    ----------
    adata
        The source of the pair; it moved, and so the record with the map is on it.
    key
        The ``key_added`` of the run.

    Returns
    -------
    A map ``t`` from the source's frame to the reference's, both in their users' units and with the axis order (x, y):
    ``t(xy)`` takes coordinates of shape ``(n, 2)``, ``t.inverse()`` maps back, ``t.jacobian(xy)`` has shape
    ``(n, 2, 2)``.

    Raises
    ------
    KeyError
        There is no record under ``key``, or it holds no map.
    ValueError
        The object is the reference of the run.

    Examples
    --------
    >>> import numpy as np
    >>> from anndata import AnnData
    >>> import inst_align as ia
    >>> adata = AnnData(np.ones((1, 1)))
    >>> shift = ia.transforms.Affine(np.array([[1.0, 0.0, 5.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    >>> record = {"version": 1, "role": "source", "transform": ia.transforms.to_dict(shift)}
    >>> adata.uns["inst_align"] = {"spatial_aligned": record}
    >>> ia.get.transform(adata)(np.array([[1.0, 2.0]]))
    array([[6., 2.]])
    """
    from inst_align.core.transforms import from_dict

    return from_dict(_entry(adata, key, "transform"))


def report(adata: AnnData, key: str = SPATIAL_ALIGNED) -> dict[str, Any]:
    """Return what a run found out about its own result.

    Parameters
    ----------
    adata
        The source of the pair.
    key
        The ``key_added`` of the run.

    Returns
    -------
    Numbers, words and arrays by name; a copy.

    Raises
    ------
    KeyError
        There is no record under ``key``, or it holds no report.
    ValueError
        The object is the reference of the run.

    Examples
    --------
    >>> import numpy as np
    >>> from anndata import AnnData
    >>> import inst_align as ia
    >>> adata = AnnData(np.ones((1, 1)))
    >>> adata.uns["inst_align"] = {"spatial_rigid": {"version": 1, "role": "source", "report": {"overlap": 0.9}}}
    >>> ia.get.report(adata, key="spatial_rigid")
    {'overlap': 0.9}
    """
    found: dict[str, Any] = _entry(adata, key, "report")
    return found


def params(adata: AnnData, key: str = SPATIAL_ALIGNED) -> dict[str, Any]:
    """Return the parameters that a run was called with; those that were None are left out.

    Parameters
    ----------
    adata
        Either section of the pair.
    key
        The ``key_added`` of the run.

    Raises
    ------
    KeyError
        There is no record under ``key``.

    Examples
    --------
    >>> import numpy as np
    >>> from anndata import AnnData
    >>> import inst_align as ia
    >>> adata = AnnData(np.ones((1, 1)))
    >>> adata.uns["inst_align"] = {"X_inst": {"version": 1, "role": "reference", "params": {"rng": 0}}}
    >>> ia.get.params(adata, key="X_inst")
    {'rng': 0}
    """
    return dict(_record(adata, key).get("params", {}))


def _record(adata: AnnData, key: str) -> dict[str, Any]:
    record = read_record(adata, key)
    if record.get("role") == ROLE_LIBRARY:
        there = ", ".join(repr(section["name"]) for section in record["sections"].values())
        raise ValueError(
            f"`adata` holds several sections (`key={key!r}`: {there}), each with a record of its own; take a pair out by "
            f"`ia.pp.split_sections` first."
        )
    return record


def _entry(adata: AnnData, key: str, name: str) -> Any:
    record = _record(adata, key)
    if record.get("role") == ROLE_REFERENCE:
        raise ValueError(
            f"`adata` was the reference of this run (`key={key!r}`), which has no {name}; pass the source."
        )
    if name not in record:
        raise KeyError(f"`key={key!r}`: the record of this run holds no {name}; pass the `key_added` of an alignment.")
    return record[name]
