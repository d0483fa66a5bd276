"""A source in another unit of length than the reference: resized on the way in, and the factor made part of the map."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align._checks import Scale, check_factor, check_scale, check_units, extent
from inst_align._random import torch_generator

if TYPE_CHECKING:
    import torch

    from inst_align._anndata import Pair
    from inst_align.core.alignment import Alignment
    from inst_align.core.landmarks import Landmarks
    from inst_align.core.section import Section
    from inst_align.core.transforms import Affine

logger = logging.getLogger("inst_align")

RIGID = 1e-6
"""A pose whose scale differs from 1 by no more than this has none."""


@dataclass(frozen=True, kw_only=True)
class Resizing:
    """What the source's coordinates are multiplied by, so that the fit sees both sections in the reference's unit.

    Parameters
    ----------
    factor
        The factor; 1 leaves everything as it is, to the last bit.
    report
        What the report says of it.
    """

    factor: float
    report: dict[str, Any]

    def section(self, src: Section) -> Section:
        """Return the source in the reference's unit."""
        return src if self.factor == 1 else replace(src, xy=src.xy * self.factor)

    def landmarks(self, landmarks: Landmarks) -> Landmarks:
        """Return landmarks whose points in the source are in the reference's unit."""
        return landmarks.mapped(lambda xy: xy, lambda xy: xy * self.factor)

    def pose(self, pose: Affine | None) -> Affine | None:
        """Return a pose of the source in its own unit as one of the source in the reference's unit."""
        return pose if pose is None or self.factor == 1 else pose @ self._matrix().inverse()

    def result(self, found: Alignment) -> Alignment:
        """Return the outcome for the source in the reference's unit as one for the source in its own unit."""
        report = found.report | self.report
        if self.factor == 1:
            return replace(found, report=report)
        from inst_align.core.transforms import Affine, Compose

        first = self._matrix()
        affine = found.affine @ first
        if isinstance(found.transform, Affine):
            return replace(found, affine=affine, transform=found.transform @ first, report=report)
        return replace(found, affine=affine, transform=Compose((first, found.transform)), report=report)

    def _matrix(self) -> Affine:
        from inst_align.core.transforms import Affine

        return Affine(np.diag([self.factor, self.factor, 1.0]))


def resizing(
    pair: Pair, scale: Scale, pose: Affine | None, *, rng: np.random.Generator, device: torch.device
) -> Resizing:
    """Settle the factor between the units of two sections.

    Parameters
    ----------
    pair
        The sections as they were read.
    scale
        None: both are in one unit, unless ``pose`` says otherwise. A number: the factor. "estimate": it is estimated
        (:func:`inst_align.core.scale.estimate_scale`).
    pose
        The pose that the user gave or that is on record, in the sections' own units; it brings a factor of its own.
    rng, device
        For the features that the estimate compares; nothing is drawn for anything else.

    Raises
    ------
    ValueError
        ``scale`` is no factor or stands beside a pose, or the sections seem to be in different units.
    """
    check_scale(scale)
    if scale is not None and pose is not None:
        raise ValueError(
            f"`init` and `scale={scale!r}` exclude each other: a pose brings its own factor, {pose.scale:.4g} here; "
            f"pass one of them."
        )
    if scale == "estimate":
        from inst_align.core.scale import estimate_scale

        factor = estimate_scale(
            pair.ref,
            pair.src,
            start=extent(pair.ref) / extent(pair.src),
            generator=torch_generator(rng),
            device=device,
        )
        logger.info("estimated that the source's coordinates have to be multiplied by %.4g", factor)
        return Resizing(factor=factor, report={"scale": factor, "scale_method": "estimated"})
    if pose is not None:
        factor = pose.scale if abs(pose.scale - 1) > RIGID else 1.0
        check_factor(pair.ref, pair.src, factor=factor, argument="init")
        check_units(
            pair.ref,
            pair.src,
            factor=factor,
            settled=factor != 1,
            way_out="give `init` the factor between them, or leave it out and pass `scale`",
        )
        return Resizing(factor=factor, report={"scale": factor, "scale_method": "pose"} if factor != 1 else {})
    if scale is None:
        size = extent(pair.ref) / extent(pair.src)
        way_out = (
            f"say by `scale` of `ia.pp.rigid_align` or `ia.tl.align_pair` what the source's coordinates are to be "
            f'multiplied by ({size:.4g} makes the extents equal), "estimate" to have that estimated, or 1 if both are in '
            f"one unit"
        )
        check_units(pair.ref, pair.src, factor=1.0, settled=False, way_out=way_out)
        return Resizing(factor=1.0, report={})
    factor = float(scale)
    check_factor(pair.ref, pair.src, factor=factor, argument="scale")
    if factor != 1:
        check_units(pair.ref, pair.src, factor=factor, settled=True, way_out="")
    return Resizing(factor=factor, report={"scale": factor, "scale_method": "given"})
