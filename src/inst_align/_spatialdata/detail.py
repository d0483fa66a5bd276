"""How finely moved elements are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inst_align._spatialdata.canvas import Canvas


@dataclass(frozen=True, kw_only=True, eq=False)
class Detail:
    """What the caller decides about pixels and edges; the parameters of :func:`inst_align.tl.move_elements`.

    Parameters
    ----------
    pixel_size
        Of new rasters, in units of the frame that the map leads to; None keeps what they have.
    like
        The grid that new rasters continue; excludes ``pixel_size``.
    crop
        Whether to take that grid as it is.
    max_edge
        Longest edge of polygons before they are moved; None lets the map decide.

    Raises
    ------
    ValueError
        If a size is none, or arguments exclude or need each other.
    """

    pixel_size: float | None = None
    like: Canvas | None = None
    crop: bool = False
    max_edge: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("pixel_size", self.pixel_size), ("max_edge", self.max_edge)):
            if value is not None and not value > 0:
                raise ValueError(f"`{name}={value}` must be positive.")
        if self.pixel_size is not None and not math.isfinite(self.pixel_size):
            raise ValueError(f"`pixel_size={self.pixel_size}` must be finite.")
        if self.pixel_size is not None and self.like is not None:
            raise ValueError(f"`pixel_size={self.pixel_size}` and `like` exclude each other; pass one of them.")
        if self.crop and self.like is None:
            raise ValueError("`crop=True` needs `like`, the raster whose grid is not to be left.")
