"""Coordinate maps as immutable objects: call them, invert them, differentiate them, compose them, store them.

Convention: coordinates are ``(n, 2)`` float64, axis order (x, y), in the user's units. A fitted map takes the source's
coordinates to the reference's. Nothing here needs torch, so that a saved map can be used without it.
"""

from inst_align.core.transforms.affine import Affine
from inst_align.core.transforms.base import Transform
from inst_align.core.transforms.compose import Compose
from inst_align.core.transforms.displacement import Displacement
from inst_align.core.transforms.inverse import FoldError, InverseDisplacement
from inst_align.core.transforms.record import from_dict, to_dict

__all__ = [
    "Affine",
    "Compose",
    "Displacement",
    "FoldError",
    "InverseDisplacement",
    "Transform",
    "from_dict",
    "to_dict",
]
