"""What INST-Align's training works on: the data of a pair, and the networks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from inst_align.core.deformation import DeformationNetwork
from inst_align.core.field import ExpressionDecoder, ExpressionField

if TYPE_CHECKING:
    from scipy.sparse import csr_array, csr_matrix

    from inst_align.core.paper_config import PaperConfig

    Expression: TypeAlias = csr_matrix | csr_array | np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class PairData:
    """Both sections as the training sees them.

    Parameters
    ----------
    xy_ref, xy_src
        z-scored coordinates, shapes ``(n, 2)`` and ``(m, 2)``, on the device.
    expression_ref, expression_src
        Log-normalised expression, shapes ``(n, g)`` and ``(m, g)``, in main memory.
    pca_ref, pca_src
        Principal components with rows of unit length, shapes ``(n, d)`` and ``(m, d)``, on the device.
    """

    xy_ref: Tensor
    xy_src: Tensor
    expression_ref: Expression
    expression_src: Expression
    pca_ref: Tensor
    pca_src: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PaperNetworks:
    """Everything that is trained: the deformation, one field per section, and the decoder that they share."""

    deformation: DeformationNetwork
    field_ref: ExpressionField
    field_src: ExpressionField
    decoder: ExpressionDecoder

    @classmethod
    def build(
        cls, config: PaperConfig, *, n_genes: int, generator: torch.Generator, device: torch.device | str
    ) -> PaperNetworks:
        """Return untrained networks on a device, their values drawn on the generator's."""

        def field() -> ExpressionField:
            return ExpressionField(
                generator=generator,
                n_frequencies=config.n_frequencies,
                max_log2=config.max_log2,
                width=config.field_width,
                depth=config.field_depth,
                n_latent=config.n_latent,
            ).to(device)

        deformation = DeformationNetwork(
            generator=generator,
            n_frequencies=config.n_frequencies,
            max_log2=config.max_log2,
            width=config.deformation_width,
            depth=config.deformation_depth,
            head_width=config.deformation_head,
        ).to(device)
        decoder = ExpressionDecoder(
            generator=generator,
            n_genes=n_genes,
            n_latent=config.n_latent,
            width=config.decoder_width,
            depth=config.decoder_depth,
        ).to(device)
        return cls(deformation=deformation, field_ref=field(), field_src=field(), decoder=decoder)

    def by_name(self) -> dict[str, nn.Module]:
        """Return all of them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def dense_rows(expression: Expression, rows: Tensor) -> Tensor:
    """Return some rows of a sparse or dense matrix as a dense float32 tensor on the CPU."""
    chosen = expression[rows.numpy()]
    values = chosen if isinstance(chosen, np.ndarray) else chosen.toarray()
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
