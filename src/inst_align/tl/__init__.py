"""Non-rigid alignment, the embedding of cells by what sections share, and fitted maps applied to anything else."""

from inst_align.tl._align_pair import align_pair
from inst_align.tl._align_spatialdata import align_spatialdata
from inst_align.tl._apply import apply_transform
from inst_align.tl._embed import canonical_embed
from inst_align.tl._move_elements import move_elements

__all__ = ["align_pair", "align_spatialdata", "apply_transform", "canonical_embed", "move_elements"]
