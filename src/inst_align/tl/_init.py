"""The pose that a non-rigid fit starts from: searched for, recorded, given, or read off coordinates of another tool."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from inst_align._anndata import recorded_pose
from inst_align._calls import identity_of
from inst_align._checks import check_place, check_scale, coordinates, listing, warn_user
from inst_align._keys import SPATIAL_RIGID
from inst_align._record import read_record
from inst_align.core.landmarks import rigid_fit
from inst_align.core.transforms import Affine

if TYPE_CHECKING:
    from anndata import AnnData

    from inst_align._anndata import Pair
    from inst_align._checks import Scale

logger = logging.getLogger("inst_align")

ACCEPTED = (
    'pass "auto", "search", a (3, 3) matrix, an Affine or anything else with a `matrix`, or a key of `obsm` of the '
    "source with coordinates in the reference's frame"
)
NOT_RIGID = 0.5
"""Cells that a rigid map leaves this far off at the median, in neighbour distances, were not moved rigidly."""


class HasMatrix(Protocol):
    """A transform that is a matrix, of this package or of another one."""

    @property
    def matrix(self) -> Any:
        """Homogeneous, shape (3, 3), axis order (x, y)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Start:
    """A pose to start from, source to reference; ``None`` to search for one. And what the report says of it."""

    pose: Affine | None
    report: dict[str, Any] = field(default_factory=dict)


def read_init(
    init: Any, adata_src: AnnData, pair: Pair, *, allow_reflection: bool, searched: bool, scale: Scale = None
) -> Start:
    """Return the pose that ``init`` stands for.

    Parameters
    ----------
    init
        As given to :func:`inst_align.tl.align_pair`.
    adata_src
        The source, for what is recorded or stored there.
    pair
        The sections as they were read.
    allow_reflection
        Whether coordinates of another tool may be a mirror image.
    searched
        Whether ``"auto"`` searches also where a pose is recorded, because there is more to go by now.
    scale
        What was given to :func:`inst_align.tl.align_pair`. A pose that a word stands for has the factor in it.

    Raises
    ------
    KeyError
        A string is neither a word that is known here nor a key of ``obsm``.
    TypeError
        A transform is no matrix.
    ValueError
        A matrix is none, or coordinates cannot be used.
    """
    if isinstance(init, str):
        return _of_word(init, adata_src, pair, allow_reflection=allow_reflection, searched=searched, scale=scale)
    if callable(getattr(init, "to_affine_matrix", None)):  # of SpatialData, where axes have names
        init = init.to_affine_matrix(("x", "y"), ("x", "y"))
    parts = getattr(init, "parts", (init,))
    matrix = getattr(parts[0], "matrix", parts[0])
    if len(parts) > 1 or callable(matrix):
        made_of = " and ".join(type(part).__name__ for part in parts)
        raise TypeError(f"`init` is a non-rigid transform ({made_of}) and so no pose to start from; {ACCEPTED}.")
    try:
        pose = Affine(matrix)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`init` is no pose from source to reference ({error}); {ACCEPTED}.") from error
    if pose.is_reflection and not allow_reflection:
        raise ValueError(
            "`init` turns the source over (its determinant is negative); pass `allow_reflection=True` if it has to be."
        )
    check_place(pair.ref, pose(pair.src.xy), argument="init")
    return Start(pose=pose)


def _of_word(
    init: str, adata_src: AnnData, pair: Pair, *, allow_reflection: bool, searched: bool, scale: Scale
) -> Start:
    if init in ("auto", "search"):
        recorded = None if init == "search" or searched else recorded_pose(adata_src, pair, scale=scale)
        if not isinstance(recorded, Affine):
            same = None if searched or scale not in (None, 1) else identity_of(pair)
            return Start(pose=same, report={"pose_method": "identical"} if same else {})
        logger.info('starting from the pose recorded by rigid_align; pass `init="search"` to search again')
        said = read_record(adata_src, SPATIAL_RIGID).get("report", {})
        doubts = {name: said[name] for name in said if name.startswith("pose_")}
        return Start(pose=recorded, report={**doubts, "pose_method": "recorded"})
    if init not in adata_src.obsm:
        there = ", ".join(map(repr, sorted(adata_src.obsm)))
        raise KeyError(
            f"`init={init!r}` is not known, and no key of `obsm` of the source, which has {there}; {ACCEPTED}."
        )
    placed = coordinates(adata_src, init, "source", nan_policy="drop-from-fit")[pair.cells[1].fitted]
    if not np.isfinite(placed).all():
        missing = np.flatnonzero(pair.cells[1].fitted)[~np.isfinite(placed[:, 0])]
        raise ValueError(
            f"`init={init!r}`: `obsm[{init!r}]` of the source is NaN or infinite in {len(missing)} of {len(placed)} cells "
            f"that are to be aligned ({listing(adata_src.obs_names[missing])}); pass another key, or remove these cells."
        )
    return _of_coordinates(init, placed, pair, allow_reflection=allow_reflection, scale=scale)


def _of_coordinates(key: str, placed: np.ndarray, pair: Pair, *, allow_reflection: bool, scale: Scale) -> Start:
    """Return the map of least squared error from the source's coordinates to those under a key: rigid, after ``scale``."""
    check_scale(scale)
    ratio = float(np.sqrt(_spread(placed) / _spread(pair.src.xy)))
    resize = ratio if scale == "estimate" else float(scale or 1.0)
    xy = pair.src.xy * resize
    fits = [rigid_fit(xy, placed, mirror=mirror) for mirror in (False, True)]
    residuals = [np.linalg.norm(fit(xy) - placed, axis=1) / pair.ref.spacing for fit in fits]
    medians = [float(np.median(residual)) for residual in residuals]
    mirrored = medians[1] < medians[0]
    if mirrored and not allow_reflection:
        raise ValueError(
            f"`init={key!r}`: the coordinates in `obsm[{key!r}]` of the source are a mirror image of the ones to be "
            f"aligned; pass `allow_reflection=True` if the source was turned over."
        )
    report = {
        "pose_method": "prealigned",
        "init_residual_median": medians[mirrored],
        "init_residual_max": float(residuals[mirrored].max()),
        "init_scale": ratio,
    }
    if medians[mirrored] > NOT_RIGID:
        warn_user(
            f"`init={key!r}`: a rotation and a shift bring the source's cells only to within "
            f"{medians[mirrored]:.1f} neighbour distances (median) of `obsm[{key!r}]`, which is {ratio:.3g} times as "
            f"large; the fit starts from the rigid part."
        )
    return Start(pose=fits[mirrored] @ Affine(np.diag([resize, resize, 1.0])), report=report)


def _spread(xy: np.ndarray) -> float:
    return float(((xy - xy.mean(axis=0)) ** 2).sum())
