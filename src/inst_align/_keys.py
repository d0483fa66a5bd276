"""Every string that this package writes into a user's object, in one place."""

SPATIAL = "spatial"
SPATIAL_RIGID = "spatial_rigid"
SPATIAL_ALIGNED = "spatial_aligned"
X_INST = "X_inst"
SPATIAL_TRUE = "spatial_true"
"""Only in made-up data: where each source cell belongs in the reference's frame."""

UNS = "inst_align"
"""``uns[UNS][key_added]`` holds the record of one run."""

ROLE_REFERENCE = "reference"
ROLE_SOURCE = "source"
ROLE_LIBRARY = "library"
"""Of an object that holds several sections, whose own records are inside."""
