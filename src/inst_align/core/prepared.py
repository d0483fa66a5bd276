"""A pair as the fit works on it, and the constants of the default preset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from dataclasses import field as default
from typing import TYPE_CHECKING

from inst_align.core.features import SharedFeatures
from inst_align.core.fourier import FieldConfig
from inst_align.core.registration_config import RegistrationConfig
from inst_align.core.sampling import some_rows
from inst_align.core.threads import side_by_side

if TYPE_CHECKING:
    import numpy as np
    import torch

    from inst_align.core.section import Section


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """Constants of the default preset.

    Parameters
    ----------
    n_components
        Channels of the shared features by which poses are found and judged.
    n_fine
        Channels by which the tissue is bent, if these are more. Weak ones, too, say where a cell belongs once it is near its
        place; to the question whether bending pays they add more noise than they answer of it.
    n_neighbors
        Cells, itself among them, over which a cell's features are averaged.
    registration
        How the non-rigid map is found.
    field
        How the canonical field is fitted; ``None`` leaves it out.
    """

    n_components: int = 30
    n_fine: int = 40
    n_neighbors: int = 5
    registration: RegistrationConfig = default(default_factory=RegistrationConfig)
    field: FieldConfig | None = default(default_factory=FieldConfig)

    def __post_init__(self) -> None:
        for name in ("n_components", "n_fine", "n_neighbors"):
            if getattr(self, name) < 1:
                msg = f"`{name}={getattr(self, name)}`: must be at least 1."
                raise ValueError(msg)

    def prepare(self, ref: Section, src: Section, *, generator: torch.Generator, device: torch.device) -> Prepared:
        """Sort the cells of both sections and compute their features on ``device``."""
        return Prepared.of(
            ref,
            src,
            n_components=self.n_components,
            n_fine=self.n_fine,
            n_neighbors=self.n_neighbors,
            generator=generator,
            device=device,
        )

    @property
    def n_steps(self) -> int:
        """Optimiser steps; the trial is not counted."""
        return self.registration.n_steps


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A pair in canonical order of its cells, with shared features. Row ``i`` is row ``order[i]`` of the user's.

    ``features_ref`` and ``features_src`` are averaged over neighbours, which suits poses, trials and reports. ``of_cells``
    are those of the single cells: the registration blurs by itself, and an average over other neighbours on either
    section raised its errors by a quarter.
    """

    ref: Section
    src: Section
    shared: SharedFeatures
    of_cells: tuple[torch.Tensor, torch.Tensor]
    features_ref: torch.Tensor
    features_src: torch.Tensor
    orders: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(
        cls,
        ref: Section,
        src: Section,
        *,
        n_components: int,
        n_fine: int,
        n_neighbors: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> Prepared:
        """Sort the cells of both sections and compute their features on ``device``."""
        orders = side_by_side(lambda section: section.canonical_order(), (ref, src))
        ref, src = side_by_side(lambda section, order: section.in_order(order), (ref, src), orders)
        shared = SharedFeatures.of_pair(ref, src, n_components=n_components, n_neighbors=n_neighbors, device=device)
        cells_ref, cells_src = replace(shared, n_components=max(n_components, n_fine)).of_cells(generator)
        few = slice(None if ref.is_rep else n_components)
        features_ref, features_src = shared.averaged((cells_ref[:, few], cells_src[:, few]))
        return cls(
            ref=ref,
            src=src,
            shared=shared,
            of_cells=(cells_ref.to(device), cells_src.to(device)),
            features_ref=features_ref,
            features_src=features_src,
            orders=(orders[0], orders[1]),
        )

    def at_most(self, n_cells: int, *, n_neighbors: int) -> Prepared:
        """Return the pair with no more cells of either section than this, as if no others had been measured."""
        if max(len(self.ref), len(self.src)) <= n_cells:
            return self
        ref_rows, src_rows = (some_rows(len(section), n_cells) for section in (self.ref, self.src))
        ref, src = self.ref.take(ref_rows), self.src.take(src_rows)
        shared = SharedFeatures.of_pair(
            ref, src, n_components=self.shared.n_components, n_neighbors=n_neighbors, device=self.shared.device
        )
        return Prepared(
            ref=ref,
            src=src,
            shared=shared,
            of_cells=(self.of_cells[0][ref_rows], self.of_cells[1][src_rows]),
            features_ref=self.features_ref[ref_rows],
            features_src=self.features_src[src_rows],
            orders=(self.orders[0][ref_rows], self.orders[1][src_rows]),
        )
