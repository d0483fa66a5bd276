"""The embedding of the cells of two aligned sections."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align import _keys
from inst_align._anndata import check_key_added, read_pair, write_embedding
from inst_align._calls import finish
from inst_align._checks import check_anndata, check_copy
from inst_align._coordinates import coordinates_of
from inst_align._device import resolve_device
from inst_align._record import read_record
from inst_align.tl._align_pair import fit_sections

if TYPE_CHECKING:
    import torch
    from anndata import AnnData

    from inst_align._anndata import Pair
    from inst_align._random import RNGLike, SeedLike

logger = logging.getLogger("inst_align")

READING = ("use_rep", "layer", "normalize", "nan_policy")
"""Parameters on record that say how the sections were read."""


def canonical_embed(
    adata_ref: AnnData,
    adata_src: AnnData,
    *,
    alignment_key: str = _keys.SPATIAL_ALIGNED,
    spatial_key: str = _keys.SPATIAL,
    key_added: str = _keys.X_INST,
    rng: SeedLike | RNGLike | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    copy: bool = False,
) -> tuple[AnnData, AnnData] | None:
    """Embed the cells of both aligned sections: what is expressed around each, as far as the sections share it.

    The columns are axes of expression on which neighbouring cells agree, those of the same section and those that the
    alignment has brought there from the other :cite:p:`dray2008`. The strongest comes first, and there are as many as hold
    for cells that they were not found on, at most 30. On each axis a cell's own value is combined with those of the cells
    around it in both sections by cokriging :cite:p:`goulard1992`. The weights come from the data, axis by axis: noise, and
    whatever only one section shows, is averaged out; what both show, down to the scale at which they agree, stays. No
    label and no random number is involved, and the alignment needs no field.

    This finds domains and not cell types: where cells of different types lie side by side, and others in the other
    section, what tells them apart is not shared from place to place. For cell types use principal components.

    After ``preset="paper"`` the embedding is the latent vector of the canonical field at the place of each cell, as
    published :cite:p:`han2026`.

    The expression is held in memory, also if it is in a file.

    Parameters
    ----------
    adata_ref
        The reference.
    adata_src
        The source.
    alignment_key
        The ``key_added`` of :func:`inst_align.tl.align_pair`, :func:`inst_align.pp.rigid_align` or
        :func:`inst_align.tl.align_spatialdata` (then pass the tables, or the rows of one table that are each section's).
        The expression, or representation, that was aligned then is read again. If there is no record under this key, the
        pair is aligned first by the default preset, without a field, under this key.
    spatial_key
        Key in ``obsm`` of the coordinates that were, or are to be, aligned; not looked at in tables that
        :func:`inst_align.tl.align_spatialdata` aligned.
    key_added
        Key in ``obsm`` for the embedding, and in ``uns["inst_align"]`` for its record.
    rng, progress
        Passed to :func:`inst_align.tl.align_pair` if the pair has to be aligned; embedding aligned sections is not random.
    device
        ``"cpu"``, ``"cuda"``, or ``None`` for CUDA where there is any.
    copy
        Return changed copies instead of writing to the objects given.

    Returns
    -------
    ``None``, or with ``copy=True`` the changed ``(adata_ref, adata_src)``. Sets, at the end:

    ``obsm[key_added]`` in both
        float32, shapes ``(n_ref, d)`` and ``(n_src, d)``, one scale for all columns and both sections, ready for
        ``scanpy.pp.neighbors(adata, use_rep="X_inst")``. A cell that the alignment left out, but that has a place, gets
        what the cells around it tell; a cell without a place gets NaN.
    ``uns["inst_align"][key_added]`` in both
        A record. :func:`inst_align.get.report` of the source tells by column how much neighbours agree on it
        (``agreement``: correlation with the own section's plus that with the other's, so at most 2), and what share of its
        structure in space is in both sections (``shared``).

    Raises
    ------
    KeyError
        If a key is missing, or the expression that was aligned is no longer there.
    ValueError
        If the recorded alignment is not one of these two sections, or if they cannot be aligned; nothing is written then.

    Examples
    --------
    >>> import inst_align as ia
    >>> ref, src = ia.datasets.toy_pair(n_cells=200, n_genes=40, rng=0)
    >>> ia.tl.align_pair(ref, src, field=False, rng=0, progress=False)
    >>> ia.tl.canonical_embed(ref, src)
    >>> ref.obsm["X_inst"].shape == src.obsm["X_inst"].shape
    True
    >>> sorted(ia.get.report(src, key="X_inst"))
    ['agreement', 'shared']
    """
    check_anndata(adata_ref, "adata_ref")
    check_anndata(adata_src, "adata_src")
    check_copy(adata_ref, adata_src, copy=copy)
    if copy:
        adata_ref, adata_src = adata_ref.copy(), adata_src.copy()
    check_key_added(adata_ref, adata_src, key_added=key_added, spatial_key=spatial_key)
    record = _recorded(adata_src, alignment_key)
    if record is not None:
        found = _embed(_read_aligned(adata_ref, adata_src, record, alignment_key, spatial_key), record, device)
    else:
        logger.info("no alignment on record under %r: aligning the pair first", alignment_key)
        pair, result, params = fit_sections(
            adata_ref,
            adata_src,
            spatial_key=spatial_key,
            key_added=alignment_key,
            field=False,
            rng=rng,
            device=device,
            progress=progress,
        )
        found = _embed(_Aligned(pair=pair, xy=pair.cells[1].moved_by(result.transform)), {"params": params}, device)
        keys = {"key_added": alignment_key, "spatial_key": spatial_key}
        finish(adata_ref, adata_src, pair, result, **keys, copy=False, rng=rng, **params)
    write_embedding(
        adata_ref,
        adata_src,
        key_added=key_added,
        z_ref=found.ref,
        z_src=found.src,
        params={"alignment_key": alignment_key, "spatial_key": spatial_key, "what": found.what},
        report=found.report,
    )
    return (adata_ref, adata_src) if copy else None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Aligned:
    """What was read, and where the source's cells, fitted or not, lie in the reference's frame, shape ``(m, 2)``."""

    pair: Pair
    xy: np.ndarray

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Of all cells in the reference's frame, NaN where a cell has none, shapes ``(n, 2)`` and ``(m, 2)``."""
        return self.pair.cells[0].xy, self.xy


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    """Rows of both sections, what they are, and what there is to say about the columns."""

    ref: np.ndarray
    src: np.ndarray
    what: str
    report: dict[str, np.ndarray]


def _recorded(adata: AnnData, key: str) -> dict[str, Any] | None:
    """Return the source's record of an alignment, or ``None`` if there is none."""
    if key not in adata.uns.get(_keys.UNS, {}):
        return None
    record = read_record(adata, key)
    if record.get("role") != _keys.ROLE_SOURCE:
        raise ValueError(
            f"`adata_src` was the {record.get('role')} of the alignment under `alignment_key={key!r}`; pass the "
            f"sections in the order in which they were aligned."
        )
    return record


def _read_aligned(ref: AnnData, src: AnnData, record: dict[str, Any], key: str, spatial_key: str) -> _Aligned:
    """Read the sections as they were read when they were aligned; what there was to warn of was said then."""
    from inst_align.core.transforms import from_dict

    how = {name: record["params"][name] for name in READING if name in record["params"]}
    tables = _keys.SPATIALDATA in record
    if tables:  # centres of instances were aligned, which no table holds; it may well hold rows of other sections
        spatial_key, how = key, how | {"nan_policy": "drop-from-fit"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        pair = read_pair(ref, src, spatial_key=spatial_key, **how)
    now = coordinates_of(*(cells.xy for cells in pair.cells))
    known = [_keys.ROLE_REFERENCE] if tables else [_keys.ROLE_REFERENCE, _keys.ROLE_SOURCE]
    changed = [role for role in known if record["coordinates"][role] != now[role]]
    if changed:
        raise ValueError(
            f"`alignment_key={key!r}`: the coordinates of the {' and the '.join(changed)} are not those that were "
            f"aligned; run the alignment again."
        )
    moved = pair.cells[1]
    return _Aligned(pair=pair, xy=moved.xy if tables else moved.moved_by(from_dict(record["transform"])))


def _embed(aligned: _Aligned, record: dict[str, Any], device: str | torch.device | None) -> _Found:
    """Embed all cells that have a place, in the way that goes with the preset; NaN where a cell has none."""
    known = [np.isfinite(xy[:, 0]) for xy in aligned.places]
    at_ref, at_src = (xy[rows] for xy, rows in zip(aligned.places, known, strict=True))
    if record["params"].get("preset") == "paper" and "field" in record:
        from inst_align.core.canonical import CanonicalField

        field = CanonicalField.unpack(record["field"])
        found = _Found(
            ref=field.predict(at_ref, "latent"), src=field.predict(at_src, "latent"), what="latent", report={}
        )
    else:
        from inst_align.core.embedding import embed_pair

        pair = aligned.pair.held()
        moved = replace(pair.src, xy=aligned.xy[pair.cells[1].fitted])
        both = embed_pair(pair.ref, moved, at=(at_ref, at_src), device=resolve_device(device))
        report = {"agreement": both.agreement, "shared": both.shared}
        found = _Found(ref=both.ref, src=both.src, what="expression", report=report)
    rows = [_spread(z, where) for z, where in zip((found.ref, found.src), known, strict=True)]
    return replace(found, ref=rows[0], src=rows[1])


def _spread(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Put rows where a mask, shape ``(n,)``, is true, and NaN elsewhere."""
    if where.all():
        return values
    result = np.full((len(where), values.shape[1]), np.nan, dtype=values.dtype)
    result[where] = values
    return result
