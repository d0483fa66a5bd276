"""A made-up continuous tissue: its outline, layers, fields and cell types, all as smooth functions of the position.

Lengths are in micrometres, axis order is (x, y), y points up. Every function works on arrays ``(n, 2)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

EXTENT = 2000.0
"""Longer side of the tissue's bounding box, in micrometres, whatever the number of cells."""

LAYERS = ("L1", "L2", "L3", "L4", "L5", "L6")
_AREA = np.array([0.10, 0.14, 0.24, 0.11, 0.19, 0.22])
_DENSITY = np.array([0.65, 1.0, 0.9, 1.0, 0.8, 0.85])

CELL_TYPES = (
    "excitatory upper",
    "excitatory deep",
    "inhibitory",
    "astrocyte",
    "oligodendrocyte",
    "microglia",
    "endothelial",
)
_TYPE_GIVEN_LAYER = np.array(
    [
        [0.06, 0.02, 0.22, 0.42, 0.08, 0.10, 0.10],
        [0.52, 0.04, 0.16, 0.12, 0.04, 0.05, 0.07],
        [0.50, 0.06, 0.17, 0.11, 0.05, 0.05, 0.06],
        [0.34, 0.22, 0.18, 0.10, 0.05, 0.05, 0.06],
        [0.08, 0.50, 0.14, 0.10, 0.08, 0.05, 0.05],
        [0.04, 0.38, 0.08, 0.10, 0.30, 0.05, 0.05],
    ]
)

_N_PATCHES = 3
_N_SMOOTH = 3
FIELDS = (
    *LAYERS,
    "along",
    "across",
    *(f"smooth {i}" for i in range(_N_SMOOTH)),
    *(f"patch {i}" for i in range(_N_PATCHES)),
)
"""Names of the columns of :meth:`Tissue.fields`."""

_LAYER_BLUR = 0.008
_PATCH_BLUR = 0.012


def _logistic(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


@dataclass(frozen=True, kw_only=True, eq=False)
class Tissue:
    """One tissue.

    Parameters
    ----------
    center
        Middle of the bounding box, shape ``(2,)``.
    origin
        Point that the outline is seen from, shape ``(2,)``.
    angles, radii
        The outline in polar coordinates around ``origin``, each of shape ``(k,)``, angles ascending in [-pi, pi].
    pole
        Centre of the arcs that the layers follow, shape ``(2,)``.
    phases
        Of the layers' waves, shape ``(3,)``.
    boundaries
        Depths where one layer ends and the next begins, shape ``(5,)``.
    waves
        Wave vectors ``(n_smooth, 6, 2)`` and phases ``(n_smooth, 6)`` of the smooth fields.
    patches
        Centres and radii of the localised regions: x, y, radius, shape ``(n_patches, 3)``.
    """

    center: np.ndarray
    origin: np.ndarray
    angles: np.ndarray
    radii: np.ndarray
    pole: np.ndarray
    phases: np.ndarray
    boundaries: np.ndarray
    waves: tuple[np.ndarray, np.ndarray]
    patches: np.ndarray

    def inside(self, xy: np.ndarray) -> np.ndarray:
        """Whether each point lies within the outline, shape ``(n,)``."""
        away = xy - self.origin
        return np.hypot(*away.T) < np.interp(np.arctan2(away[:, 1], away[:, 0]), self.angles, self.radii)

    def grid(self, step: float, *, margin: float = 0.0) -> np.ndarray:
        """Points of a square lattice over the bounding box, widened by ``margin`` on each side, shape ``(n, 2)``."""
        outline = self._outline()
        low, high = outline.min(axis=0) - margin, outline.max(axis=0) + margin
        x, y = (np.arange(a, b + step, step) for a, b in zip(low, high))
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)

    def depth(self, xy: np.ndarray) -> np.ndarray:
        """How far below the surface each point lies, along waves that differ between the layers, in extents."""
        away = (xy - self.pole) / EXTENT
        radius, angle = np.hypot(*away.T), np.arctan2(away[:, 0], away[:, 1])
        folds = 0.030 * np.sin(8.0 * angle + self.phases[0]) + 0.016 * np.sin(17.0 * angle + self.phases[1])
        thickness = 0.030 * np.sin(9.0 * radius + 4.0 * angle + self.phases[2])
        return -(radius + folds + thickness)

    def layer(self, xy: np.ndarray) -> np.ndarray:
        """Index into :data:`LAYERS` of each point, shape ``(n,)``."""
        return np.searchsorted(self.boundaries, self.depth(xy))

    def membership(self, xy: np.ndarray) -> np.ndarray:
        """Share of each layer at each point, shape ``(n, 6)``: rows sum to one, boundaries are slightly blurred."""
        above = _logistic((self.depth(xy)[:, None] - self.boundaries) / _LAYER_BLUR)
        return -np.diff(above, axis=1, prepend=1.0, append=0.0)

    def fields(self, xy: np.ndarray) -> np.ndarray:
        """Everything that expression depends on at each point, shape ``(n, len(FIELDS))``, of order one."""
        away = (xy - self.pole) / EXTENT
        along = 3.0 * np.arctan2(away[:, 0], away[:, 1])
        across = 4.0 * (self.depth(xy) - self.boundaries[2])
        vectors, phases = self.waves
        smooth = np.cos(np.einsum("nd,kwd->nkw", xy / EXTENT, vectors) + phases).sum(axis=2) / np.sqrt(3.0)
        distance = np.linalg.norm(xy[:, None] - self.patches[:, :2], axis=2)
        patches = _logistic((self.patches[:, 2] - distance) / (_PATCH_BLUR * EXTENT))
        return np.column_stack([self.membership(xy), along, across, smooth, patches])

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the positions of ``n`` cells; layers differ mildly in their density of cells. Shape ``(n, 2)``."""
        outline = self._outline()
        low, high = outline.min(axis=0), outline.max(axis=0)
        accepted: list[np.ndarray] = []
        missing = n
        while missing > 0:
            xy = rng.uniform(low, high, size=(min(2 * missing + 64, 1 << 16), 2))
            kept = xy[self.inside(xy)]
            kept = kept[rng.random(len(kept)) * _DENSITY.max() < self.membership(kept) @ _DENSITY][:missing]
            accepted.append(kept)
            missing -= len(kept)
        return np.concatenate(accepted)

    def sample_types(self, xy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw an index into :data:`CELL_TYPES` for each cell: only its odds depend on the layer. Shape ``(n,)``."""
        cumulative = np.cumsum(self.membership(xy) @ _TYPE_GIVEN_LAYER, axis=1)[:, :-1]
        return (rng.random((len(xy), 1)) > cumulative).sum(axis=1)

    def _outline(self) -> np.ndarray:
        return self.origin + self.radii[:, None] * np.column_stack([np.cos(self.angles), np.sin(self.angles)])


