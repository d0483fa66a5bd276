"""What a fit reports while it runs and what it returns: two small immutable records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from inst_align.core.cells import CellQuality
    from inst_align.core.transforms import Affine, Compose


@dataclass(frozen=True, kw_only=True)
class Step:
    """Progress of a fit, handed to a callback.

    Parameters
    ----------
    stage
        Name of the stage that runs, for example ``"registration"``.
    done
        Steps done over all stages.
    total
        Steps of all stages together.
    """

    stage: str
    done: int
    total: int


Callback = Callable[[Step], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """Outcome of aligning one pair of sections. Maps go from the source's frame to the reference's, in user units.

    Parameters
    ----------
    affine
        The global part (rotation, shift, mirror if any).
    transform
        The whole map: ``affine`` alone, or ``affine`` followed by a displacement in the reference's frame.
    report
        Numbers and words about the result; plain values and arrays.
    history
        Loss terms by name, one array of per-step values each.
    field
        The canonical expression field as plain arrays, or ``None`` when none was fitted.
    seconds
        Wall time by stage. Not part of the record, which is the same for the same seed.
    cells
        What is said of each cell, in the order of the sections that were given, or ``None``.
    """

    affine: Affine
    transform: Affine | Compose
    report: dict[str, Any]
    history: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    field: dict[str, Any] | None = None
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    cells: CellQuality | None = None
