"""A pair out of one object that holds several sections, and its results back into it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align._anndata import write_columns
from inst_align._checks import (
    check_anndata,
    check_key_added,
    find_label,
    labels_in_words,
    library_labels,
    listing,
    rows_with,
)
from inst_align._keys import ROLE_LIBRARY, UNS, cell_columns
from inst_align._record import RECORD_VERSION, plain, read_record

if TYPE_CHECKING:
    from anndata import AnnData

    from inst_align._checks import Role

logger = logging.getLogger("inst_align")


def split_sections(
    adata: AnnData, *, library_key: str, reference: object, source: object | None = None
) -> tuple[AnnData, AnnData]:
    """Take two sections out of an object that holds several, as the pair that all functions take.

    Parameters
    ----------
    adata
        Cells of several sections, in any order of rows. It is not changed.
    library_key
        Column of ``obs`` with the sections' labels: words, numbers or truth values. 1 and "1" are two labels.
    reference
        Label of the section that is to stay.
    source
        Label of the section that is to move. May be left out where there are two.

    Returns
    -------
    Copies of both sections, their rows in the order of ``adata``. What :func:`join_sections` wrote of them is there
    again as it was, so that :mod:`inst_align.get` and :mod:`inst_align.pl` can read it.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        A label is not there, cells have none, or it is not clear which is the source.

    Examples
    --------
    >>> import anndata as ad
    >>> import inst_align as ia
    >>> sections = dict(zip("AB", ia.datasets.toy_pair(n_cells=200, n_genes=40, rng=0)))
    >>> adata = ad.concat(sections, label="sample")
    >>> ref, src = ia.pp.split_sections(adata, library_key="sample", reference="A")
    >>> ia.pp.rigid_align(ref, src, rng=0)
    >>> ia.pp.join_sections(adata, ref, src, library_key="sample")
    >>> adata.obsm["spatial_rigid"].shape
    (400, 2)
    """
    check_anndata(adata, "adata")
    labels = library_labels(adata, library_key)
    fixed = find_label(labels, reference, "reference", library_key)
    others = [label for label in labels if label is not fixed]
    if source is None:
        if len(others) > 1:
            raise ValueError(
                f"`library_key={library_key!r}`: `adata` has {len(labels)} sections, {labels_in_words(labels)}; say by "
                f"`source` which one is to be moved to {fixed!r}."
            )
        source = others[0]
    moving = find_label(labels, source, "source", library_key)
    if moving is fixed:
        raise ValueError(f"`reference` and `source` are both {fixed!r}; pass two of {labels_in_words(labels)}.")
    return _section(adata, library_key, fixed), _section(adata, library_key, moving)


def _section(adata: AnnData, library_key: str, label: object) -> AnnData:
    part = adata[rows_with(adata, library_key, label)]
    section = part.to_memory() if adata.isbacked else part.copy()
    records = dict(section.uns.get(UNS, {}))
    for key in list(records):
        record = read_record(adata, key)
        if record.get("role") != ROLE_LIBRARY:
            continue
        own = _records(record).get(label)
        if own is None:  # its rows are NaN
            del records[key]
            section.obsm.pop(key, None)
            section.obs = section.obs.drop(columns=list(cell_columns(key)), errors="ignore")
        else:
            records[key] = own
    if UNS in section.uns:
        section.uns[UNS] = records
    return section


def join_sections(adata: AnnData, adata_ref: AnnData, adata_src: AnnData, *, library_key: str) -> None:
    """Write what was found of two sections into the object that they were taken from.

    Parameters
    ----------
    adata
        The object with all sections. ``obsm`` gets this package's keys that both sections have: the rows of the two
        sections as they are there, by position, and NaN for cells of sections that were not aligned. Sections that
        were joined before with the same reference keep their rows. The records go to ``uns["inst_align"]``.
    adata_ref
        The reference, as it came from :func:`split_sections`, with results.
    adata_src
        The source.
    library_key
        Column of ``obs`` with the sections' labels.

    Raises
    ------
    ValueError
        A section's cells are not those of ``adata``, there are no results, or they cannot stand beside those that are
        there: coordinates in the frame of another reference, or embeddings by another field. Nothing is written then.
    """
    for each, argument in ((adata, "adata"), (adata_ref, "adata_ref"), (adata_src, "adata_src")):
        check_anndata(each, argument)
    labels = library_labels(adata, library_key)
    ref = _rows_of(adata, adata_ref, labels, library_key, "reference")
    src = _rows_of(adata, adata_src, labels, library_key, "source")
    keys = [key for key in adata_src.uns.get(UNS, {}) if key in adata_ref.uns.get(UNS, {})]
    keys = [key for key in keys if key in adata_ref.obsm and key in adata_src.obsm]
    if not keys:
        raise ValueError(
            "`adata_ref` and `adata_src` have no results in common; call `ia.pp.rigid_align` or `ia.tl.align_pair` on "
            "them first."
        )
    results = {key: _joined(adata, key, library_key, (adata_ref, *ref), (adata_src, *src)) for key in keys}
    columns = {
        key: _columns(adata, key, np.asarray(array), (adata_ref, ref[1]), (adata_src, src[1]))
        for key, (array, _) in results.items()
    }
    for key, (array, record) in results.items():
        adata.obsm[key] = array
        write_columns(adata, key, columns[key])
        adata.uns[UNS] = {**adata.uns.get(UNS, {}), key: record}


def _columns(
    adata: AnnData, key: str, array: np.ndarray, *sections: tuple[AnnData, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the columns of ``obs`` that belong to a key: rows of sections (with their masks), and NaN where ``array`` is."""
    found: dict[str, np.ndarray] = {}
    for name in cell_columns(key):
        if not any(name in section.obs for section, _ in sections):
            continue
        known = name in adata.obs and key in adata.uns.get(UNS, {})
        found[name] = adata.obs[name].to_numpy(np.float64, copy=True) if known else np.full(adata.n_obs, np.nan)
        for section, rows in sections:
            found[name][rows] = section.obs.get(name, np.nan)
        found[name][np.isnan(array[:, 0])] = np.nan
    return found


