"""What a record keeps of the coordinates that were aligned: enough to tell them, and their unit, from others."""

from __future__ import annotations

import hashlib

import numpy as np

from inst_align._keys import ROLE_REFERENCE, ROLE_SOURCE


def coordinates_hash(xy: np.ndarray) -> str:
    """Return a fingerprint of a set of points, shape ``(n, 2)``, whatever the order of its rows; NaN is no point."""
    points = np.asarray(xy, dtype=np.float64)
    points = points[np.isfinite(points).all(axis=1)]
    return hashlib.sha256(points[np.lexsort(points.T)].tobytes()).hexdigest()


def coordinates_of(xy_ref: np.ndarray, xy_src: np.ndarray) -> dict[str, str]:
    """Return the fingerprints of both sections' points by role, as a record holds them."""
    return {ROLE_REFERENCE: coordinates_hash(xy_ref), ROLE_SOURCE: coordinates_hash(xy_src)}


def extents_of(xy_ref: np.ndarray, xy_src: np.ndarray) -> dict[str, np.ndarray]:
    """Return the lowest and highest (x, y) of both sections by role, shape ``(2, 2)`` each, as a record holds them."""
    sections = {ROLE_REFERENCE: xy_ref, ROLE_SOURCE: xy_src}
    return {role: np.array([np.nanmin(xy, axis=0), np.nanmax(xy, axis=0)]) for role, xy in sections.items()}
