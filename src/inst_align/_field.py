"""The expression field that two aligned sections share, for users: genes by name, at any place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align._checks import listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from numpy.typing import ArrayLike

GENES = "genes"
"""Key of the names of the genes beside the field's arrays in the record."""


class ExpressionField:
    """Log-normalised expression at any place of the frame that two aligned sections share.

    One continuous function, fitted to the cells of both sections where the alignment has put them: smooth, without the noise of
    single cells, and the same for both. Where a gene's level differs between them, it lies in between. :func:`inst_align.get.field` returns it.

    Parameters
    ----------
    packed
        The field as the record holds it.

    Attributes
    ----------
    genes
        Names of the genes that it knows, shape ``(g,)``.
    """

    def __init__(self, packed: Mapping[str, Any]) -> None:
        from inst_align.core.canonical import unpack_field

        self._field = unpack_field(packed)
        self.genes: np.ndarray = np.asarray(packed[GENES], dtype=str)

    def __repr__(self) -> str:
        return f"ExpressionField of {len(self.genes)} genes"

    def predict(self, xy: ArrayLike, genes: str | Iterable[str] | None = None) -> pd.DataFrame:
        """Evaluate the field.

        Parameters
        ----------
        xy
            Places in the reference's frame and units, shape ``(n, 2)``, axis order (x, y): the reference's cells, the
            source's aligned ones, or any others. Far from the tissue the field means nothing.
        genes
            Name or names, out of ``genes``; ``None`` for all.

        Returns
        -------
        Log-normalised expression on the scale of the fit (of normalised counts the natural logarithm of 1 + x), float32,
        a row for each place and a column for each gene.

        Raises
        ------
        KeyError
            The field does not know a gene.
        ValueError
            ``xy`` is not of shape ``(n, 2)``, or not finite.
        """
        import pandas as pd

        places = np.asarray(xy, dtype=np.float64)
        if places.ndim != 2 or places.shape[1] != 2 or not np.isfinite(places).all():
            raise ValueError(f"`xy`: finite places of shape (n, 2) are needed, found shape {places.shape}.")
        wanted = (
            self.genes if genes is None else np.atleast_1d(np.asarray([genes] if isinstance(genes, str) else [*genes]))
        )
        columns = pd.Index(self.genes).get_indexer(wanted)
        if (columns < 0).any():
            unknown = [str(gene) for gene in wanted[columns < 0]]
            raise KeyError(
                f"`genes`: {listing(unknown, 5)} is not among the {len(self.genes)} genes of this field, which are those that "
                f"both sections share and the alignment took; `field.genes` names them."
            )
        return pd.DataFrame(self._field.predict(places, "genes", columns), columns=wanted)
