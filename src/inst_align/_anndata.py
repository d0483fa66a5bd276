"""The door between AnnData and arrays: the only place that reads sections from objects and writes results to them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from inst_align import _checks as checks
from inst_align._coordinates import coordinates_of, extents_of
from inst_align._expression import highly_variable, normalize_pair, read_expression, usable_genes
from inst_align._genes import shared_genes
from inst_align._keys import ROLE_APPLIED, ROLE_REFERENCE, ROLE_SOURCE, SPATIAL, SPATIAL_RIGID, UNS
from inst_align._record import RECORD_VERSION, plain, read_record
from inst_align.core.section import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from inst_align.core.alignment import Alignment
    from inst_align.core.transforms import Affine, Compose

logger = logging.getLogger("inst_align")

ROLES: tuple[checks.Role, checks.Role] = ("reference", "source")

Normalize = Literal["auto"] | bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two sections with the same features in the same order, rows as in the objects that they come from.

    Parameters
    ----------
    ref
        The section that stays.
    src
        The section that moves.
    genes
        Names of the columns of ``expression``, sorted; None when they are a representation.
    normalized
        By role, whether reading log-normalised the section.
    """

    ref: Section
    src: Section
    genes: tuple[str, ...] | None
    normalized: dict[str, bool]


def read_pair(
    adata_ref: AnnData,
    adata_src: AnnData,
    *,
    spatial_key: str = SPATIAL,
    use_rep: str | None = None,
    layer: str | None = None,
    normalize: Normalize = "auto",
    n_top_genes: int | None = 2000,
) -> Pair:
    """Read two sections; nothing in the objects changes, and the arrays share no memory with them.

    Parameters
    ----------
    adata_ref
        The section that stays.
    adata_src
        The section that moves.
    spatial_key
        Key in ``obsm`` of the coordinates, (x, y), in both objects.
    use_rep
        Key in ``obsm`` of features that are used as they are, instead of the expression. Excludes ``layer``.
    layer
        Key in ``layers`` of the expression; None takes ``X``.
    normalize
        Whether to scale all cells to one total and take ``log(1 + x)``. "auto" does so in each section, unless its
        ``uns["log1p"]`` says that this was done. The total is the median over the cells of both sections.
    n_top_genes
        Most genes to keep; the most variable ones are chosen when more are shared. None keeps all.

    Returns
    -------
    The pair, with float64 coordinates of shape ``(n, 2)`` and float32 features: CSR of shape ``(n, g)`` for genes,
    dense of shape ``(n, d)`` for a representation. Genes that are the same in all cells of a section are left out.

    Raises
    ------
    KeyError
        A key is missing.
    TypeError
        An argument is no AnnData, or its expression is in no known kind of array.
    ValueError
        Coordinates or expression cannot be used, no gene is shared, or arguments exclude each other.
    """
    checks.check_anndata(adata_ref, "adata_ref")
    checks.check_anndata(adata_src, "adata_src")
    if not (isinstance(normalize, bool) or normalize == "auto"):
        raise ValueError(f'`normalize={normalize!r}` is not known; pass "auto", True or False.')
    if n_top_genes is not None and n_top_genes < 1:
        raise ValueError(f"`n_top_genes={n_top_genes}` keeps no gene; pass a positive number, or None for all.")
    xy_ref = _read_xy(adata_ref, spatial_key, "reference")
    xy_src = _read_xy(adata_src, spatial_key, "source")
    if use_rep is None:
        return _read_genes((adata_ref, adata_src), (xy_ref, xy_src), layer, normalize, n_top_genes)
    if layer is not None:
        raise ValueError(f"`use_rep={use_rep!r}` and `layer={layer!r}` exclude each other; pass one of them.")
    return _read_representations((adata_ref, adata_src), (xy_ref, xy_src), use_rep)


def _read_xy(adata: AnnData, key: str, name: checks.Role) -> np.ndarray:
    checks.check_enough_cells(adata.n_obs, name)
    xy = checks.coordinates(adata, key, name)
    checks.check_area(xy, key, name)
    return xy


def _read_representations(adatas: tuple[AnnData, AnnData], xys: tuple[np.ndarray, np.ndarray], key: str) -> Pair:
    ref = checks.representation(adatas[0], key, "reference")
    src = checks.representation(adatas[1], key, "source")
    if ref.shape[1] != src.shape[1]:
        raise ValueError(
            f"`use_rep={key!r}`: `obsm[{key!r}]` has {ref.shape[1]} columns in the reference and {src.shape[1]} in the "
            f"source; pass a representation that was made of both sections together."
        )
    return Pair(
        ref=Section(xy=xys[0], expression=ref, is_rep=True, name="reference"),
        src=Section(xy=xys[1], expression=src, is_rep=True, name="source"),
        genes=None,
        normalized={ROLE_REFERENCE: False, ROLE_SOURCE: False},
    )


