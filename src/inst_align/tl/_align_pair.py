"""Non-rigid alignment of one section to another."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from inst_align import _keys
from inst_align._anndata import check_key_added, read_pair
from inst_align._calls import (
    finish,
    fit_rigidly,
    progress_bar,
    warn_about_map,
    warn_about_overlap,
    warn_about_pose,
    warn_about_stop,
    warn_about_verdict,
)
from inst_align._checkpoint import as_folder, drawn_seed, keeping, state_digest
from inst_align._checks import check_copy, warn_of_few_cells, warn_of_negative
from inst_align._device import resolve_device
from inst_align._field import GENES
from inst_align._landmarks import read_landmarks, recorded_landmarks, warn_about_landmarks
from inst_align._random import numpy_generator, torch_generator
from inst_align._scale import resizing
from inst_align.tl._init import read_init

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import torch
    from anndata import AnnData
    from numpy.typing import ArrayLike

    from inst_align._anndata import Pair
    from inst_align._checks import NanPolicy, Scale
    from inst_align._landmarks import Points
    from inst_align._random import RNGLike, SeedLike
    from inst_align.core.alignment import Alignment
    from inst_align.core.fit import Accept
    from inst_align.core.landmarks import Landmarks
    from inst_align.core.paper_config import PaperConfig
    from inst_align.core.prepared import PairConfig
    from inst_align.tl._init import HasMatrix

logger = logging.getLogger("inst_align")


def align_pair(
    adata_ref: AnnData,
    adata_src: AnnData,
    *,
    preset: Literal["default", "paper"] = "default",
    init: str | ArrayLike | HasMatrix = "auto",
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
    accept: Literal["auto", "nonrigid", "rigid"] = "auto",
    field: bool = True,
    config: PairConfig | PaperConfig | None = None,
    key_added: str = _keys.SPATIAL_ALIGNED,
    rng: SeedLike | RNGLike | None = None,
    device: str | torch.device | None = None,
    deterministic: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
    copy: bool = False,
) -> tuple[AnnData, AnnData] | None:
    """Align one section to another, non-rigidly and guided by the expression measured on both.

    The default finds the global pose (:func:`inst_align.pp.rigid_align`), then a smooth invertible map that brings the
    feature fields of both sections together from coarse to fine, in both directions at once, if genes held out of a
    trial say that such a map pays; and at last the canonical expression field of INST-Align :cite:p:`han2026`, in
    closed form. ``preset="paper"`` is that method as published.

    Expression in a file (h5ad, zarr; dense or CSR) or a dask array is read in blocks of cells; of a section with more than
    50,000 of them it is never in memory as a whole, except with ``preset="paper"``.

    Parameters
    ----------
    adata_ref
        The reference, which stays where it is.
    adata_src
        The source, which moves.
    preset
        ``"default"``, the most accurate that we can measure, or ``"paper"``, for comparison.
    init
        ``"auto"`` takes the pose that :func:`inst_align.pp.rigid_align` recorded, if the coordinates are still the
        same and no landmarks are given, and else searches; ``"search"`` always searches. Or a pose of one's own, source
        to reference: a homogeneous ``(3, 3)`` matrix, an :class:`inst_align.transforms.Affine` or anything else with a
        ``matrix``, which is used as it is; or a key in ``obsm`` of the source with coordinates in the reference's frame,
        from another tool, say, of which the rotation and the shift are used.
    landmarks_ref, landmarks_src
        Points that belong together, row by row, each in the frame and units of its own section's ``spatial_key``:
        shape ``(k, 2)``, or a DataFrame with x and y, or a GeoDataFrame of points, as the shapes of SpatialData are. They
        take part in the search for the pose, from one pair on, and pull on the non-rigid map.
    landmark_weight
        How much they count. 1 suits points marked to about one neighbour distance: they lead where the expression says
        little and give way to it within that distance. 0 leaves them out of the fit, but not of the report.
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
        Whether the pose may be a mirror image.
    accept
        ``"auto"`` bends the source only if that pays on genes held out of a trial fit, or if landmarks cannot meet
        otherwise, and else keeps the pose, as it does where the sections do not agree at all; where the sections lie on each other as they are stored and there are no
        landmarks, not even that moves. The verdict and its numbers are in the report. ``"nonrigid"`` and ``"rigid"``
        decide beforehand. The paper's preset always bends.
    field
        Whether to fit the canonical field. It does not change the map, and :func:`inst_align.tl.canonical_embed` does
        not need it. The paper's preset cannot do without.
    config
        Constants other than the preset's.
    key_added
        Key in ``obsm`` for the result, and in ``uns["inst_align"]`` for its record.
    rng
        Seed or generator (SPEC 7). The same integer gives the same bits on the same CPU, and on one CUDA device with
        ``deterministic=True``.
    device
        ``"cpu"``, ``"cuda"``, or ``None`` for CUDA where there is any.
    deterministic
        Whether to give up speed on CUDA for the same bits in every run. The environment has to say
        ``CUBLAS_WORKSPACE_CONFIG=:4096:8`` then, before Python starts. The CPU needs none of this.
    checkpoint
        Name of a folder for the state of the fit, so that the same call takes up where another was killed: after the
        pose, the trial, each level of the registration, or each tenth of a phase of the paper's preset. On a CPU the
        result has the bits that it would have had, if torch has as many threads. When the fit has ended the folder is
        marked as done: the same call finds its outcome again, and another one may take the folder. With ``rng=None`` a
        seed is drawn once and kept there. The folder is small; delete it when you like. Sections of fewer than 50
        cells need none.
    progress
        Whether to show a progress bar.
    copy
        Return changed copies instead of writing to the objects given.

    Returns
    -------
    ``None``, or with ``copy=True`` the changed ``(adata_ref, adata_src)``. Sets, at the end, in both:

    ``obsm[key_added]``
        float64, shape ``(n, 2)``: the source's coordinates in the reference's frame and units; the reference's own.
    ``uns["inst_align"][key_added]``
        The record, on the source with the map, the report, the history and the field; see
        :func:`inst_align.get.transform` and :func:`inst_align.get.report`.
    ``obs["inst_overlap"]``
        The probability that a cell has a counterpart in the other section, from 0 to 1, told from where there is tissue
        after the alignment.
    ``obs["inst_sd"]``
        On the source alone: how far a cell is expected to be from where it belongs (root mean square), in the
        reference's units, if the pose is right. Of a section that was not bent: how far off it might be without that
        having been noticed.

    Both columns are NaN for cells left out of the fit, and for all cells where the verdict is "poor"; with fewer than 50
    cells in a section there are none. With another ``key_added`` they are called ``<key_added>_overlap`` and
    ``<key_added>_sd``.

    Raises
    ------
    KeyError
        If a key is missing.
    TypeError
        If ``config`` is not that of the preset, ``init`` is a transform without a matrix, or landmarks are not points.
    ValueError
        If coordinates, expression, ``init`` or landmarks cannot be used, or landmarks are given to the paper's preset; if
        ``checkpoint`` is that of other data, other parameters or another version, and not done; if ``deterministic``
        cannot be kept. Nothing is written then.
    MemoryError
        If the CUDA device has too little memory.

    Warns
    -----
    UserWarning
        If the sections do not agree at all (verdict "poor"), the pose is ambiguous, a mirror image fits as well, the
        sections hardly overlap, the map folds, or it explains the expression no better than the pose alone; if a stage
        stopped because its numbers were no longer finite; if a section has fewer than 50 cells, so that the map is only
        rigid; if cells are left out of the fit; if landmarks end far apart, or the coordinates that ``init`` names were
        not moved rigidly.

    Examples
    --------
    >>> import numpy as np
    >>> import inst_align as ia
    >>> ref, src = ia.datasets.toy_pair(n_cells=400, n_genes=60, rng=0)
    >>> ia.tl.align_pair(ref, src, field=False, rng=0, progress=False)
    >>> src.obsm["spatial_aligned"].shape
    (400, 2)
    >>> t = ia.get.transform(src)
    >>> np.allclose(t.inverse()(src.obsm["spatial_aligned"]), src.obsm["spatial"])
    True
    """
    pair, result, params = fit_sections(
        adata_ref,
        adata_src,
        preset=preset,
        init=init,
        landmarks_ref=landmarks_ref,
        landmarks_src=landmarks_src,
        landmark_weight=landmark_weight,
        spatial_key=spatial_key,
        use_rep=use_rep,
        layer=layer,
        normalize=normalize,
        nan_policy=nan_policy,
        scale=scale,
        allow_reflection=allow_reflection,
        accept=accept,
        field=field,
        config=config,
        key_added=key_added,
        rng=rng,
        device=device,
        deterministic=deterministic,
        checkpoint=checkpoint,
        progress=progress,
        copy=copy,
    )
    return finish(
        adata_ref, adata_src, pair, result, key_added=key_added, spatial_key=spatial_key, copy=copy, rng=rng, **params
    )


def fit_sections(
    adata_ref: AnnData,
    adata_src: AnnData,
    *,
    preset: Literal["default", "paper"] = "default",
    init: str | ArrayLike | HasMatrix = "auto",
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
    accept: Literal["auto", "nonrigid", "rigid"] = "auto",
    field: bool = True,
    config: PairConfig | PaperConfig | None = None,
    key_added: str = _keys.SPATIAL_ALIGNED,
    rng: SeedLike | RNGLike | None = None,
    device: str | torch.device | None = None,
    deterministic: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
    copy: bool = False,
) -> tuple[Pair, Alignment, dict[str, Any]]:
    """Do all of :func:`align_pair` but the writing; returns what was read, the outcome, and what to record."""
    from inst_align.core.threads import repeatable
    from inst_align.core.verdict import verdict_of

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
    if preset == "paper":  # its networks are trained on random cells in each step
        pair = pair.held()
    config = _config(preset, config, field=field)
    _check_accept(accept, preset)
    check_key_added(adata_ref, adata_src, key_added=key_added, spatial_key=spatial_key)
    landmarks = read_landmarks(landmarks_ref, landmarks_src, landmark_weight, pair, allow_reflection=allow_reflection)
    if landmarks is not None and preset == "paper":
        raise ValueError('`landmarks_ref` does not go with `preset="paper"`, which knows no landmarks; leave them out.')
    marked = landmarks is not None and landmarks.weight > 0
    chosen = resolve_device(device)
    folder = as_folder(checkpoint)
    seed = drawn_seed(rng, folder)
    generator = numpy_generator(rng if seed is None else seed)
    randomness = state_digest(generator)
    fit_generator = torch_generator(generator)
    start = read_init(init, adata_src, pair, allow_reflection=allow_reflection, searched=marked, scale=scale)
    settled = start.pose is not None and isinstance(init, str)  # then the pose has the factor in it
    with repeatable(chosen, deterministic=deterministic):
        resized = resizing(pair, None if settled else scale, start.pose, rng=generator, device=chosen)
        decisive: dict[str, Any] = {
            "init": resized.pose(start.pose),
            "allow_reflection": allow_reflection,
            "device": chosen,
        }
        arguments = decisive | {"generator": fit_generator}
        sections = pair.ref, resized.section(pair.src)
        marks = landmarks and resized.landmarks(landmarks)
        if warn_of_few_cells(pair):
            result = fit_rigidly(*sections, method="icp" if preset == "paper" else "fft", landmarks=marks, **arguments)
            result.report["verdict"] = "untested"
        else:
            if preset == "paper":
                warn_of_negative(pair)
            decisive |= {"preset": preset, "accept": accept, "config": config, "deterministic": deterministic}
            kept = keeping(folder, sections, landmarks=marks, rng=randomness, seed=seed, parameters=decisive)
            with progress_bar(show=progress) as callback, kept as state:
                result = _fit(preset, accept, marks)(
                    *sections, **arguments, config=config, callback=callback, checkpoint=state
                )
    result = resized.result(result)
    if result.field is not None and pair.genes is not None:
        result = replace(result, field={**result.field, GENES: np.array(pair.genes)})
    result.report.update(start.report)
    result.report["verdict"] = verdict_of(result.report["verdict"], result.report)
    if "heldout_gain" in result.report:
        logger.info(
            "%s: held-out genes gain %.4f +- %.4f of their variance by bending",
            result.report["verdict"],
            result.report["heldout_gain"],
            result.report["heldout_gain_standard_error"],
        )
    warn_about_verdict(result.report)
    warn_about_pose(result.report, allow_reflection=allow_reflection)
    warn_about_overlap(pair, result)
    warn_about_map(result.report)
    warn_about_stop(result.report)
    warn_about_landmarks(result.report)
    params = {
        "preset": preset,
        "init": init if isinstance(init, str) else "given",
        "use_rep": use_rep,
        "layer": layer,
        "normalize": normalize,
        "nan_policy": nan_policy,
        "scale": scale,
        "allow_reflection": allow_reflection,
        "accept": accept,
        "field": field,
        "config": config,
        "device": str(chosen),
        "deterministic": deterministic,
        **recorded_landmarks(landmarks),
    }
    return pair, result, params


def _config(preset: str, config: PairConfig | PaperConfig | None, *, field: bool) -> PairConfig | PaperConfig:
    from inst_align.core.paper_config import PaperConfig
    from inst_align.core.prepared import PairConfig

    kinds: dict[str, type[PairConfig] | type[PaperConfig]] = {"default": PairConfig, "paper": PaperConfig}
    if preset not in kinds:
        raise ValueError(f'`preset={preset!r}` is not known; pass "default" or "paper".')
    kind = kinds[preset]
    if config is None:
        config = kind()
    if not isinstance(config, kind):
        raise TypeError(f'`config` is a {type(config).__name__}, but `preset="{preset}"` takes a {kind.__name__}.')
    if field:
        return config
    if isinstance(config, PaperConfig):
        raise ValueError('`field=False` does not go with `preset="paper"`, which aligns by means of the field.')
    return replace(config, field=None)


def _fit(preset: str, accept: Accept, landmarks: Landmarks | None) -> Callable[..., Alignment]:
    """Return the fit of a preset, loaded only now."""
    if preset == "paper":
        from inst_align.core.fit_paper import fit_pair_paper

        return fit_pair_paper
    from inst_align.core.fit import fit_pair

    return partial(fit_pair, accept=accept, landmarks=landmarks)


def _check_accept(accept: str, preset: str) -> None:
    if accept not in ("auto", "nonrigid", "rigid"):
        raise ValueError(f'`accept={accept!r}` is not known; pass "auto", "nonrigid" or "rigid".')
    if preset == "paper" and accept == "rigid":
        raise ValueError('`accept="rigid"` does not go with `preset="paper"`, which always bends; use rigid_align.')
