"""Coarse-to-fine registration of the two sections' feature fields: a smooth, invertible, expression-driven map.

At every level, from blurred to sharp, the velocity field of a map and of its inverse (:mod:`inst_align.core.velocity`)
is moved downhill on

    (D(source -> reference) + D(reference -> source)) / 2 + strain * E_strain + bending * E_bending

where D asks in one direction whether the tissue finds its own features in the other section
(:mod:`inst_align.core.mismatch`). Sections on lattices go no further than what they show of each other
(:mod:`inst_align.core.lattice`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from inst_align.core.adam import Adam
from inst_align.core.checkpoint import NOTHING, Checkpoint
from inst_align.core.drawn import Cells, Drawn
from inst_align.core.guards import Guard
from inst_align.core.landmark_terms import Pull
from inst_align.core.lattice import RECURS, shared_detail
from inst_align.core.mismatch import Mismatch
from inst_align.core.raster import Grid, grid_sample, sample
from inst_align.core.registration_config import Level, RegistrationConfig
from inst_align.core.threads import one_thread, side_by_side
from inst_align.core.transforms import Displacement
from inst_align.core.velocity import ControlLattice, Flow, bending_energy, fade, strain_energy

if TYPE_CHECKING:
    from collections.abc import Callable

    from inst_align.core.landmarks import Landmarks
    from inst_align.core.mismatch import Both, Move

__all__ = ["Level", "Registration", "RegistrationConfig", "register"]

POINTS_PER_CONTROL = 5
"""Points of the map's grid for every control point along an axis: a cubic spline has no more to show."""


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


@one_thread()
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
    grids = [config.grid(both, level.sigma) for level in config.levels]
    cells = side_by_side(
        lambda xy, features: Cells.of(xy, features).gathered(grids[-1]), (xy_ref, xy_src), (features_ref, features_src)
    )
    grid, terms = grids[0], []
    velocity = torch.zeros(2, grid.height, grid.width, device=device)
    kept = checkpoint.load("registration")
    if kept is not None:
        velocity, terms = kept["velocity"].to(device), [each.to(device) for each in kept["terms"]]
        grid = grids[len(terms) - 1]
        for _ in torch.cat(terms):
            on_step()
    start = len(terms)
    between_spots = max(section.lattice for section in cells)
    for number, (level, new_grid) in enumerate(zip(config.levels[start:], grids[start:], strict=True), start):
        lattice = ControlLattice(new_grid, level.control_spacing, device)
        control = lattice.fit(_resample(velocity, grid, new_grid))
        ref, src = side_by_side(Drawn.draw, (new_grid, new_grid), cells, (level.sigma, level.sigma))
        pull = None
        if landmarks is not None:
            pull = Pull.of(landmarks, control=level.control_spacing, spacing=cells[0].spacing, device=device)
        problem = _Problem(ref, src, both, level, config, pull)
        if number and level.sigma < between_spots:
            coarser = config.levels[number - 1].sigma
            if shared_detail(cells, (ref, src), coarser, problem.map_of(control)) < RECURS:
                break
        grid = new_grid
        terms.append(problem.descend(control, on_step, done=sum(map(len, terms))))
        velocity = lattice.velocity(control) * fade(grid.points(device), both, config.margin)
        if len(terms[-1]) < level.steps:  # stopped early
            break
        checkpoint.save("registration", lambda: {"velocity": velocity, "terms": terms})  # noqa: B023 - at once

    with torch.no_grad():
        flow = Flow(grid, device)
        vectors = flow.exp(torch.stack([velocity, -velocity]), squarings=8).cpu().numpy()
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
    """The cost of one level, and its descent.

    The sections are drawn on one grid, and the map is kept on another, coarser one, that suits its control points.
    """

    def __init__(
        self, ref: Drawn, src: Drawn, tissue: np.ndarray, level: Level, config: RegistrationConfig, pull: Pull | None
    ) -> None:
        device = ref.features.device
        self.ref, self.src, self.level, self.config, self.pull = ref, src, level, config, pull
        pixel = max(ref.grid.pixel, level.control_spacing / POINTS_PER_CONTROL)
        self.grid = Grid.around(tissue, pixel=pixel, margin=config.margin)
        self.flow = Flow(self.grid, device)
        self.lattice = ControlLattice(self.grid, level.control_spacing, device, over=ref.grid)
        points = self.grid.points(device)
        self.window = fade(points, tissue, config.margin)
        self.either = sample(torch.maximum(ref.tissue, src.tissue)[None], ref.grid, points)[0]

    def displacements(self, velocity: torch.Tensor) -> torch.Tensor:
        """Of the source, and of the reference, (2, 2, H, W)."""
        return self.flow.exp(torch.stack([velocity, -velocity]))

    def move(self, displacements: torch.Tensor) -> Move:
        """Return the map of places of the source, and of the reference."""

        def moved(places: Both) -> Both:
            forward, backward = (
                at + sample(displacement, self.grid, at).T
                for displacement, at in zip(displacements, places, strict=True)
            )
            return forward, backward

        return moved

    def map_of(self, control: torch.Tensor) -> Move:
        """Return the map that control vectors stand for."""
        return self.move(self.displacements(self.lattice.velocity(control) * self.window))

    def cost(self, control: torch.Tensor, mismatch: Mismatch, turn: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Data term, with the pull of the landmarks, and weighted smoothness term, in the given step."""
        velocity = self.lattice.velocity(control) * self.window
        displacements = self.displacements(velocity)
        data = mismatch(self.move(displacements), turn)
        if self.pull is not None:
            forward, backward = displacements
            data = data + self.pull.cost(self.grid, forward, backward, mismatch.correlation)
        strain = strain_energy(displacements, self.grid.pixel, self.either)
        bending = bending_energy(velocity, self.grid.pixel, self.either)
        return data, self.config.strain * strain + self.config.bending * bending

    def descend(self, control: torch.Tensor, on_step: Callable[[], None], *, done: int = 0) -> torch.Tensor:
        """Improve ``control`` in place; returns the terms by step, shape (steps, 2).

        If numbers leave the finite, it is put back to its last good state, and there are fewer steps. ``done`` is their
        number before this level.
        """
        level, config = self.level, self.config
        mismatch = Mismatch.begin(
            self.ref, self.src, self.map_of(control), escape_cost=config.escape_cost, sigma=level.sigma
        )
        adam = Adam([control], [config.learning_rate * level.sigma], n_steps=level.steps, end=0.1)
        guard = Guard([control], done + level.steps, done=done)
        terms = []
        for turn in range(level.steps):
            data, smoothness = self.cost(control, mismatch, turn)
            adam.step(adam.gradients(data + smoothness))
            terms.append(torch.stack([data, smoothness]).detach())
            on_step()
            if not guard.fine(data + smoothness):
                break
        control.requires_grad_(False)  # noqa: FBT003
        return torch.stack(terms)[: guard.good - done]
