"""Maps between coordinate frames: call them, invert them, store them, hand them to other programs. No torch needed."""

from inst_align._itk import to_itk
from inst_align._transform_file import load
from inst_align.core.transforms import Affine, Compose, Displacement, FoldError, Transform, from_dict, to_dict

__all__ = ["Affine", "Compose", "Displacement", "FoldError", "Transform", "from_dict", "load", "to_dict", "to_itk"]
