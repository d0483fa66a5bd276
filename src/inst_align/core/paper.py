"""INST-Align as published: the fit of one pair of sections, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from inst_align.core.checkpoint import NOTHING, Checkpoint
from inst_align.core.matching import unit_rows
from inst_align.core.memory import in_chunks
from inst_align.core.paper_config import PaperConfig
from inst_align.core.paper_parts import PairData, PaperNetworks
from inst_align.core.paper_training import PaperTraining

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy.sparse import csr_array, csr_matrix
    from torch import Tensor

    from inst_align.core.alignment import Callback
    from inst_align.core.deformation import DeformationNetwork
    from inst_align.core.field import ExpressionDecoder, ExpressionField

__all__ = ["PaperConfig", "PaperFit", "fit_paper"]

CHUNK_ROWS = 1 << 16
"""Points that are sent through a network at once when no gradient is needed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PaperFit:
    """A fitted pair: the networks and the frame that they work in.

    Parameters
    ----------
    deformation, field, decoder
        Deformation network, canonical field and decoder, on the device of the fit.
    center, scale
        Shape ``(2,)`` each: the networks work on ``(xy - center) / scale``, axis by axis.
    history
        Loss terms by name (``phase1....``, ``phase2....``), one float32 value per epoch.
    """

    deformation: DeformationNetwork
    field: ExpressionField
    decoder: ExpressionDecoder
    center: np.ndarray
    scale: np.ndarray
    history: dict[str, np.ndarray]

    def displace(self, xy: np.ndarray) -> np.ndarray:
        """Move the source's points into the reference.

        Parameters
        ----------
        xy
            Coordinates of the source after the pose, shape ``(n, 2)``, in the frame and units that were fitted.

        Returns
        -------
        Shape ``(n, 2)``, float64, in the same frame and units.
        """
        return xy + self._evaluate(self.deformation.displacement, xy) * self.scale

    def embed(self, xy: np.ndarray) -> np.ndarray:
        """Evaluate the canonical field.

        Parameters
        ----------
        xy
            Coordinates in the reference's frame, shape ``(n, 2)``: of the reference's cells, or of the source's after
            :meth:`displace`.

        Returns
        -------
        Latent vectors, shape ``(n, n_latent)``, float32.
        """
        return self._evaluate(self.field, xy)

    def _evaluate(self, function: Callable[[Tensor], Tensor], xy: np.ndarray) -> np.ndarray:
        device = next(self.field.parameters()).device
        points = torch.from_numpy(((xy - self.center) / self.scale).astype(np.float32))
        with torch.no_grad():
            parts = in_chunks(lambda part: function(points[part].to(device)).cpu(), len(points), CHUNK_ROWS)
        return torch.cat(parts).numpy()


def fit_paper(
    xy_ref: np.ndarray,
    xy_src: np.ndarray,
    expression_ref: csr_matrix | csr_array | np.ndarray,
    expression_src: csr_matrix | csr_array | np.ndarray,
    pca_ref: np.ndarray,
    pca_src: np.ndarray,
    *,
    config: PaperConfig,
    generator: torch.Generator,
    device: torch.device | str,
    callback: Callback | None = None,
    checkpoint: Checkpoint = NOTHING,
) -> PaperFit:
    """Fit INST-Align in its two phases to a pair of sections that share a pose.

    Phase 1 trains one expression field per section with a common decoder and, by itself, the deformation by matching
    principal components. Phase 2 drops the source's field and trains deformation, canonical field and decoder
    together. From then on the source's own expression moves no point any more: the cost of a match compares the field
    with itself, at two places. That is how the method is published.

    Parameters
    ----------
    xy_ref, xy_src
        Coordinates after the rigid pose, shapes ``(n, 2)`` and ``(m, 2)``, float64, axis order (x, y), in one frame.
        They are z-scored here, axis by axis, over both sections.
    expression_ref, expression_src
        Log-normalised expression, shapes ``(n, g)`` and ``(m, g)``, float32, the same genes in the same order. Sparse
        rows are made dense one batch at a time.
    pca_ref, pca_src
        Joint principal components of the cells, shapes ``(n, d)`` and ``(m, d)``.
    config
        Constants.
    generator
        On the CPU: every random number is drawn there, so that a seed means the same batches on every device. The
        global generators are left alone. A seed gives the same bits again on one CPU; CUDA adds in varying order.
    device
        Where the networks are trained.
    callback
        Called after every epoch.
    checkpoint
        Where the state is kept, ten times in each phase.

    Returns
    -------
    The fitted networks, with the frame that they work in.

    Raises
    ------
    ValueError
        If ``generator`` is not on the CPU.

    References
    ----------
    INST-Align: Implicit Neural Alignment for Spatial Transcriptomics via Canonical Expression Fields, sections 2.1 to
    2.4.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> xy, counts = rng.normal(size=(60, 2)), rng.poisson(1.0, size=(60, 8)).astype(np.float32)
    >>> generator = torch.Generator().manual_seed(0)
    >>> config = PaperConfig(phase1_epochs=2, phase2_epochs=2, field_width=8, decoder_width=8)
    >>> fit = fit_paper(xy, xy, counts, counts, counts, counts, config=config, generator=generator, device="cpu")
    >>> fit.displace(xy).shape, fit.embed(xy).shape
    ((60, 2), (60, 64))
    """
    if generator.device.type != "cpu":
        msg = f"`generator` must be on the CPU, found one on {generator.device}: pass `torch.Generator()`."
        raise ValueError(msg)
    both = np.concatenate([xy_ref, xy_src])
    center, scale = both.mean(axis=0), both.std(axis=0)

    def to_device(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(values, dtype=np.float32)).to(device)

    data = PairData(
        xy_ref=to_device((xy_ref - center) / scale),
        xy_src=to_device((xy_src - center) / scale),
        expression_ref=expression_ref,
        expression_src=expression_src,
        pca_ref=unit_rows(to_device(pca_ref)),
        pca_src=unit_rows(to_device(pca_src)),
    )
    networks = PaperNetworks.build(config, n_genes=expression_ref.shape[1], generator=generator, device=device)
    training = PaperTraining(networks, data, config, generator, callback)
    training.run(checkpoint)
    return PaperFit(
        deformation=networks.deformation,
        field=networks.field_ref,
        decoder=networks.decoder,
        center=center,
        scale=scale,
        history=training.history.to_arrays(),
    )