def make_tissue(rng: np.random.Generator) -> Tissue:
    """Draw a tissue. All share one lopsided plan, so that none looks like its own mirror image or half turn."""
    angles, radii = _draw_outline(rng)
    ring = radii[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    center = np.ptp(ring, axis=0) / 2
    plan = Tissue(
        center=center,
        origin=-ring.min(axis=0),
        angles=angles,
        radii=radii,
        pole=center + EXTENT * (np.array([0.06, -0.62]) + rng.uniform(-0.05, 0.05, 2)),
        phases=rng.uniform(0.0, 2.0 * np.pi, 3),
        boundaries=np.zeros(len(LAYERS) - 1),
        waves=(rng.normal(0.0, 4.5, (_N_SMOOTH, 6, 2)), rng.uniform(0.0, 2.0 * np.pi, (_N_SMOOTH, 6))),
        patches=np.zeros((_N_PATCHES, 3)),
    )
    points = plan.grid(EXTENT / 100)
    points = points[plan.inside(points)]
    middle = points[np.hypot(*(points - center).T) < 0.38 * EXTENT]
    places = middle[rng.choice(len(middle), _N_PATCHES, replace=False)]
    return replace(
        plan,
        boundaries=np.quantile(plan.depth(points), np.cumsum(_AREA)[:-1]),
        patches=np.column_stack([places, EXTENT * rng.uniform(0.05, 0.09, _N_PATCHES)]),
    )


def _draw_outline(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Angles and radii of an outline whose bounding box has the longer side ``EXTENT``."""
    angles = np.linspace(-np.pi, np.pi, 721)
    radii = 1.0 + 0.17 * np.cos(2 * angles - 0.2) + 0.07 * np.cos(3 * angles - 1.0) + 0.03 * np.cos(5 * angles - 2.0)
    radii -= 0.16 * np.exp(-0.5 * ((angles + 1.1) / 0.22) ** 2)  # a notch at the lower right
    for k in range(2, 8):
        radii += 0.012 * rng.normal() * np.cos(k * angles - rng.uniform(0.0, 2.0 * np.pi))
    ring = radii[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    return angles, radii * EXTENT / np.ptp(ring, axis=0).max()
