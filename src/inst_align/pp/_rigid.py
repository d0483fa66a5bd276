"""Global pose of one section over another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from inst_align import _keys
from inst_align._anndata import check_key_added, read_pair
from inst_align._calls import (
    finish,
    fit_rigidly,
    identity_of,
    warn_about_overlap,
    warn_about_pose,
    warn_about_stop,
    warn_about_verdict,
)
from inst_align._checks import check_copy, warn_of_pieces
from inst_align._device import resolve_device
from inst_align._landmarks import read_landmarks, recorded_landmarks, warn_about_landmarks
from inst_align._random import numpy_generator, torch_generator
from inst_align._scale import resizing

if TYPE_CHECKING:
    import torch
    from anndata import AnnData

    from inst_align._checks import NanPolicy, Scale
    from inst_align._landmarks import Points
    from inst_align._random import RNGLike, SeedLike


def rigid_align(
    adata_ref: AnnData,
    adata_src: AnnData,
    *,
    landmarks_ref: Points | None = None,
    landmarks_src: Points | None = None,
    landmark_weight: float = 1.0,
    spatial_key: str = _keys.SPATIAL,
    use_rep: str | None = None,
    layer: str | None = None,
    normalize: Literal["auto"] | bool = "auto",
    nan_policy: NanPolicy = "error",
    scale: Scale = None,
    allow_reflection: bool = False,
    method: Literal["fft", "icp"] = "fft",
    key_added: str = _keys.SPATIAL_RIGID,
    rng: SeedLike | RNGLike | None = None,
    device: str | torch.device | None = None,
    deterministic: bool = False,
    copy: bool = False,
) -> tuple[AnnData, AnnData] | None:
    """Lay one section over another by a rotation and a shift, guided by expression. No start is needed.

    All rotations and shifts are searched, also those at which the sections overlap in part only. Features that both
    sections share are drawn on a common raster, and masked normalised cross-correlation by FFT
    :cite:p:`padfield2012` scores every shift at every angle; the best few poses are refined on the cells.

    Parameters
    ----------
    adata_ref
        The reference, which stays where it is.
    adata_src
        The source, which moves.
    landmarks_ref, landmarks_src
        Points that belong together, row by row, each in the frame and units of its own section's ``spatial_key``:
        shape ``(k, 2)``, or a DataFrame with x and y, or a GeoDataFrame of points, as the shapes of SpatialData are. A
        pose pays for the pairs that it keeps apart, so that few points settle what the expression leaves open, and one
        wrong point does not decide. One pair is enough to help.
    landmark_weight
        What missing all pairs costs, when 1 is the score of a perfect match of the expression.
    spatial_key
        Key in ``obsm`` of the coordinates, shape ``(n, 2)``, axis order (x, y), in the same unit in both sections
        unless ``scale`` says otherwise.
    use_rep
        Key in ``obsm`` of features to use as they are instead of the expression, the same columns in both sections.
    layer
        Key in ``layers`` of the expression; ``None`` takes ``X``.
    normalize
        Whether the expression is counts, to be scaled per cell and log-transformed (on a copy). ``"auto"`` takes it
        for counts unless ``uns["log1p"]`` is there.
    nan_policy
        What to do about cells whose coordinates are NaN or infinite: ``"error"``, or ``"drop-from-fit"``, which leaves
        them out and their rows of the result NaN.
    scale
        What the source's coordinates are to be multiplied by to be in the reference's unit; it becomes part of the map.
        ``"estimate"`` finds it, to some per cent, as the factor at which the expression agrees best. ``None``: both are
        in one unit, and an error if that cannot be.
    allow_reflection
        Whether a mirror image may win. If not, and one agrees as well or better, a warning says so.
    method
        ``"fft"`` searches globally. ``"icp"`` is the adaptive, expression-guided ICP of INST-Align
        :cite:p:`han2026`, which needs full overlap.
    key_added
        Key in ``obsm`` for the result, and in ``uns["inst_align"]`` for its record.
    rng
        Seed or generator (SPEC 7). The same integer gives the same bits on the same CPU, and on one CUDA device with
        ``deterministic=True``.
    device
        ``"cpu"``, ``"cuda"``, or ``None`` for CUDA where there is any.
    deterministic
        See :func:`inst_align.tl.align_pair`.
    copy
        Return changed copies instead of writing to the objects given.

    Returns
    -------
    ``None``, or with ``copy=True`` the changed ``(adata_ref, adata_src)``. Sets, at the end, in both:

    ``obsm[key_added]``
        float64, shape ``(n, 2)``: the source's coordinates in the reference's frame and units; the reference's own.
    ``uns["inst_align"][key_added]``
        The record; see :func:`inst_align.get.transform` and :func:`inst_align.get.report`.

    Raises
    ------
    KeyError
        If a key is missing.
    TypeError
        If landmarks are not points.
    ValueError
        If coordinates, expression or landmarks cannot be used, landmarks are given to ``"icp"``, or ``deterministic``
        cannot be kept; nothing is written then.
    MemoryError
        If the CUDA device has too little memory.

    Warns
    -----
    UserWarning
        If the sections do not agree at all (verdict "poor"); if a distinctly different pose, or a mirror image, explains
        them as well or better; if they hardly overlap, if one is in pieces that lie apart, if cells are left out of the
        fit, or if landmarks end far apart.

    Examples
    --------
    >>> import numpy as np
    >>> import inst_align as ia
    >>> ref, src = ia.datasets.toy_pair(n_cells=400, n_genes=60, warp=0.0, rng=0)
    >>> ia.pp.rigid_align(ref, src, rng=0)
    >>> error = ia.metrics.registration_error(
    ...     src.obsm["spatial_rigid"], src.obsm["spatial_true"], unit=ia.metrics.spacing(ref.obsm["spatial"])
    ... )
    >>> bool(np.median(error) < 1)
    True
    """
    from inst_align.core.threads import repeatable

    check_copy(adata_ref, adata_src, copy=copy)
    pair = read_pair(
        adata_ref,
        adata_src,
        spatial_key=spatial_key,
        use_rep=use_rep,
        layer=layer,
        normalize=normalize,
        nan_policy=nan_policy,
    )
    if method not in ("fft", "icp"):
        raise ValueError(f'`method={method!r}` is not known; pass "fft" or "icp".')
    landmarks = read_landmarks(landmarks_ref, landmarks_src, landmark_weight, pair, allow_reflection=allow_reflection)
    if landmarks is not None and method == "icp":
        raise ValueError('`landmarks_ref` does not go with `method="icp"`, which knows no landmarks; pass "fft".')
    check_key_added(adata_ref, adata_src, key_added=key_added, spatial_key=spatial_key)
    chosen = resolve_device(device)
    generator = numpy_generator(rng)
    fit_generator = torch_generator(generator)
    with repeatable(chosen, deterministic=deterministic):
        resized = resizing(pair, scale, None, rng=generator, device=chosen)
        for section in (pair.ref, pair.src):
            warn_of_pieces(section)
        same = identity_of(pair) if resized.factor == 1 else None
        result = fit_rigidly(
            pair.ref,
            resized.section(pair.src),
            init=same,
            method=method,
            allow_reflection=allow_reflection,
            landmarks=landmarks and resized.landmarks(landmarks),
            generator=fit_generator,
            device=chosen,
        )
    result = resized.result(result)
    if same is not None:
        result.report["pose_method"] = "identical"
    warn_about_verdict(result.report)
    warn_about_pose(result.report, allow_reflection=allow_reflection)
    warn_about_overlap(pair, result)
    warn_about_stop(result.report)
    warn_about_landmarks(result.report, rigid_in=pair)
    return finish(
        adata_ref,
        adata_src,
        pair,
        result,
        key_added=key_added,
        spatial_key=spatial_key,
        copy=copy,
        rng=rng,
        device=str(chosen),
        deterministic=deterministic,
        use_rep=use_rep,
        layer=layer,
        normalize=normalize,
        nan_policy=nan_policy,
        scale=scale,
        allow_reflection=allow_reflection,
        method=method,
        **recorded_landmarks(landmarks),
    )
