"""The canonical expression field, fitted to both sections at once, with a small residual deformation of the source.

This is the joint phase of INST-Align (section 2.4), changed in what the paper leaves undone: one field explains the
features *measured* on both sections, those of the source at the place that it is moved to, and the gradient of that
error moves it. The registration has brought the sections together before (from the pose alone a shared field learns the
wrong place twice), so the residual starts at the identity and stays small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inst_align.core.deformation import DeformationNetwork, jacobian
from inst_align.core.field import ExpressionDecoder, ExpressionField, pack_module, unpack_module
from inst_align.core.losses import fold_loss, jacobian_loss, reconstruction_loss
from inst_align.core.schedule import WindowSchedule
from inst_align.core.training import History

if TYPE_CHECKING:
    from scipy.sparse import csr_array, csr_matrix

RESIDUAL_FLOOR = 0.02
"""As in the registration: keeps the logarithm of a channel's residual finite."""
UNIT_SCALE = 2.0
"""Unit coordinates are divided by this before they enter a network: a section then spans about [-1, 1]."""
JACOBIAN_POINTS = 256
DECODED_CELLS = 256
CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class FieldConfig:
    """How the canonical field is fitted.

    Parameters
    ----------
    field_steps, joint_steps
        Optimiser steps of the field alone, and then together with the residual deformation.
    batch_size
        Cells of each section in a step: the cost of the fit does not grow with the sections.
    width, depth, n_latent
        Size of the field's blocks, their number, and the length of a latent vector.
    n_frequencies, max_log2
        Bands of the field's encoding and the power of two of the highest, in half periods per two unit lengths.
    residual_width, residual_depth, residual_frequencies, residual_max_log2
        The same of the residual deformation, which is smoother.
    learning_rate, residual_learning_rate
        Step sizes of Adam at the start; they fall to zero along a cosine.
    strain
        Weight of the squared log singular values of the residual's Jacobian. More: the residual stays closer to rigid.
    reconstruction
        Weight of the decoder's composite loss on genes.
    decoder_width
        Width of the decoder's hidden layer.
    genes_per_step
        Genes, drawn anew for every step, that the decoder is asked for.
    """

    field_steps: int = 150
    joint_steps: int = 250
    batch_size: int = 1024
    width: int = 128
    depth: int = 3
    n_latent: int = 32
    n_frequencies: int = 6
    max_log2: float = 5.0
    residual_width: int = 64
    residual_depth: int = 3
    residual_frequencies: int = 3
    residual_max_log2: float = 2.0
    learning_rate: float = 3e-3
    residual_learning_rate: float = 3e-4
    strain: float = 1.0
    reconstruction: float = 0.1
    decoder_width: int = 128
    genes_per_step: int = 128

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            least = 1 if isinstance(entry.default, int) and not entry.name.endswith("_steps") else 0
            if value < least:
                msg = f"`{entry.name}={value}` of the field's constants: must be at least {least}."
                raise ValueError(msg)

    @property
    def n_steps(self) -> int:
        """Steps of both parts together."""
        return self.field_steps + self.joint_steps


@dataclass(frozen=True, kw_only=True, eq=False)
class CanonicalField:
    """One continuous field of expression over the reference's unit frame, shared by the sections.

    Parameters
    ----------
    field
        Coordinates to latent vectors.
    features
        Latent vectors to the shared features that the sections were aligned by (one linear layer).
    decoder
        Latent vectors to log-normalised genes; ``None`` where the sections were given by a representation.
    center, scale, rotation
        The unit frame of the reference, see :class:`inst_align.core.section.UnitFrame`.
    """

    field: ExpressionField
    features: ExpressionDecoder
    decoder: ExpressionDecoder | None

    def predict(self, xy: np.ndarray, *, what: str = "features") -> np.ndarray:
        """Evaluate the field at unit coordinates (n, 2).

        Parameters
        ----------
        xy
            Coordinates in the reference's unit frame.
        what
            ``"latent"``, ``"features"`` or ``"genes"``.

        Returns
        -------
        float32, shape (n, d).
        """
        device = self.field.head.weight.device
        points = torch.as_tensor(xy / UNIT_SCALE, dtype=torch.float32)
        parts = []
        with torch.no_grad():
            for chunk in points.split(CHUNK):
                latent = self.field(chunk.to(device))
                parts.append(self._read(latent, what).cpu())
        return torch.cat(parts).numpy()

    def _read(self, latent: torch.Tensor, what: str) -> torch.Tensor:
        if what == "latent":
            return latent
        if what == "features":
            return self.features(latent)
        if self.decoder is None:
            msg = "`what='genes'`: this field was fitted to a representation and knows no genes."
            raise ValueError(msg)
        return self.decoder(latent)

    def pack(self) -> dict[str, Any]:
        """Return the field as a plain dictionary of arrays."""
        packed = {"kind": "canonical", "field": pack_module(self.field), "features": pack_module(self.features)}
        return packed | ({} if self.decoder is None else {"decoder": pack_module(self.decoder)})

    @classmethod
    def unpack(cls, packed: dict[str, Any]) -> CanonicalField:
        """Return the field that :meth:`pack` packed, on the CPU."""
        decoder = unpack_module(packed["decoder"]) if "decoder" in packed else None
        return cls(field=unpack_module(packed["field"]), features=unpack_module(packed["features"]), decoder=decoder)
