"""Numbers that say how good an overlay is: plain arrays in, plain numbers out.

Conventions: data come in the order (reference, source), coordinates are ``(n, 2)`` in the axis order (x, y), both
sections are given in the reference's frame and units (hand in the *aligned* source), and rows may come in any order.
"""

from inst_align.metrics._geometry import chamfer_distance, chamfer_floor, fold_fraction, registration_error, spacing
from inst_align.metrics._landmarks import LandmarkError, landmark_error
from inst_align.metrics._labels import label_transfer_ari, nn_accuracy, ot_accuracy

__all__ = [
    "LandmarkError",
    "chamfer_distance",
    "chamfer_floor",
    "fold_fraction",
    "label_transfer_ari",
    "landmark_error",
    "nn_accuracy",
    "ot_accuracy",
    "registration_error",
    "spacing",
]
