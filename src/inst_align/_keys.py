"""Every string that this package writes into a user's object, in one place."""

SPATIAL = "spatial"
SPATIAL_RIGID = "spatial_rigid"
SPATIAL_ALIGNED = "spatial_aligned"
X_INST = "X_inst"
SPATIAL_TRUE = "spatial_true"
"""Only in made-up data: where each source cell belongs in the reference's frame."""

SYSTEM_ALIGNED = "aligned"
"""Coordinate system of a SpatialData object for elements that went along a map."""
SYSTEM_AFFINE = "aligned_affine"
"""Coordinate system to which an alignment's affine part is registered."""
SUFFIX_ALIGNED = "_aligned"
"""What the names of moved elements end in."""

UNS = "inst_align"
"""``uns[UNS][key_added]`` holds the record of one run."""

ROLE_REFERENCE = "reference"
ROLE_SOURCE = "source"
