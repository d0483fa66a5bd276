"""Rigid alignment by iterated closest points from several starts, chosen by expression (INST-Align, section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

CONFIDENT_RATIO = 1.1
"""The best principal-axes start is trusted when the second best leaves an error larger by this factor."""

SCORED_NEIGHBOURS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class IcpCandidate:
    """One start after its refinement.

    Parameters
    ----------
    matrix
        Homogeneous ``(3, 3)`` matrix, source to reference.
    rmse
        Root mean squared distance from the moved source points to their nearest reference points.
    score
        Mean cosine between a source cell's features and those of the reference cells around it, in [-1, 1]; ``nan``
        for a start that was not scored.
    """

    matrix: np.ndarray
    rmse: float
    score: float = float("nan")

    @property
    def mirrored(self) -> bool:
        """Whether the map contains a reflection."""
        return bool(np.linalg.det(self.matrix[:2, :2]) < 0)

    @property
    def angle(self) -> float:
        """Direction that the source's x axis is turned to, in degrees from x towards y, between -180 and 180."""
        return float(np.degrees(np.arctan2(self.matrix[1, 0], self.matrix[0, 0])))


@dataclass(frozen=True, kw_only=True, eq=False)
class IcpResult:
    """Outcome of :func:`adaptive_icp`.

    Parameters
    ----------
    matrix, score, rmse
        Those of the best candidate, see :class:`IcpCandidate`.
    candidates
        All candidates that were scored, best first.
    confident
        Whether the principal axes alone decided which starts were looked at.
    """

    matrix: np.ndarray
    score: float
    rmse: float
    candidates: tuple[IcpCandidate, ...]
    confident: bool


def adaptive_icp(
    xy_ref: np.ndarray,
    xy_src: np.ndarray,
    features_ref: np.ndarray,
    features_src: np.ndarray,
    *,
    max_iterations: int = 100,
    tolerance: float = 1e-6,
    n_angles: int = 24,
    n_keep: int = 6,
    allow_reflection: bool = False,
) -> IcpResult:
    """Find a rigid map from source to reference by adaptive ICP with expression-guided choice of the rotation.

    Four starts bring the principal axes of both sections together. If the best of them after refinement
    (Besl and McKay 1992) is clearly better than the second in the distances that it leaves, these four are the
    candidates; if not, ``n_angles`` rotations about the centroids are refined and the ``n_keep`` with the smallest
    distances are. Of the candidates, that with the highest similarity of expression between neighbours wins.

    Parameters
    ----------
    xy_ref, xy_src
        Coordinates, shapes ``(n, 2)`` and ``(m, 2)``, axis order (x, y), in units that are the same along both axes.
        Reference and source need not overlap.
    features_ref, features_src
        Comparable features of the cells, shapes ``(n, d)`` and ``(m, d)``; only their directions count.
    max_iterations
        Most iterations of one refinement.
    tolerance
        A refinement ends when a step moves the points by less than this part of the source's radius.
    n_angles
        Rotations of the full search, evenly spaced.
    n_keep
        Candidates of the full search whose expression is compared.
    allow_reflection
        Whether every start is also tried mirrored.

    Notes
    -----
    Nothing here is random. Every source point is matched, so that sections which overlap only in part mislead it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> source = rng.normal(size=(200, 2)) * [2, 1]
    >>> features = np.column_stack([source, np.ones(200)])
    >>> quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    >>> result = adaptive_icp(source @ quarter.T + 5, source, features, features)
    >>> np.allclose(result.matrix, [[0, -1, 5], [1, 0, 5], [0, 0, 1]])
    True
    """
    tree = cKDTree(xy_ref)
    features = _unit(features_ref), _unit(features_src)

    def refine_all(starts: list[np.ndarray]) -> list[IcpCandidate]:
        refined = [_refine(tree, xy_ref, xy_src, start, max_iterations, tolerance) for start in starts]
        return sorted(refined, key=lambda candidate: candidate.rmse)

    mirrors = (False, True) if allow_reflection else (False,)
    candidates = refine_all([m for mirror in mirrors for m in _axes_starts(xy_ref, xy_src, mirrored=mirror)])
    rounding = 1e-8 * float(np.std(xy_ref))
    confident = candidates[1].rmse > CONFIDENT_RATIO * (candidates[0].rmse + rounding)
    if not confident:
        starts = [m for mirror in mirrors for m in _angle_starts(xy_ref, xy_src, n_angles, mirrored=mirror)]
        candidates = refine_all(starts)[:n_keep]
    scored = [_with_score(candidate, tree, xy_src, *features) for candidate in candidates]
    scored.sort(key=lambda candidate: (-candidate.score, candidate.rmse))
    best = scored[0]
    return IcpResult(
        matrix=best.matrix, score=best.score, rmse=best.rmse, candidates=tuple(scored), confident=confident
    )


