"""The default preset's canonical field: one continuous function of place that both aligned sections share.

It is INST-Align's canonical expression field :cite:p:`han2026` with one hidden layer: random Fourier features of the
coordinates (Rahimi and Recht, NeurIPS 2007) at several bandwidths, whose linear read-out is solved for in closed form.
The shared features are read from it, and the genes from those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inst_align.core.guards import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from numpy.typing import ArrayLike

    from inst_align.core.canonical import What
    from inst_align.core.rows import Expression, Held

    Array = TypeVar("Array", torch.Tensor, np.ndarray)

CHUNK = 1 << 15
"""Places that are evaluated at a time."""
GENE_RIDGE = 1e-6
"""Of the genes' read-out, as a share of the mean square of what it reads."""


@dataclass(frozen=True, kw_only=True)
class FieldConfig:
    """How the canonical field is fitted.

    Parameters
    ----------
    n_frequencies
        Number of Fourier features.
    bandwidths
        Standard deviations of their angular frequencies, in radians per unit length, with an equal share of the features
        each: a section spans about 4 unit lengths.
    ridge
        Penalty of the read-out: about the noise of a cell's features over the variance of the field.
    max_cells
        Cells of each section that the field is fitted to, evenly chosen: the cost does not grow with the sections.
    """

    n_frequencies: int = 1024
    bandwidths: tuple[float, ...] = (2.0, 4.0, 8.0)
    ridge: float = 0.1
    max_cells: int = 8000

    def __post_init__(self) -> None:
        for name in (entry.name for entry in fields(self) if entry.name != "bandwidths"):
            if not getattr(self, name) > 0:
                msg = f"`{name}={getattr(self, name)}` of the field's constants: must be positive."
                raise ValueError(msg)
        if not self.bandwidths or min(self.bandwidths) <= 0:
            msg = f"`bandwidths={self.bandwidths}` of the field's constants: must be positive, and at least one."
            raise ValueError(msg)


