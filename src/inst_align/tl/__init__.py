"""Non-rigid alignment, and the embedding from the field that sections share."""

from inst_align.tl._align_pair import align_pair
from inst_align.tl._embed import canonical_embed

__all__ = ["align_pair", "canonical_embed"]
