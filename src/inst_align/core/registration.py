"""Coarse-to-fine registration of the two sections' feature fields: a smooth, invertible, expression-driven map.

At every level, from blurred to sharp, the velocity field of a map and of its inverse (:mod:`inst_align.core.velocity`)
is moved downhill on

    (D(source -> reference) + D(reference -> source)) / 2 + strain * E_strain + bending * E_bending

where D asks in one direction whether the tissue finds its own features in the other section
(:mod:`inst_align.core.mismatch`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from inst_align.core.checkpoint import NOTHING, Checkpoint
from inst_align.core.guards import Guard
from inst_align.core.landmark_terms import Pull
from inst_align.core.mismatch import Cells, Drawn, Mismatch
from inst_align.core.raster import grid_sample
from inst_align.core.registration_config import Level, RegistrationConfig
from inst_align.core.transforms import Displacement
from inst_align.core.velocity import ControlLattice, Flow, bending_energy, fade, strain_energy

if TYPE_CHECKING:
    from collections.abc import Callable

    from inst_align.core.landmarks import Landmarks
    from inst_align.core.raster import Grid

__all__ = ["Level", "Registration", "RegistrationConfig", "register"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Registration:
    """The map found, in the reference's unit frame.

    Parameters
    ----------
    grid
        Where the map moves anything.
    forward, backward
        From the posed source to the reference, and the inverse of that; the identity on the border of their grid.
    history
        Data and smoothness terms by step, arrays of shape (n_steps,).
    """

    grid: Grid
    forward: Displacement
    backward: Displacement
    history: dict[str, np.ndarray]


def register(
    xy_ref: np.ndarray,
    xy_src: np.ndarray,
    features_ref: torch.Tensor,
    features_src: torch.Tensor,
    config: RegistrationConfig,
    *,
    landmarks: Landmarks | None = None,
    on_step: Callable[[], None] = lambda: None,
    checkpoint: Checkpoint = NOTHING,
) -> Registration:
    """Find the non-rigid map that takes the posed source onto the reference.

    Parameters
    ----------
    xy_ref, xy_src
        Coordinates in the reference's unit frame, shapes (n, 2) and (m, 2); the source's after the global pose.
    features_ref, features_src
        Shared features, shapes (n, k) and (m, k).
    config
        How.
    landmarks
        Pairs of points that are to meet, in the frame of the coordinates.
    on_step
        Called after every optimiser step.
    checkpoint
        Where the velocity is kept after every level.
    """
    device = features_ref.device
    both = np.concatenate([xy_ref, xy_src])
    cells = Cells.of(xy_ref, features_ref), Cells.of(xy_src, features_src)
    grids = [config.grid(both, level.sigma) for level in config.levels]
    grid, terms = grids[0], []
    velocity = torch.zeros(2, grid.height, grid.width, device=device)
    kept = checkpoint.load("registration")
    if kept is not None:
        velocity, terms = kept["velocity"].to(device), [each.to(device) for each in kept["terms"]]
        grid = grids[len(terms) - 1]
        for _ in torch.cat(terms):
            on_step()
    start = len(terms)
    for level, new_grid in zip(config.levels[start:], grids[start:], strict=True):
        lattice = ControlLattice(new_grid, level.control_spacing, device)
        control = lattice.fit(_resample(velocity, grid, new_grid))
        grid = new_grid
        ref, src = (Drawn.draw(grid, section, level.sigma) for section in cells)
        pull = None
        if landmarks is not None:
            pull = Pull.of(landmarks, grid, control=level.control_spacing, spacing=cells[0].spacing, device=device)
        problem = _Problem(grid, ref, src, fade(grid.points(device), both, config.margin), lattice, config, pull)
        velocity, level_terms = problem.solve(control, level, on_step, done=sum(map(len, terms)))
        terms.append(level_terms)
        if len(level_terms) < level.steps:  # stopped early
            break
        checkpoint.save("registration", lambda: {"velocity": velocity, "terms": terms})  # noqa: B023 - at once

    with torch.no_grad():
        flow = Flow(grid, device)
        vectors = [flow.exp(sign * velocity, squarings=8).cpu().numpy() for sign in (1, -1)]
    forward, backward = (Displacement(v, np.asarray(grid.origin), grid.pixel) for v in vectors)
    data, smoothness = torch.cat(terms).T.cpu().numpy()
    return Registration(
        grid=grid,
        forward=forward,
        backward=backward,
        history={"registration.data": data, "registration.smoothness": smoothness},
    )


def _resample(velocity: torch.Tensor, old: Grid, new: Grid) -> torch.Tensor:
    points = old.normalize(new.points(velocity.device))[None]
    return grid_sample(velocity[None], points, border=True)[0]


class _Problem:
    """The cost of one level, and its descent."""

    def __init__(
        self,
        grid: Grid,
        ref: Drawn,
        src: Drawn,
        window: torch.Tensor,
        lattice: ControlLattice,
        config: RegistrationConfig,
        pull: Pull | None = None,
    ) -> None:
        self.grid, self.ref, self.src, self.window, self.lattice, self.config = grid, ref, src, window, lattice, config
        self.pull = pull
        self.flow = Flow(grid, window.device)
        self.either = torch.maximum(ref.tissue, src.tissue)

    def velocity(self, control: torch.Tensor) -> torch.Tensor:
        return self.lattice.velocity(control) * self.window

    @torch.no_grad()
    def begin(self, control: torch.Tensor, sigma: float) -> Mismatch:
        """Return the data term of the level, as it stands before the first step."""
        velocity = self.velocity(control)
        points = (self.flow.at(self.flow.exp(sign * velocity)) for sign in (1, -1))
        return Mismatch.begin(
            self.ref, self.src, *points, escape_cost=self.config.escape_cost, sigma=sigma / self.grid.pixel
        )

    def cost(self, control: torch.Tensor, mismatch: Mismatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Data term, with the pull of the landmarks, and weighted smoothness term."""
        velocity = self.velocity(control)
        forward, backward = self.flow.exp(velocity), self.flow.exp(-velocity)
        data = mismatch(self.flow.at(forward), self.flow.at(backward))
        if self.pull is not None:
            data = data + self.pull.cost(forward, backward, mismatch.correlation)
        strain = [strain_energy(displacement, self.grid.pixel, self.either) for displacement in (forward, backward)]
        bending = bending_energy(velocity, self.grid.pixel, self.either)
        return data, self.config.strain * (strain[0] + strain[1]) / 2 + self.config.bending * bending

    def solve(
        self, control: torch.Tensor, level: Level, on_step: Callable[[], None], *, done: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Descend from ``control``; returns the velocity and the terms by step, shape (steps, 2).

        Stops at the last good velocity when numbers leave the finite; then there are fewer steps. ``done`` is their
        number before this level.
        """
        mismatch = self.begin(control, level.sigma)
        control.requires_grad_()
        rate = self.config.learning_rate * level.sigma
        optimiser = torch.optim.Adam([control], lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, level.steps, eta_min=0.1 * rate)
        guard = Guard([control], done + level.steps, done=done)
        terms = []
        for _ in range(level.steps):
            optimiser.zero_grad()
            data, smoothness = self.cost(control, mismatch)
            (data + smoothness).backward()
            optimiser.step()
            schedule.step()
            terms.append(torch.stack([data, smoothness]).detach())
            on_step()
            if not guard.fine(data + smoothness):
                break
        with torch.no_grad():
            history = torch.stack(terms)[: guard.good - done]
            return self.velocity(control), history
