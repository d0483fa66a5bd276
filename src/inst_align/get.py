"""Read back what a run recorded: the map, the report, the expression field, the parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inst_align._field import GENES, ExpressionField
from inst_align._keys import ROLE_LIBRARY, ROLE_REFERENCE, SPATIAL_ALIGNED
from inst_align._record import read_record
from inst_align._report import RunReport

if TYPE_CHECKING:
    from anndata import AnnData

    from inst_align.core.transforms import Affine, Compose

__all__ = ["ExpressionField", "RunReport", "field", "params", "report", "transform"]


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

    return from_dict(_of_source(_record(adata, key), key, "transform")["transform"])


def report(adata: AnnData, key: str = SPATIAL_ALIGNED) -> RunReport:
    """Return what a run found out about its own result, verdict first.

    Parameters
    ----------
    adata
        The source of the pair.
    key
        The ``key_added`` of the run.

    Returns
    -------
    The report: numbers and words as attributes, None where this run has none, and as a mapping of those that are there; a
    copy. Shown on a screen or in a notebook it is a short text with the units.

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
    >>> adata.uns["inst_align"] = {"spatial_rigid": {"version": 1, "role": "source", "report": {"pose_overlap": 0.9}}}
    >>> report = ia.get.report(adata, key="spatial_rigid")
    >>> report.pose_overlap, report.fold_fraction
    (0.9, None)
    >>> dict(report)
    {'pose_overlap': 0.9}
    """
    return RunReport.from_record(_of_source(_record(adata, key), key, "report"))


def field(adata: AnnData, key: str = SPATIAL_ALIGNED) -> ExpressionField:
    """Return the continuous expression field that the two sections of a run share.

    It is INST-Align's canonical field :cite:p:`han2026`; with the default preset in closed form, see the concepts in the docs.

    Parameters
    ----------
    adata
        The source of the pair.
    key
        The ``key_added`` of the run.

    Returns
    -------
    The field: ``field.predict(xy, genes)`` at places ``(n, 2)`` of the reference's frame, in its units.

    Raises
    ------
    KeyError
        There is no record under ``key``, or the run left no field, or none with genes.
    ValueError
        The object is the reference of the run.

    Examples
    --------
    >>> import inst_align as ia
    >>> ref, src = ia.datasets.toy_pair(n_cells=300, n_genes=100, rng=0)
    >>> ia.tl.align_pair(ref, src, accept="rigid", rng=0, progress=False)
    >>> field = ia.get.field(src)
    >>> field
    ExpressionField of 100 genes
    >>> field.predict(src.obsm["spatial_aligned"], field.genes[:2]).shape
    (300, 2)
    """
    record = _record(adata, key)
    if "field" not in record and record.get("params", {}).get("field") is False:
        raise KeyError(f"`key={key!r}`: this run was told to fit no field; run the alignment with `field=True`.")
    stopped = record.get("report", {}).get("stopped_early")
    if "field" not in record and stopped is not None:
        raise KeyError(
            f"`key={key!r}`: the fit of this run stopped early ({stopped}) and left no field; see `ia.get.report`."
        )
    packed = _of_source(record, key, "field")["field"]
    if GENES not in packed:
        raise KeyError(
            f"`key={key!r}`: the field of this run has no genes, since `use_rep` gave it features without names."
        )
    return ExpressionField(packed)


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


def _of_source(record: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """Return a record, once it is clear that it is a source's and holds something under a name."""
    if record.get("role") == ROLE_REFERENCE:
        raise ValueError(
            f"`adata` was the reference of this run (`key={key!r}`), which has no {name}; pass the source."
        )
    if name not in record:
        raise KeyError(f"`key={key!r}`: the record of this run holds no {name}; pass the `key_added` of an alignment.")
    return record