def _refine(
    tree: cKDTree, xy_ref: np.ndarray, xy_src: np.ndarray, start: np.ndarray, max_iterations: int, tolerance: float
) -> IcpCandidate:
    """Match nearest points and move rigidly, until the points rest."""
    radius = np.linalg.norm(xy_src - xy_src.mean(axis=0))
    matrix, moved = start, _apply(start, xy_src)
    for _ in range(max_iterations):
        _, nearest = tree.query(moved)
        matrix = _best_rigid(moved, xy_ref[nearest]) @ matrix
        before, moved = moved, _apply(matrix, xy_src)
        if np.linalg.norm(moved - before) < tolerance * radius:
            break
    distance, _ = tree.query(moved)
    return IcpCandidate(matrix=matrix, rmse=float(np.sqrt(np.mean(distance**2))))


def _best_rigid(xy: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the proper rigid map with the least squared error; in the plane the best angle has a closed form."""
    center, center_target = xy.mean(axis=0), target.mean(axis=0)
    product = (xy - center).T @ (target - center_target)
    angle = np.arctan2(product[0, 1] - product[1, 0], product[0, 0] + product[1, 1])
    return _about(_rotation(angle), center, center_target)


def _axes_starts(xy_ref: np.ndarray, xy_src: np.ndarray, *, mirrored: bool) -> list[np.ndarray]:
    """Return the maps that bring principal axes onto principal axes, one for every quarter turn."""
    axes_ref, axes_src = _principal_axes(xy_ref), _principal_axes(xy_src)
    if mirrored:
        axes_src = axes_src * np.array([1.0, -1.0])
    turns = [_rotation(quarter * np.pi / 2) for quarter in range(4)]
    return [_about(axes_ref @ turn @ axes_src.T, xy_src.mean(axis=0), xy_ref.mean(axis=0)) for turn in turns]


def _angle_starts(xy_ref: np.ndarray, xy_src: np.ndarray, n_angles: int, *, mirrored: bool) -> list[np.ndarray]:
    """Return the maps that bring centroid onto centroid, turned by evenly spaced angles."""
    mirror = np.diag([-1.0 if mirrored else 1.0, 1.0])
    turns = [_rotation(angle) for angle in np.arange(n_angles) * (2 * np.pi / n_angles)]
    return [_about(turn @ mirror, xy_src.mean(axis=0), xy_ref.mean(axis=0)) for turn in turns]


def _principal_axes(xy: np.ndarray) -> np.ndarray:
    """Return the principal axes as columns, the longest first, right-handed."""
    _, axes = np.linalg.eigh(np.cov(xy.T))
    axes = axes[:, ::-1]
    return axes * np.array([1.0, np.sign(np.linalg.det(axes))])


def _with_score(
    candidate: IcpCandidate, tree: cKDTree, xy_src: np.ndarray, unit_ref: np.ndarray, unit_src: np.ndarray
) -> IcpCandidate:
    n_neighbours = min(SCORED_NEIGHBOURS, len(unit_ref))
    moved = _apply(candidate.matrix, xy_src)
    nearest = np.asarray(tree.query(moved, k=np.arange(1, n_neighbours + 1))[1])
    around = np.zeros_like(unit_src)
    for rank in range(n_neighbours):
        around += unit_ref[nearest[:, rank]]
    score = float(np.mean(np.sum(unit_src * around, axis=1))) / n_neighbours
    return IcpCandidate(matrix=candidate.matrix, rmse=candidate.rmse, score=score)


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _about(linear: np.ndarray, center: np.ndarray, center_target: np.ndarray) -> np.ndarray:
    """Return the homogeneous matrix that applies ``linear`` about one centre and moves it onto another."""
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = center_target - linear @ center
    return matrix


def _apply(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    return xy @ matrix[:2, :2].T + matrix[:2, 2]