def _read_genes(
    adatas: tuple[AnnData, AnnData],
    xys: tuple[np.ndarray, np.ndarray],
    layer: str | None,
    normalize: Normalize,
    n_top_genes: int | None,
) -> Pair:
    genes = shared_genes(*adatas)
    ref, src = (read_expression(*each, layer, genes) for each in zip(adatas, ROLES, strict=True))
    keep = usable_genes(ref, src)
    if not keep.all():
        ref, src, genes = ref[:, keep], src[:, keep], _selected(genes, keep)
    matrices, normalized = normalize_pair(
        {"reference": ref, "source": src},
        logged={name: "log1p" in adata.uns for name, adata in zip(ROLES, adatas, strict=True)},
        normalize=normalize,
        where="`X`" if layer is None else f"`layers[{layer!r}]`",
    )
    pair = Pair(
        ref=Section(xy=xys[0], expression=matrices["reference"], name="reference"),
        src=Section(xy=xys[1], expression=matrices["source"], name="source"),
        genes=genes,
        normalized=normalized,
    )
    if n_top_genes is None or len(genes) <= n_top_genes:
        return pair
    keep = highly_variable(pair.ref, pair.src, n_top_genes)
    return replace(
        pair,
        ref=replace(pair.ref, expression=pair.ref.expression[:, keep]),
        src=replace(pair.src, expression=pair.src.expression[:, keep]),
        genes=_selected(genes, keep),
    )


def _selected(genes: tuple[str, ...], keep: np.ndarray) -> tuple[str, ...]:
    return tuple(gene for gene, kept in zip(genes, keep, strict=True) if kept)


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

    Raises
    ------
    ValueError
        The key is not this package's own, or the coordinates are not finite; nothing was written then.
    """
    from inst_align.core.transforms import to_dict

    check_key_added(adata_ref, adata_src, key_added=key_added, spatial_key=spatial_key)
    xy_ref = checks.coordinates(adata_ref, spatial_key, "reference")
    xy_src = checks.coordinates(adata_src, spatial_key, "source")
    xy_aligned = np.array(xy_aligned, dtype=np.float64)
    if xy_aligned.shape != xy_src.shape or not np.isfinite(xy_aligned).all():
        raise ValueError(
            f"`xy_aligned`: {np.isfinite(xy_aligned).all(axis=-1).sum()} finite points of shape {xy_aligned.shape} "
            f"for {len(xy_src)} cells of the source; nothing was written."
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
        (adata_ref, xy_ref, plain(record | {"role": ROLE_REFERENCE})),
        (adata_src, xy_aligned, plain(record | {"role": ROLE_SOURCE} | outcome)),
    )


def write_embedding(
    adata_ref: AnnData,
    adata_src: AnnData,
    *,
    key_added: str,
    z_ref: np.ndarray,
    z_src: np.ndarray,
    params: Mapping[str, Any],
) -> None:
    """Write features, shapes ``(n_ref, d)`` and ``(n_src, d)``, to ``obsm[key_added]``, and the parameters to ``uns``.

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
        (adata_ref, np.array(z_ref), plain(record | {"role": ROLE_REFERENCE})),
        (adata_src, np.array(z_src), plain(record | {"role": ROLE_SOURCE})),
    )


def write_applied(adata: AnnData, *, key_added: str, xy: np.ndarray, params: Mapping[str, Any]) -> None:
    """Write where a map took the cells, shape ``(n, 2)``, to ``obsm[key_added]``, and the parameters to ``uns``."""
    _assign(key_added, (adata, xy, plain({"version": RECORD_VERSION, "role": ROLE_APPLIED, "params": params})))


def _assign(key: str, *results: tuple[AnnData, np.ndarray, dict[str, Any]]) -> None:
    """Put finished results in place. Nothing here computes, so that there is next to nothing that can fail halfway."""
    if any(key in adata.uns.get(UNS, {}) for adata, _, _ in results):
        logger.info("overwriting the results of an earlier run under %r", key)
    for adata, array, record in results:  # where both are one object, the source's results stay, with the map
        adata.obsm[key] = array
        adata.uns[UNS] = {**adata.uns.get(UNS, {}), key: record}


def recorded_pose(adata_src: AnnData, pair: Pair, *, key: str = SPATIAL_RIGID) -> Affine | Compose | None:
    """Return the map of an earlier run on the same coordinates of the same two sections, if there is one on record."""
    from inst_align.core.transforms import from_dict

    if key not in adata_src.uns.get(UNS, {}):
        return None
    record = read_record(adata_src, key)
    now = coordinates_of(pair.ref.xy, pair.src.xy)
    return from_dict(record["transform"]) if record.get("coordinates") == now else None
