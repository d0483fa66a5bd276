"""Global, rigid alignment."""

from inst_align.pp._rigid import rigid_align

__all__ = ["rigid_align"]
