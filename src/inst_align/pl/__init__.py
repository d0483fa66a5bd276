"""Plots of an alignment. Each returns a matplotlib ``Axes``; none shows, saves, or sets a global style."""

from inst_align.pl._alignment import alignment
from inst_align.pl._convergence import convergence
from inst_align.pl._deformation import deformation
from inst_align.pl._landmarks import landmarks

__all__ = ["alignment", "convergence", "deformation", "landmarks"]
