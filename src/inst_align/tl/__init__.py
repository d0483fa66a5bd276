"""Non-rigid alignment, and the embedding from the field that sections share."""

from inst_align.tl._align_pair import align_pair

__all__ = ["align_pair"]
