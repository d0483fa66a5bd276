"""The canonical field fitted to both sections at once, with a small residual deformation of the source.

This is the joint phase of INST-Align (section 2.4), changed in what the paper leaves undone: one field explains the
features *measured* on both sections, those of the source at the place that it is moved to, and the gradient of that
error moves it. The registration has brought the sections together before (from the pose alone a shared field learns the
wrong place twice), so the residual starts at the identity and stays small.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch

from inst_align.core.canonical import CanonicalField
from inst_align.core.checkpoint import NOTHING, Checkpoint
from inst_align.core.deformation import DeformationNetwork, jacobian
from inst_align.core.field import ExpressionDecoder, ExpressionField
from inst_align.core.guards import Guard
from inst_align.core.losses import fold_loss, jacobian_loss, reconstruction_loss
from inst_align.core.mismatch import RESIDUAL_FLOOR
from inst_align.core.schedule import WindowSchedule
from inst_align.core.training import History
from inst_align.core.velocity import fade

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from scipy.sparse import csr_array, csr_matrix

    Expression: TypeAlias = csr_matrix | csr_array | np.ndarray

HALF_EXTENT = 2.0
"""Unit coordinates are divided by this before they enter a network: a section then spans about [-1, 1]."""
JACOBIAN_POINTS = 256
DECODED_CELLS = 256
"""Cells of each section whose genes are decoded in a step."""
GRADIENT_CLIP = 2.0


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
        Width of the field's blocks, their number, and the length of a latent vector.
    n_frequencies, max_log2
        Bands of the field's encoding, and the power of two of the highest, in half periods per two unit lengths.
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
            if not value >= least:
                msg = f"`{entry.name}={value}` of the field's constants: must be at least {least}."
                raise ValueError(msg)

    @property
    def n_steps(self) -> int:
        """Steps of both parts together."""
        return self.field_steps + self.joint_steps


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldFit:
    """What the fit returns.

    Parameters
    ----------
    canonical
        The field.
    residual
        Unit coordinates (n, 2) of the registered source to where the field puts them; the identity beyond the margin.
    history
        Loss terms by step.
    """

    canonical: CanonicalField
    residual: Callable[[np.ndarray], np.ndarray]
    history: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldData:
    """What the field has to explain: coordinates in the reference's unit frame, features, and expression if any.

    Beyond ``margin`` around the bounding box of ``tissue``, shape (n, 2), nothing is moved.
    """

    xy: tuple[np.ndarray, np.ndarray]
    tissue: np.ndarray
    features: tuple[torch.Tensor, torch.Tensor]
    expression: tuple[Expression, Expression] | None
    margin: float


def fit_field(
    data: FieldData,
    config: FieldConfig,
    *,
    unit_matrix: np.ndarray,
    bend: bool = True,
    generator: torch.Generator,
    on_step: Callable[[], None] = lambda: None,
    checkpoint: Checkpoint = NOTHING,
) -> FieldFit:
    """Fit the canonical field and the residual deformation.

    Parameters
    ----------
    data
        Reference and registered source.
    config
        Constants.
    unit_matrix
        Homogeneous (3, 3): the reference's user frame to its unit frame; kept with the field.
    bend
        Whether there is a residual deformation at all; without, the field is fitted to the source where it is.
    generator
        On the CPU.
    on_step
        Called after every step.
    checkpoint
        Where the state is kept ten times.
    """
    training = _Training(data, config, generator, bend=bend)
    start = training.resume(checkpoint.load("field"))
    for _ in range(start):
        on_step()
    guard = Guard([p for group in training.groups for p in group], config.n_steps, done=start)
    for step in range(start, config.n_steps):
        loss = training.step(step)
        on_step()
        due = checkpoint.due(step, config.n_steps)
        if not guard.fine(loss, check=due):
            training.history.cut(guard.good)
            break
        if due:
            checkpoint.save("field", training.state)
    network_matrix = np.diag([1 / HALF_EXTENT, 1 / HALF_EXTENT, 1.0]) @ unit_matrix
    canonical = CanonicalField(
        matrix=network_matrix, field=training.field, features=training.features, decoder=training.decoder
    )
    return FieldFit(canonical=canonical, residual=training.residual, history=training.history.to_arrays())


class _Training:
    """Networks, optimiser and data of one fit."""

    def __init__(self, data: FieldData, config: FieldConfig, generator: torch.Generator, *, bend: bool) -> None:
        self.config, self.generator, self.margin, self.bend = config, generator, data.margin, bend
        self.device = data.features[0].device
        self.tissue = data.tissue
        self.xy = [torch.as_tensor(xy, dtype=torch.float32, device=self.device) for xy in data.xy]
        self.targets, self.expression = data.features, data.expression
        self.variance = torch.stack([f.var(dim=0) for f in data.features]).mean(dim=0).clamp_min(1e-12)
        self.history = History()
        self._build(data.features[0].shape[1])
        self.window = WindowSchedule(n_frequencies=config.n_frequencies, n_epochs=config.n_steps, fraction=1 / 3)

    def _build(self, n_features: int) -> None:
        c = self.config
        self.field = ExpressionField(
            generator=self.generator,
            n_frequencies=c.n_frequencies,
            max_log2=c.max_log2,
            width=c.width,
            depth=c.depth,
            n_latent=c.n_latent,
        ).to(self.device)
        self.features = self._decoder(n_features, width=1, depth=0)
        self.decoder = (
            None
            if self.expression is None
            else self._decoder(self.expression[0].shape[1], width=c.decoder_width, depth=1)
        )
        self.deformation = DeformationNetwork(
            generator=self.generator,
            n_frequencies=c.residual_frequencies,
            max_log2=c.residual_max_log2,
            width=c.residual_width,
            depth=c.residual_depth,
            head_width=c.residual_width,
        ).to(self.device)
        networks = [self.field, self.features, *([] if self.decoder is None else [self.decoder])]
        self.groups = [[p for network in networks for p in network.parameters()], [*self.deformation.parameters()]]
        self.optimiser = torch.optim.Adam(
            [
                {"params": self.groups[0], "lr": c.learning_rate},
                {"params": self.groups[1], "lr": c.residual_learning_rate},
            ]
        )
        self.rates = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, max(1, c.n_steps))

    def _decoder(self, n_outputs: int, *, width: int, depth: int) -> ExpressionDecoder:
        return ExpressionDecoder(
            generator=self.generator, n_genes=n_outputs, n_latent=self.config.n_latent, width=width, depth=depth
        ).to(self.device)

    def moved(self, xy: torch.Tensor, alpha: float | torch.Tensor | None = None) -> torch.Tensor:
        """Residual deformation of unit coordinates (n, 2), faded to nothing beyond the tissue and its margin."""
        weight = fade(xy, self.tissue, self.margin)[:, None]
        return xy + weight * HALF_EXTENT * self.deformation.displacement(xy / HALF_EXTENT, alpha)

    def residual(self, xy: np.ndarray) -> np.ndarray:
        """:meth:`moved` for arrays; the small step is added in float64."""
        points = torch.as_tensor(xy, dtype=torch.float32, device=self.device)
        with torch.no_grad():
            return xy + (self.moved(points) - points).cpu().numpy()

    def state(self) -> dict[str, Any]:
        """Return all that the next steps depend on."""
        networks = {name: network.state_dict() for name, network in self._networks().items()}
        return {
            "networks": networks,
            "optimiser": self.optimiser.state_dict(),
            "rates": self.rates.state_dict(),
            "generator": self.generator.get_state(),
            "history": self.history.to_arrays(),
        }

    def resume(self, state: dict[str, Any] | None) -> int:
        """Take a state back, if there is one; returns the number of steps that led to it."""
        if state is None:
            return 0
        for name, network in self._networks().items():
            network.load_state_dict(state["networks"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rates.load_state_dict(state["rates"])
        self.generator.set_state(state["generator"])
        return self.history.resume(state["history"], self.device)

    def _networks(self) -> dict[str, torch.nn.Module]:
        networks = {"field": self.field, "features": self.features, "deformation": self.deformation}
        return networks if self.decoder is None else networks | {"decoder": self.decoder}

    def step(self, index: int) -> torch.Tensor:
        """One step of the optimiser, by the loss returned; the residual deformation joins in after ``field_steps``."""
        joint = self.bend and index >= self.config.field_steps
        alpha = self.window.alpha(index)
        terms: dict[str, torch.Tensor] = {}
        reconstruction = []
        for section, xy in enumerate(self.xy):
            cells = torch.randint(len(xy), (self.config.batch_size,), generator=self.generator)
            points = xy[cells.to(self.device)]
            place = self.moved(points) if joint and section == 1 else points
            latent = self.field(place / HALF_EXTENT, alpha)
            terms["features_source" if section else "features_reference"] = self._mismatch(latent, section, cells)
            reconstruction.append(self._reconstruction(latent, section, cells))
        loss = (terms["features_reference"] + terms["features_source"]) / 2
        if self.decoder is not None:
            terms["reconstruction"] = torch.stack(reconstruction).mean()
            loss = loss + self.config.reconstruction * terms["reconstruction"]
        terms["residual_strain"] = self._strain(points[:JACOBIAN_POINTS]) if joint else loss.new_zeros(())
        loss = loss + self.config.strain * terms["residual_strain"]
        self.optimiser.zero_grad()
        loss.backward()
        for group in self.groups:
            torch.nn.utils.clip_grad_norm_(group, GRADIENT_CLIP)
        self.optimiser.step()
        self.rates.step()
        self.history.add("field", terms)
        return loss.detach()

    def _mismatch(self, latent: torch.Tensor, section: int, cells: torch.Tensor) -> torch.Tensor:
        """Mean over channels of the log of the relative residual, as in the registration."""
        target = self.targets[section][cells.to(self.device)]
        residual = (self.features(latent) - target).square().mean(dim=0)
        return torch.log(residual / self.variance + RESIDUAL_FLOOR).mean()

    def _reconstruction(self, latent: torch.Tensor, section: int, cells: torch.Tensor) -> torch.Tensor:
        """INST-Align's composite loss on some genes of some of the cells."""
        if self.decoder is None or self.expression is None:
            return latent.new_zeros(())
        matrix = self.expression[section]
        genes = torch.randperm(matrix.shape[1], generator=self.generator)[: self.config.genes_per_step]
        rows = matrix[cells[:DECODED_CELLS].numpy()][:, genes.numpy()]
        dense = rows if isinstance(rows, np.ndarray) else rows.toarray()
        target = torch.as_tensor(dense, dtype=torch.float32, device=self.device)
        predicted = self.decoder(latent[:DECODED_CELLS], genes.to(self.device))
        return reconstruction_loss(predicted, target)

    def _strain(self, points: torch.Tensor) -> torch.Tensor:
        slopes = jacobian(self.moved, points)
        return jacobian_loss(slopes, compression_weight=1.0) + 10 * fold_loss(slopes)
