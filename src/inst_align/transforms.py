"""Maps between coordinate frames: call them, invert them, store them. No torch needed."""

from inst_align.core.transforms import Affine, Compose, Displacement, FoldError, from_dict, to_dict

__all__ = ["Affine", "Compose", "Displacement", "FoldError", "from_dict", "to_dict"]
