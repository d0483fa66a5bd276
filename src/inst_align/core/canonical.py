"""The canonical expression field as it is kept: evaluated anywhere in the reference's frame, stored as plain arrays.

That of the default preset is :class:`inst_align.core.fourier.FourierField`; that of the paper's is a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from inst_align.core.field import ExpressionDecoder, ExpressionField, pack_module, unpack_module
from inst_align.core.fourier import FourierField
from inst_align.core.memory import in_chunks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

CHUNK = 1 << 16

What = Literal["latent", "features", "genes"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CanonicalField:
    """One continuous field of expression over the reference's frame, shared by the sections of a pair.

    Parameters
    ----------
    matrix
        Homogeneous (3, 3): the reference's user coordinates to those that the network takes.
    field
        Coordinates to latent vectors.
    decoder
        Latent vectors to log-normalised genes, or ``None``.
    """

    matrix: np.ndarray
    field: ExpressionField
    decoder: ExpressionDecoder | None = None

    @property
    def embedding(self) -> What:
        """What of the field embeds a cell."""
        return "latent"

    def predict(self, xy: ArrayLike, what: What = "latent", columns: np.ndarray | None = None) -> np.ndarray:
        """Evaluate the field.

        Parameters
        ----------
        xy
            Coordinates in the reference's frame and units, shape (n, 2), axis order (x, y): the reference's cells, the
            source's aligned ones, or any other points.
        what
            ``"latent"`` vectors or log-normalised ``"genes"``.
        columns
            Indices of the genes, or of the latent dimensions, that are wanted; ``None`` for all.

        Returns
        -------
        float32, shape (n, d).

        Raises
        ------
        ValueError
            If the field was fitted without what is asked for.
        MemoryError
            If a GPU has no memory for a few hundred points at a time.
        """
        readers = {"latent": lambda latent: latent, "genes": self.decoder}
        reader = readers.get(what)
        if reader is None:
            known = sorted(name for name, value in readers.items() if value is not None)
            msg = f"`what={what!r}` is not in this field; it has {known}."
            raise ValueError(msg)
        linear, shift = self.matrix[:2, :2], self.matrix[:2, 2]
        inputs = torch.as_tensor(np.asarray(xy, dtype=np.float64) @ linear.T + shift, dtype=torch.float32)
        device = self.field.head.weight.device

        def wanted(values: torch.Tensor) -> torch.Tensor:
            return values if columns is None else values[:, torch.as_tensor(columns, device=device)]

        with torch.no_grad():
            parts = in_chunks(
                lambda part: wanted(reader(self.field(inputs[part].to(device)))).cpu(), len(inputs), CHUNK
            )
        return torch.cat(parts).numpy()

    def pack(self) -> dict[str, Any]:
        """Return the field as a dictionary of plain arrays, for ``uns`` and so for h5ad and zarr."""
        networks = {"field": self.field, "decoder": self.decoder}
        return {"matrix": self.matrix} | {
            name: pack_module(network) for name, network in networks.items() if network is not None
        }

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> CanonicalField:
        """Return the field that :meth:`pack` packed, on the CPU."""
        networks: dict[str, Any] = {
            name: unpack_module(packed[name]) for name in ("field", "decoder") if name in packed
        }
        return cls(matrix=np.asarray(packed["matrix"], dtype=np.float64), **networks)


def unpack_field(packed: Mapping[str, Any]) -> FourierField | CanonicalField:
    """Return the field that was packed, of either kind."""
    kind = FourierField if "frequencies" in packed else CanonicalField
    return kind.unpack(packed)
