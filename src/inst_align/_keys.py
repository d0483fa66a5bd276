"""Every string that this package writes into a user's object, in one place."""

SPATIAL = "spatial"
SPATIAL_RIGID = "spatial_rigid"
SPATIAL_ALIGNED = "spatial_aligned"
SPATIAL_IN_SOURCE = "spatial_in_source"
"""Where a map has taken cells of the reference: into the source's frame."""
X_INST = "X_inst"
SPATIAL_TRUE = "spatial_true"
"""Only in made-up data: where each source cell belongs in the reference's frame."""

UNS = "inst_align"
"""``uns[UNS][key_added]`` holds the record of one run."""

ROLE_REFERENCE = "reference"
ROLE_SOURCE = "source"
ROLE_APPLIED = "applied"
"""Of an object that was no part of the run: a map was applied to it afterwards."""