def _rows_of(
    adata: AnnData, section: AnnData, labels: list[Any], library_key: str, name: Role
) -> tuple[Any, np.ndarray]:
    """Return the label of a section and the mask of its rows in the whole object."""
    own = section.obs[library_key].unique().tolist() if library_key in section.obs else []
    if len(own) != 1:
        raise ValueError(
            f"`library_key={library_key!r}`: the {name} holds {len(own)} labels in `obs[{library_key!r}]`; pass the "
            f"sections as `ia.pp.split_sections` returned them."
        )
    label = find_label(labels, own[0], name, library_key)
    rows = rows_with(adata, library_key, label)
    if section.n_obs != rows.sum() or not (section.obs_names == adata.obs_names[rows]).all():
        raise ValueError(
            f"The {name} has {section.n_obs} cells and `adata` has {rows.sum()} with the label {label!r}, and they are "
            f"not the same in the same order ({listing(section.obs_names)} against {listing(adata.obs_names[rows])}); "
            f"pass the sections as `ia.pp.split_sections` returned them, with all their cells."
        )
    return label, rows


def _joined(
    adata: AnnData,
    key: str,
    library_key: str,
    ref: tuple[AnnData, Any, np.ndarray],
    src: tuple[AnnData, Any, np.ndarray],
) -> tuple[Any, dict[str, Any]]:
    """Return the array and the record that are to be written under a key."""
    import pandas as pd

    check_key_added(adata, key, "whole object", spatial_key=None)
    new = {label: read_record(section, key) for section, label, _ in (ref, src)}
    old = read_record(adata, key) if key in adata.uns.get(UNS, {}) else {}
    kept = _records(old) if old.get("role") == ROLE_LIBRARY and old["library_key"] == library_key else {}
    kept = {label: record for label, record in kept.items() if label not in new}
    if kept:
        _check_compatible(key, old, kept, new, ref[1], src[1])
    elif old:
        logger.info("overwriting the results of an earlier run under %r", key)
    arrays = [np.asarray(section.obsm[key]) for section, _, _ in (ref, src)]
    array = np.full((adata.n_obs, arrays[0].shape[1]), np.nan, dtype=arrays[0].dtype)
    for label in kept:
        rows = rows_with(adata, library_key, label)
        array[rows] = np.asarray(adata.obsm[key])[rows]
    for (_, _, rows), values in zip((ref, src), arrays, strict=True):
        array[rows] = values
    table = ref[0].obsm[key]
    if isinstance(table, pd.DataFrame):
        array = pd.DataFrame(array, index=adata.obs_names, columns=table.columns)
    sections = [{"name": label, "record": record} for label, record in {**kept, **new}.items()]
    record = {"version": RECORD_VERSION, "role": ROLE_LIBRARY, "library_key": library_key, "reference": ref[1]}
    return array, plain(record | {"sections": sections})


def _check_compatible(
    key: str, old: dict[str, Any], kept: dict[Any, Any], new: dict[Any, Any], reference: Any, source: Any
) -> None:
    """Raise ValueError when results of different runs would stand in one array, but mean different things."""
    if old["reference"] != reference:
        raise ValueError(
            f"`obsm[{key!r}]` of `adata` holds sections in the frame of {old['reference']!r}, and these are in the frame "
            f"of {reference!r}; align with another `key_added`."
        )
    if "transform" not in new[source]:
        raise ValueError(
            f"`obsm[{key!r}]` of `adata` holds the embedding of another pair, with {labels_in_words(list(kept))}, which "
            f"cannot be compared with that of {reference!r} and {source!r}; embed with another `key_added`."
        )


def _records(record: dict[str, Any]) -> dict[Any, dict[str, Any]]:
    """Return the sections' own records by label; they are stored in a list, since a label may not be a key on disk."""
    return {entry["name"]: entry["record"] for entry in record["sections"].values()}
