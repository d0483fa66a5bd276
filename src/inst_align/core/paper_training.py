"""The two phases of INST-Align's training, one function for each kind of step."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from inst_align.core import losses
from inst_align.core.alignment import Callback, Step
from inst_align.core.checkpoint import NOTHING, Checkpoint
from inst_align.core.deformation import jacobian
from inst_align.core.guards import Guard
from inst_align.core.matching import MatchState, forward_loss, reverse_loss, unit_rows
from inst_align.core.neighbours import NearestNeighbours
from inst_align.core.paper_parts import PairData, PaperNetworks, dense_rows
from inst_align.core.schedule import WindowSchedule
from inst_align.core.training import BestWeights, History

if TYPE_CHECKING:
    from inst_align.core.paper_config import PaperConfig
    from inst_align.core.paper_parts import Expression


class Resumable(Protocol):
    """What changes from epoch to epoch beside the networks."""

    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102 - as torch has it
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...  # noqa: D102


class PaperTraining:
    """One run of both phases.

    Parameters
    ----------
    networks
        Trained in place.
    data
        The pair of sections.
    config
        Constants.
    generator
        On the CPU; draws the batches.
    callback
        Called after every epoch.
    """

    def __init__(
        self,
        networks: PaperNetworks,
        data: PairData,
        config: PaperConfig,
        generator: torch.Generator,
        callback: Callback | None,
    ) -> None:
        self.networks = networks
        self.data = data
        self.config = config
        self.generator = generator
        self.callback = callback
        self.history = History()
        self.device = data.xy_ref.device
        self.match = MatchState.start(config.temperature_start, device=self.device)
        self.nearest_ref = NearestNeighbours(data.xy_ref)
        self.batch_size = min(config.batch_size, max(len(data.xy_ref), len(data.xy_src)))
        self._done = 0

    def run(self, checkpoint: Checkpoint = NOTHING) -> None:
        """Train: phase 1, then phase 2."""
        self.pretrain(checkpoint)
        self.train_jointly(checkpoint)

    def pretrain(self, checkpoint: Checkpoint = NOTHING) -> None:
        """Phase 1: fields with a shared decoder (A) and, apart from them, the deformation (B)."""
        nets, config = self.networks, self.config
        trained = (nets.field_ref, nets.field_src, nets.decoder)
        optimizer_fields = self._adam(*trained)
        optimizer_deformation = self._adam(nets.deformation)
        window = self._window(config.phase1_epochs, config.phase1_opening)
        best = BestWeights(*trained)
        parts = optimizer_fields, optimizer_deformation, best
        start = self._resume("phase1", checkpoint, *parts)
        guard = self._guard(config.phase1_epochs, start)
        for epoch in range(start, config.phase1_epochs):
            alpha = window.alpha(epoch)
            reconstruction = self._pretrain_fields(alpha, optimizer_fields)
            matching = self._pretrain_deformation(alpha, optimizer_deformation)
            if window.is_open(epoch):
                best.offer(float(reconstruction))
            terms = {"reconstruction": reconstruction, "matching": matching, "temperature": self.match.temperature}
            self._finish_epoch("phase1", terms)
            if not self._goes_on("phase1", checkpoint, guard, epoch, reconstruction + matching, *parts):
                break  # the best weights may be those after a bad step
        else:
            best.restore()
        fresh = MatchState.start(config.temperature_start, device=self.device)
        self.match = replace(self.match, temperature=fresh.temperature)

    def train_jointly(self, checkpoint: Checkpoint = NOTHING) -> None:
        """Phase 2: deformation, canonical field and decoder together, by passes over the source."""
        nets, config = self.networks, self.config
        trained = (nets.deformation, nets.field_ref, nets.decoder)
        optimizer = self._adam(*trained)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer,
            factor=config.plateau_factor,
            patience=config.plateau_patience,
            min_lr=config.learning_rate_min,
        )
        window = self._window(config.phase2_epochs, config.phase2_opening)
        best = BestWeights(*trained)
        start = self._resume("phase2", checkpoint, optimizer, plateau, best)
        guard = self._guard(config.phase2_epochs, start)
        for epoch in range(start, config.phase2_epochs):
            alpha = window.alpha(epoch)
            features_ref = self._features_ref()
            order = torch.randperm(len(self.data.xy_src), generator=self.generator)
            steps = [self._joint_step(batch, features_ref, alpha, optimizer) for batch in order.split(self.batch_size)]
            terms = {name: torch.stack([step[name] for step in steps]).mean() for name in steps[0]}
            terms["coverage"] = self._coverage_step(features_ref, alpha, optimizer)
            terms["temperature"] = self.match.temperature
            # The one place in an epoch where the host has to wait for the device.
            matching = float(terms["matching"])
            plateau.step(matching)
            if window.is_open(epoch):
                best.offer(matching)
            self._finish_epoch("phase2", terms)
            if not self._goes_on("phase2", checkpoint, guard, epoch, terms["total"], optimizer, plateau, best):
                break  # the best weights may be those after a bad step
        else:
            best.restore()

    def _guard(self, n_epochs: int, start: int) -> Guard:
        return Guard(
            [p for network in self.networks.by_name().values() for p in network.parameters()], n_epochs, done=start
        )

    def _resume(self, phase: str, checkpoint: Checkpoint, *parts: Resumable) -> int:
        """Take back the state of a phase, if it was kept; returns the number of epochs that led to it."""
        kept = checkpoint.load(phase)
        if kept is None:
            return 0
        for name, network in self.networks.by_name().items():
            network.load_state_dict(kept["networks"][name])
        for part, state in zip(parts, kept["parts"], strict=True):
            part.load_state_dict(state)
        self.match = MatchState(**{name: value.to(self.device) for name, value in kept["match"].items()})
        self.generator.set_state(kept["generator"])
        self.history.resume(kept["history"], self.device)
        for _ in range(kept["epochs"]):
            self._tell(phase)
        return int(kept["epochs"])

    def _goes_on(
        self, phase: str, checkpoint: Checkpoint, guard: Guard, epoch: int, loss: Tensor, *parts: Resumable
    ) -> bool:
        """Look whether all is finite, and keep the state of a phase, whenever that is due."""
        due = checkpoint.due(epoch, guard.n_steps)
        if not guard.fine(loss, check=due):
            self.history.cut(guard.good, phase)
            return False
        if due:
            checkpoint.save(
                phase,
                lambda: {
                    "epochs": epoch + 1,
                    "networks": {name: network.state_dict() for name, network in self.networks.by_name().items()},
                    "parts": [part.state_dict() for part in parts],
                    "match": {field.name: getattr(self.match, field.name) for field in fields(self.match)},
                    "generator": self.generator.get_state(),
                    "history": self.history.to_arrays(),
                },
            )
        return True

    def _pretrain_fields(self, alpha: float, optimizer: torch.optim.Optimizer) -> Tensor:
        """Phase 1 (A): each section's field and the shared decoder reconstruct that section's expression."""
        nets, data = self.networks, self.data
        rows_ref, rows_src = self._draw(len(data.xy_ref)), self._draw(len(data.xy_src))
        latent_ref = nets.field_ref(self._at(data.xy_ref, rows_ref), alpha)
        latent_src = nets.field_src(self._at(data.xy_src, rows_src), alpha)
        loss_ref = self._reconstruction(latent_ref, data.expression_ref, rows_ref)
        loss_src = self._reconstruction(latent_src, data.expression_src, rows_src)
        loss = (loss_ref + loss_src) / 2
        self._step(optimizer, loss, nets.field_ref, nets.field_src, nets.decoder)
        return loss.detach()

    def _pretrain_deformation(self, alpha: float, optimizer: torch.optim.Optimizer) -> Tensor:
        """Phase 1 (B): the deformation matches the measured principal components."""
        nets, data = self.networks, self.data
        rows = self._draw(len(data.xy_src))
        moved = nets.deformation(self._at(data.xy_src, rows), alpha)
        loss = self._matching(moved, self._at(data.pca_src, rows), data.pca_ref)
        self._step(optimizer, loss, nets.deformation)
        return loss.detach()

    def _joint_step(
        self, rows: Tensor, features_ref: Tensor, alpha: float, optimizer: torch.optim.Optimizer
    ) -> dict[str, Tensor]:
        """Phase 2, one batch of the source: every term of eq. 8, and the magnitude of the deformation."""
        nets, data, config = self.networks, self.data, self.config
        xy_src = self._at(data.xy_src, rows)
        moved = nets.deformation(xy_src, alpha)
        # The field neither learns from the matching nor moves points by its reconstruction.
        latent_src = nets.field_ref(moved.detach())
        rows_ref = self._draw(len(data.xy_ref), len(rows))
        latent_ref = nets.field_ref(self._at(data.xy_ref, rows_ref))
        some = torch.randperm(len(rows), generator=self.generator)[: config.jacobian_points]
        slopes = jacobian(nets.deformation, xy_src[some.to(self.device)], alpha)
        loss_ref = self._reconstruction(latent_ref, data.expression_ref, rows_ref)
        loss_src = self._reconstruction(latent_src, data.expression_src, rows)
        terms = {
            "matching": self._matching(moved, unit_rows(latent_src.detach()), features_ref),
            "reconstruction": (loss_ref + loss_src) / 2,
            "jacobian": losses.jacobian_loss(slopes, config.compression_weight),
            "magnitude": losses.mean_square_distance(moved, xy_src),
        }
        total = (
            terms["matching"]
            + config.lambda_recon * terms["reconstruction"]
            + config.lambda_jacobian * terms["jacobian"]
            + config.lambda_magnitude * terms["magnitude"]
        )
        self._step(optimizer, total, nets.deformation, nets.field_ref, nets.decoder)
        return {name: value.detach() for name, value in {**terms, "total": total}.items()}

    def _coverage_step(self, features_ref: Tensor, alpha: float, optimizer: torch.optim.Optimizer) -> Tensor:
        """Phase 2, end of an epoch: all reference points ask all deformed source points to explain them."""
        nets, data = self.networks, self.data
        moved = nets.deformation(data.xy_src, alpha)
        with torch.no_grad():
            features_src = unit_rows(nets.field_ref(moved))
        reverse = reverse_loss(moved, features_src, data.xy_ref, features_ref, self.match, self.config.matching)
        loss = self.config.reverse_weight * reverse
        self._step(optimizer, loss, nets.deformation)
        return loss.detach()

    def _matching(self, moved: Tensor, features_src: Tensor, features_ref: Tensor) -> Tensor:
        """Both directions of the matching of a batch against the whole reference; moves scales and temperature on."""
        xy_ref, settings = self.data.xy_ref, self.config.matching
        forward, self.match = forward_loss(
            moved, features_src, xy_ref, features_ref, self.match, settings, nearest=self.nearest_ref
        )
        reverse = reverse_loss(moved, features_src, xy_ref, features_ref, self.match, settings)
        return forward + self.config.reverse_weight * reverse

    def _features_ref(self) -> Tensor:
        with torch.no_grad():
            return unit_rows(self.networks.field_ref(self.data.xy_ref))

    def _reconstruction(self, latent: Tensor, expression: Expression, rows: Tensor) -> Tensor:
        """Return the loss of decoding latent vectors to the measured expression of the given cells."""
        target = dense_rows(expression, rows).to(self.device)
        return losses.reconstruction_loss(self.networks.decoder(latent), target, dice_weight=self.config.dice_weight)

    def _step(self, optimizer: torch.optim.Optimizer, loss: Tensor, *modules: nn.Module) -> None:
        """Take one step, the gradient of each module clipped by itself."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for module in modules:
            nn.utils.clip_grad_norm_(module.parameters(), self.config.gradient_clip)
        optimizer.step()

    def _adam(self, *modules: nn.Module) -> torch.optim.Adam:
        parameters = [parameter for module in modules for parameter in module.parameters()]
        return torch.optim.Adam(parameters, lr=self.config.learning_rate)

    def _window(self, n_epochs: int, fraction: float) -> WindowSchedule:
        return WindowSchedule(n_frequencies=self.config.n_frequencies, n_epochs=n_epochs, fraction=fraction)

    def _draw(self, n_cells: int, size: int | None = None) -> Tensor:
        """Return random cells, with replacement, as indices on the CPU."""
        return torch.randint(n_cells, (self.batch_size if size is None else size,), generator=self.generator)

    def _at(self, values: Tensor, rows: Tensor) -> Tensor:
        return values[rows.to(self.device)]

    def _finish_epoch(self, phase: str, terms: dict[str, Tensor]) -> None:
        self.history.add(phase, terms)
        self._tell(phase)

    def _tell(self, phase: str) -> None:
        self._done += 1
        if self.callback is not None:
            total = self.config.phase1_epochs + self.config.phase2_epochs
            self.callback(Step(stage=phase, done=self._done, total=total))
