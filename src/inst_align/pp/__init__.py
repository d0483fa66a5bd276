"""Before anything is bent: the global pose, and pairs out of objects that hold several sections."""

from inst_align.pp._library import join_sections, split_sections
from inst_align.pp._rigid import rigid_align

__all__ = ["join_sections", "rigid_align", "split_sections"]
