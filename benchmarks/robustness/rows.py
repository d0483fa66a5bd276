"""What a row of the table is, and how two results are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import inst_align as ia

if TYPE_CHECKING:
    from anndata import AnnData

KEY = "spatial_aligned"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison.

    Parameters
    ----------
    part
        Of the benchmark: ``resume``, ``forms``, ``invariance`` or ``seeds``.
    pair
        Name of the pair.
    case
        What was changed.
    bits
        Whether the result is the same to the last bit.
    median, largest
        Distance of the source's cells from where they lie when nothing is changed, in median neighbour distances of the
        reference.
    limit
        Of ``bound``, that is promised; NaN if nothing is.
    bound
        ``"largest"`` or ``"median"``.
    error
        Median distance from the true place, where that is known, in the same unit; else NaN.
    """

    part: str
    pair: str
    case: str
    bits: bool
    median: float
    largest: float
    limit: float = float("nan")
    bound: str = "largest"
    error: float = float("nan")

    @property
    def holds(self) -> bool:
        """Whether the row keeps what is promised."""
        return bool(np.isnan(self.limit) or getattr(self, self.bound) <= self.limit)


def compared(
    part: str,
    pair: str,
    case: str,
    found: np.ndarray,
    wanted: np.ndarray,
    ref: AnnData,
    *,
    limit: float = float("nan"),
    bound: str = "largest",
) -> Row:
    """Return the row for two sets of places, shape ``(n, 2)``, in the reference's frame."""
    distance = np.linalg.norm(found - wanted, axis=1) / ia.metrics.spacing(np.asarray(ref.obsm["spatial"]))
    return Row(
        part=part,
        pair=pair,
        case=case,
        bits=np.array_equal(found, wanted),
        median=float(np.median(distance)),
        largest=float(distance.max()),
        limit=limit,
        bound=bound,
    )
