"""The embedding of both sections' cells by the field that they share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align import _keys
from inst_align._anndata import Cells, check_key_added, write_embedding
from inst_align._calls import finish
from inst_align._checks import FEW_CELLS, check_anndata, check_copy, coordinates
from inst_align._coordinates import coordinates_of
from inst_align._record import read_record
from inst_align.tl._align_pair import fit_sections

if TYPE_CHECKING:
    import torch
    from anndata import AnnData

    from inst_align._random import RNGLike, SeedLike
    from inst_align.core.transforms import Affine, Compose

logger = logging.getLogger("inst_align")


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
    """Embed the cells of both sections by the canonical field, evaluated where each cell lies in the common frame.

    The embedding is what the field that both sections share predicts for a cell's place: the features they were aligned
    by, without the noise of single cells and without what only one section shows. Where the field was fitted by
    ``preset="paper"``, it is the field's latent vector, as published :cite:p:`han2026`. It is a function of place: two
    neighbouring cells of different type get nearly the same embedding, so that it finds domains and not cell types.

    Parameters
    ----------
    adata_ref
        The reference.
    adata_src
        The source.
    alignment_key
        The ``key_added`` of :func:`inst_align.tl.align_pair`, whose field is read. If there is no record under this
        key, the pair is aligned first by the default preset, under this key.
    spatial_key
        Key in ``obsm`` of the coordinates that were, or are to be, aligned.
    key_added
        Key in ``obsm`` for the embedding, and in ``uns["inst_align"]`` for its record.
    rng, device, progress
        Passed to :func:`inst_align.tl.align_pair` if the pair has to be aligned; reading a field is not random.
    copy
        Return changed copies instead of writing to the objects given.

    Returns
    -------
    ``None``, or with ``copy=True`` the changed ``(adata_ref, adata_src)``. Sets ``obsm[key_added]`` in both, float32,
    shapes ``(n_ref, d)`` and ``(n_src, d)``, ready for ``scanpy.pp.neighbors(adata, use_rep="X_inst")``, and a record
    in ``uns["inst_align"][key_added]``.

    Raises
    ------
    KeyError
        If a key is missing.
    ValueError
        If the recorded alignment is not one of these two sections or has no field, or if they cannot be aligned;
        nothing is written then.

    Examples
    --------
    >>> import inst_align as ia
    >>> ref, src = ia.datasets.toy_pair(n_cells=200, n_genes=40, rng=0)
    >>> ia.tl.canonical_embed(ref, src, rng=0, progress=False)
    >>> ref.obsm["X_inst"].shape == src.obsm["X_inst"].shape
    True
    """
    from inst_align.core.transforms import from_dict

    check_anndata(adata_ref, "adata_ref")
    check_anndata(adata_src, "adata_src")
    check_copy(adata_ref, adata_src, copy=copy)
    if copy:
        adata_ref, adata_src = adata_ref.copy(), adata_src.copy()
    check_key_added(adata_ref, adata_src, key_added=key_added, spatial_key=spatial_key)
    record = _recorded(adata_src, alignment_key)
    if record is not None:
        policy = record["params"].get("nan_policy", "error")
        xy_ref = coordinates(adata_ref, spatial_key, "reference", nan_policy=policy)
        xy_src = coordinates(adata_src, spatial_key, "source", nan_policy=policy)
        _check_same_sections(record, xy_ref, xy_src, alignment_key)
        z_ref, z_src, what = _evaluate(record["field"], xy_ref, _placed(xy_src, from_dict(record["transform"])))
    else:
        logger.info("no alignment on record under %r: aligning the pair first", alignment_key)
        pair, result, params = fit_sections(
            adata_ref,
            adata_src,
            spatial_key=spatial_key,
            key_added=alignment_key,
            rng=rng,
            device=device,
            progress=progress,
        )
        if result.field is None:
            raise ValueError(
                f"`adata_ref` and `adata_src` have {len(pair.ref)} and {len(pair.src)} cells to fit, too few for the "
                f"field that an embedding is read from; pass larger sections."
            )
        xy_ref, xy_src = (cells.xy for cells in pair.cells)
        z_ref, z_src, what = _evaluate(result.field, xy_ref, _placed(xy_src, result.transform))
        keys = {"key_added": alignment_key, "spatial_key": spatial_key}
        finish(adata_ref, adata_src, pair, result, **keys, copy=False, rng=rng, **params)
    write_embedding(
        adata_ref,
        adata_src,
        key_added=key_added,
        z_ref=z_ref,
        z_src=z_src,
        params={"alignment_key": alignment_key, "spatial_key": spatial_key, "what": what},
    )
    return (adata_ref, adata_src) if copy else None


def _recorded(adata: AnnData, key: str) -> dict[str, Any] | None:
    """Return the source's record of an alignment, which must have a field, or ``None`` if there is no record at all."""
    if key not in adata.uns.get(_keys.UNS, {}):
        return None
    record = read_record(adata, key)
    if record.get("role") != _keys.ROLE_SOURCE:
        raise ValueError(
            f"`adata_src` was the {record.get('role')} of the alignment under `alignment_key={key!r}`; pass the "
            f"sections in the order in which they were aligned."
        )
    if "field" not in record:
        raise ValueError(
            f"`alignment_key={key!r}`: this alignment has no field; run `ia.tl.align_pair` again with `field=True`, on "
            f"sections of at least {FEW_CELLS} cells."
        )
    return record


def _check_same_sections(record: dict[str, Any], xy_ref: np.ndarray, xy_src: np.ndarray, key: str) -> None:
    changed = [role for role, value in coordinates_of(xy_ref, xy_src).items() if record["coordinates"][role] != value]
    if changed:
        raise ValueError(
            f"`alignment_key={key!r}`: the coordinates of the {' and the '.join(changed)} are not those that were "
            f"aligned; run `ia.tl.align_pair` again."
        )


def _placed(xy: np.ndarray, transform: Affine | Compose) -> np.ndarray:
    """Return where a map takes cells, shape ``(n, 2)``; NaN where a cell has no place."""
    return Cells(xy=xy, fitted=np.isfinite(xy[:, 0])).moved_by(transform)


def _evaluate(packed: dict[str, Any], xy_ref: np.ndarray, xy_aligned: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the embedding of both sections, NaN where a cell has no place, and what of the field it is."""
    from inst_align.core.canonical import unpack_field

    field = unpack_field(packed)

    def embed(xy: np.ndarray) -> np.ndarray:
        known = np.isfinite(xy[:, 0])
        z = field.predict(xy[known], field.embedding)
        if known.all():
            return z
        result = np.full((len(xy), z.shape[1]), np.nan, dtype=z.dtype)
        result[known] = z
        return result

    return embed(xy_ref), embed(xy_aligned), field.embedding