@dataclass(frozen=True, kw_only=True, eq=False)
class FourierField:
    """One continuous field of expression over the reference's frame, shared by the sections of a pair.

    Parameters
    ----------
    matrix
        Homogeneous (3, 3): the reference's user coordinates to the unit frame.
    frequencies, phases
        Of the Fourier features, shapes (2, m) and (m,), float32.
    to_features
        Their read-out, shape (m + 1, k); the first row is the constant.
    to_genes
        From the features to log-normalised genes, shape (k + 1, g), the first row again the constant; or ``None``.
    """

    matrix: np.ndarray
    frequencies: np.ndarray
    phases: np.ndarray
    to_features: np.ndarray
    to_genes: np.ndarray | None = None

    @property
    def embedding(self) -> What:
        """What of the field embeds a cell."""
        return "features"

    def predict(self, xy: ArrayLike, what: What = "features", columns: np.ndarray | None = None) -> np.ndarray:
        """Evaluate the field.

        Parameters
        ----------
        xy
            Coordinates in the reference's frame and units, shape (n, 2), axis order (x, y): the reference's cells, the
            source's aligned ones, or any other points.
        what
            Shared ``"features"`` or log-normalised ``"genes"``, which are not negative.
        columns
            Indices of the genes that are wanted; ``None`` for all.

        Returns
        -------
        float32, shape (n, d).

        Raises
        ------
        ValueError
            If the field was fitted without what is asked for.
        """
        if what not in ("features", "genes") or (what == "genes" and self.to_genes is None):
            known = ["features"] + (["genes"] if self.to_genes is not None else [])
            msg = f"`what={what!r}` is not in this field; it has {known}."
            raise ValueError(msg)
        unit = np.asarray(xy, dtype=np.float64) @ self.matrix[:2, :2].T + self.matrix[:2, 2]
        blocks = np.array_split(unit.astype(np.float32), max(1, -(-len(unit) // CHUNK)))
        return np.concatenate([self._values(block, what, columns) for block in blocks])

    def _values(self, xy: np.ndarray, what: What, columns: np.ndarray | None) -> np.ndarray:
        waves = np.cos(xy @ self.frequencies + self.phases)
        features = waves @ self.to_features[1:] + self.to_features[0]
        if what == "features" or self.to_genes is None:
            return features
        to_genes = self.to_genes if columns is None else self.to_genes[:, columns]
        return np.maximum(features @ to_genes[1:] + to_genes[0], 0)

    def pack(self) -> dict[str, Any]:
        """Return the field as a dictionary of plain arrays, for ``uns`` and so for h5ad and zarr."""
        found = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> FourierField:
        """Return the field that :meth:`pack` packed."""
        return cls(**{entry.name: np.asarray(packed[entry.name]) for entry in fields(cls) if entry.name in packed})


def fit_field(
    xy: tuple[np.ndarray, np.ndarray],
    features: tuple[torch.Tensor, torch.Tensor],
    expression: tuple[Expression, Expression] | None,
    config: FieldConfig,
    *,
    unit_matrix: np.ndarray,
    generator: torch.Generator,
) -> FourierField | None:
    """Fit the canonical field to both aligned sections.

    There is none where its equations have no finite solution; the fit tells of it then.

    Parameters
    ----------
    xy
        Coordinates of the reference (n, 2) and the moved source (m, 2) in the reference's unit frame.
    features
        Shared features, shapes (n, k) and (m, k).
    expression
        Log-normalised, shapes (n, g) and (m, g), or ``None`` for a field without genes.
    config
        Constants.
    unit_matrix
        Homogeneous (3, 3): the reference's user frame to its unit frame.
    generator
        Of the frequencies, on the CPU.
    """
    device = features[0].device
    rows = [slice(None, None, -(-len(part) // config.max_cells)) for part in xy]
    places = torch.as_tensor(np.concatenate([part[r] for part, r in zip(xy, rows)]), dtype=torch.float32, device=device)
    wanted = torch.cat([part[r] for part, r in zip(features, rows)])
    frequencies, phases = _draw(config, generator)
    waves = torch.cos(places @ frequencies.to(device) + phases.to(device))
    to_features = _finite_or_none(lambda: _read_out(waves, wanted, config.ridge * len(phases) / 2))
    to_genes = None
    if expression is not None and to_features is not None:
        smooth = (waves @ to_features[1:] + to_features[0]).cpu().numpy()
        cells = [part[r] for part, r in zip(expression, rows)]
        to_genes = _finite_or_none(lambda: _genes_read_out(np.split(smooth, [len(xy[0][rows[0]])]), cells))
    if to_features is None or (expression is not None and to_genes is None):
        tell("its equations have no finite solution, so that there is none")
        return None
    return FourierField(
        matrix=np.asarray(unit_matrix, dtype=np.float64),
        frequencies=frequencies.numpy(),
        phases=phases.numpy(),
        to_features=to_features.cpu().numpy(),
        to_genes=to_genes,
    )


def _draw(config: FieldConfig, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Frequencies (2, m) and phases (m,)."""
    shares = np.array_split(np.empty(config.n_frequencies), len(config.bandwidths))
    scale = torch.tensor(np.repeat(config.bandwidths, [len(share) for share in shares]), dtype=torch.float32)
    frequencies = torch.randn(2, config.n_frequencies, generator=generator) * scale
    return frequencies, 2 * math.pi * torch.rand(config.n_frequencies, generator=generator)


def _finite_or_none(solve: Callable[[], Array]) -> Array | None:
    """Return the solution of some equations, unless there is none or it is not finite."""
    try:
        found = solve()
    except np.linalg.LinAlgError:
        return None
    return found if bool(torch.as_tensor(found).isfinite().all()) else None


def _read_out(inputs: torch.Tensor, wanted: torch.Tensor, ridge: float) -> torch.Tensor:
    """Ridge regression of (n, k) on (n, m) with a free constant, shape (m + 1, k); NaN if there is no solution."""
    mean, level = inputs.mean(dim=0), wanted.mean(dim=0)
    centred = inputs - mean
    gram = _gram(centred).double()
    gram.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(gram)
    slopes = torch.cholesky_solve((centred.T @ (wanted - level)).double(), factor).float()
    slopes = slopes.where(failed == 0, torch.nan)
    return torch.cat([(level - mean @ slopes)[None], slopes])


def _gram(values: torch.Tensor) -> torch.Tensor:
    """Products (m, m) of the columns of (n, m) with each other."""
    if values.device.type != "cpu":
        return values.T @ values
    same = values.numpy()  # numpy sees that this is symmetric, and computes half of it
    return torch.from_numpy(same.T @ same)


def _genes_read_out(features: list[np.ndarray], expression: list[Held]) -> np.ndarray:
    """Least squares of genes on features (n, k) of both sections, shape (k + 1, g); the expression stays sparse."""
    inputs = [np.column_stack([np.ones(len(part), dtype=np.float32), part]).astype(np.float64) for part in features]
    gram = np.sum([part.T @ part for part in inputs], axis=0)
    product = np.sum([np.asarray((genes.T @ part).T) for genes, part in zip(expression, inputs)], axis=0)
    ridge = GENE_RIDGE * np.trace(gram) / len(gram)
    return np.linalg.solve(gram + ridge * np.eye(len(gram)), product).astype(np.float32)
