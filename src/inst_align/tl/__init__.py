"""Non-rigid alignment, and the embedding from the field that sections share."""

from inst_align.tl._align_pair import align_pair
from inst_align.tl._align_spatialdata import align_spatialdata
from inst_align.tl._embed import canonical_embed
from inst_align.tl._move_elements import move_elements

__all__ = ["align_pair", "align_spatialdata", "canonical_embed", "move_elements"]
