"""The levels of difficulty of made pairs, as data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Missing:
    """The part of a section that is not there.

    Parameters
    ----------
    crop
        Share of the cells that are left, on one side of a random line.
    wedge
        Angle in degrees, seen from the middle, of a sector that is missing.
    hole
        Share of the cells in a disk, around a random one of the inner quarter of cells, that is missing.
    """

    crop: float = 1.0
    wedge: float = 0.0
    hole: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Level:
    """What is done to the sections. Lengths are shares of the extent, the longer side of the section's bounding box.

    Parameters
    ----------
    warp
        Largest displacement of the source by the smooth warp.
    mirrored
        Whether the source is turned over.
    src, ref
        What is missing of the source, and of the reference: of that from the other end.
    torn
        Share of the source's cells, beyond a random line, that form a piece torn off and laid down elsewhere.
    gene_factors
        Standard deviation of the logarithm of the source's gene-wise factors.
    kept_counts
        Share of the source's counts that are left.
    n_genes
        Genes that the source's panel has; None for all.
    n_shared
        Genes that the reference's panel, then as large as the source's, has in common with it; None for all.
    logged
        Whether the source is log-normalised, and says so.
    src_pitch, ref_pitch
        Pitch of the spots that the cells of a section are binned to, in mean distances of its cells; 0 leaves cells.
    """

    warp: float = 0.10
    mirrored: bool = False
    src: Missing = field(default_factory=Missing)
    ref: Missing = field(default_factory=Missing)
    torn: float = 0.0
    gene_factors: float = 0.0
    kept_counts: float = 1.0
    n_genes: int | None = None
    n_shared: int | None = None
    logged: bool = False
    src_pitch: float = 0.0
    ref_pitch: float = 0.0


LEVELS = {
    "rigid": Level(warp=0.0),
    "easy": Level(warp=0.05),
    "medium": Level(),
    "hard": Level(warp=0.15),
    "mirror": Level(mirrored=True),
    # tissue that only one of the sections has
    "partial": Level(src=Missing(crop=0.6)),
    "crop30": Level(src=Missing(crop=0.3)),
    "wedge": Level(src=Missing(wedge=60.0)),
    "hole": Level(src=Missing(hole=0.1)),
    "torn": Level(torn=0.25),
    "ref60": Level(ref=Missing(crop=0.6)),
    "refhole": Level(ref=Missing(hole=0.1)),
    "mutual": Level(src=Missing(crop=0.7), ref=Missing(crop=0.7)),
    "mutual50": Level(src=Missing(crop=0.5), ref=Missing(crop=0.6)),
    # other expression in one of them
    "batch": Level(gene_factors=0.5, kept_counts=0.4),
    "thin20": Level(gene_factors=0.5, kept_counts=0.2),
    "genes100": Level(n_genes=100),
    "shared30": Level(n_genes=100, n_shared=30),
    "logged": Level(logged=True),
    # both
    "crop20few": Level(src=Missing(crop=0.2), n_genes=30),
    "crop30thin": Level(src=Missing(crop=0.3), gene_factors=0.5, kept_counts=0.05),
    # another resolution
    "spots": Level(src_pitch=2.5),
    "refspots": Level(ref_pitch=2.5),
}
TEAR_GAP, TEAR_SLIDE = 0.10, 0.05
"""How far a torn piece lies away from its place, and along the tear, in extents."""
PANEL_FROM = 500
"""A small panel is drawn from this many of the most detected genes: nobody designs one of genes that are not seen."""
