"""Every string that this package writes into a user's object, in one place."""

SPATIAL = "spatial"
SPATIAL_RIGID = "spatial_rigid"
SPATIAL_ALIGNED = "spatial_aligned"
SPATIAL_IN_SOURCE = "spatial_in_source"
"""Where a map has taken cells of the reference: into the source's frame."""
X_INST = "X_inst"
SPATIAL_TRUE = "spatial_true"
"""Only in made-up data: where each source cell belongs in the reference's frame."""

INST_OVERLAP, INST_SD = "inst_overlap", "inst_sd"
"""Columns of ``obs``: the probability to have a counterpart, and how far a cell may be from where it belongs."""


def cell_columns(key_added: str) -> tuple[str, str]:
    """Return the names of both columns for the results under a key: of their own where the key is not the usual one.

    Examples
    --------
    >>> cell_columns("spatial_aligned")
    ('inst_overlap', 'inst_sd')
    >>> cell_columns("again")
    ('again_overlap', 'again_sd')
    """
    if key_added == SPATIAL_ALIGNED:
        return INST_OVERLAP, INST_SD
    return f"{key_added}_overlap", f"{key_added}_sd"


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
ROLE_LIBRARY = "library"
"""Of an object that holds several sections, whose own records are inside."""
ROLE_APPLIED = "applied"
"""Of an object that was no part of the run: a map was applied to it afterwards."""

SPATIALDATA = "spatialdata"
"""In a record: what was written to the elements of the source's SpatialData object."""
