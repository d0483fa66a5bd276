"""Plots, each of which returns a matplotlib ``Axes`` and neither shows, saves, nor sets a style; and a report as a file."""

from inst_align.pl._alignment import alignment
from inst_align.pl._convergence import convergence
from inst_align.pl._deformation import deformation
from inst_align.pl._field import field
from inst_align.pl._landmarks import landmarks
from inst_align.pl._report import report

__all__ = ["alignment", "convergence", "deformation", "field", "landmarks", "report"]
