"""Metrics that compare annotations (layers, domains, cell types) across an overlay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from inst_align._random import numpy_generator
from inst_align.metrics._geometry import Plan, as_xy, exact_plan, patches

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from inst_align._random import RNGLike, SeedLike

Direction = Literal["both", "src_to_ref", "ref_to_src"]

_NUMBERS = {"integer", "floating", "mixed-integer-float", "boolean", "decimal", "complex"}
_MAX_SWEEPS = 8
_COST_TOLERANCE = 1e-3


def ot_accuracy(
    xy_ref: ArrayLike,
    xy_src: ArrayLike,
    labels_ref: ArrayLike,
    labels_src: ArrayLike,
    *,
    max_exact: int = 5000,
    rng: SeedLike | RNGLike | None = None,
) -> float:
    """Share of mass that optimal transport between the two sections' coordinates moves between cells of the same label.

    All labelled cells of a section weigh the same and the cost is the Euclidean (not squared) distance. PASTE's score
    is the same sum over PASTE's own plan; taking the plan from coordinates alone lets any aligner be judged by it.

    Pitfalls: the transport is balanced, all mass of one section must go somewhere in the other, so partial overlap or
    unequal density costs accuracy however good the alignment is. Labels are blind to motion along a layer. On lattices
    several plans can be equally cheap, and one of them is taken.

    With more than ``max_exact`` labelled cells in a section the plan is an approximation that uses every cell, in
    linear memory and time: the exact plan between ``max_exact`` compact patches is handed down to their cells and then
    improved block by block, at most 8 times. Its cost is never below the optimum, and the accuracy mostly too low: by
    about 0.01 or less for sections sampled independently, but by several hundredths where neighbouring cells differ in
    label and each has an almost coinciding twin in the other section.

    Parameters
    ----------
    xy_ref
        Reference coordinates, shape ``(n, 2)``, axis order (x, y).
    xy_src
        Aligned source coordinates, shape ``(m, 2)``, in the reference's frame and units.
    labels_ref
        Labels of the reference's cells, length ``n``. NaN, ``None`` and ``""`` are no label: these cells are left out.
        Any text counts as a label, ``"nan"`` too.
    labels_src
        Labels of the source's cells, length ``m``, of the same kind.
    max_exact
        Labelled cells per section up to which the plan is exact; takes about 50 ``max_exact**2`` bytes.
    rng
        Seed or generator of the approximation; the exact plan draws nothing.

    Returns
    -------
    A number between 0 and 1 (all mass stays within its label).

    Raises
    ------
    ValueError
        If shapes do not fit, coordinates are NaN, a section has no label, or one has text and the other numbers.
    RuntimeError
        If the solver does not converge.

    References
    ----------
    Zeira et al. (2022), Alignment and integration of spatial transcriptomics data. For the improvement by blocks:
    Benamou (1994), A domain decomposition method for the polar factorization of vector-valued mappings.

    Examples
    --------
    >>> from inst_align.metrics import ot_accuracy
    >>> ot_accuracy([[0, 0], [9, 0]], [[1, 0], [8, 0]], ["a", "b"], ["a", "c"])
    0.5
    """
    if max_exact < 1:
        raise ValueError(f"`max_exact` must be at least 1, found {max_exact!r}.")
    ref, src, codes_ref, codes_src = _labelled(xy_ref, xy_src, labels_ref, labels_src)
    i, j, mass = _transport_plan(ref, src, max_exact=max_exact, rng=numpy_generator(rng))
    return float(mass[codes_ref[i] == codes_src[j]].sum() / mass.sum())


def nn_accuracy(
    xy_ref: ArrayLike, xy_src: ArrayLike, labels_ref: ArrayLike, labels_src: ArrayLike, *, direction: Direction = "both"
) -> float:
    """Share of cells whose nearest cell in the other section has the same label.

    Unlike :func:`ot_accuracy` it may use a cell many times. That forgives partial overlap, but also collapse: a source
    squeezed onto a few reference cells of the right labels scores 1 in the direction ``"src_to_ref"``.

    Parameters
    ----------
    xy_ref, xy_src, labels_ref, labels_src
        As for :func:`ot_accuracy`. Cells without a label are neither counted nor found as neighbours.
    direction
        ``"src_to_ref"``: share of source cells whose nearest reference cell agrees; ``"ref_to_src"``: the reverse;
        ``"both"``: the mean of the two.

    Returns
    -------
    A number between 0 and 1.

    Raises
    ------
    ValueError
        As for :func:`ot_accuracy`, or if ``direction`` is another word.

    Examples
    --------
    >>> from inst_align.metrics import nn_accuracy
    >>> ref, src = [[0, 0], [9, 0]], [[1, 0], [2, 0]]
    >>> nn_accuracy(ref, src, ["a", "b"], ["a", "a"], direction="src_to_ref")
    1.0
    >>> nn_accuracy(ref, src, ["a", "b"], ["a", "a"], direction="ref_to_src")
    0.5
    """
    if direction not in get_args(Direction):
        raise ValueError(
            f"`direction` must be one of {', '.join(map(repr, get_args(Direction)))}, found {direction!r}."
        )
    ref, src, codes_ref, codes_src = _labelled(xy_ref, xy_src, labels_ref, labels_src)
    shares = []
    if direction != "ref_to_src":
        shares.append((codes_ref[cKDTree(ref).query(src)[1]] == codes_src).mean())
    if direction != "src_to_ref":
        shares.append((codes_src[cKDTree(src).query(ref)[1]] == codes_ref).mean())
    return float(np.mean(shares))


def label_transfer_ari(
    xy_ref: ArrayLike, xy_src: ArrayLike, labels_ref: ArrayLike, labels_src: ArrayLike, *, n_neighbors: int = 1
) -> float:
    """Adjusted Rand index between the source's labels and those that its cells get from the reference around them.

    Each source cell takes the majority label of its nearest reference cells; of labels that are equally frequent there,
    the one of the nearer cell. The index compares groupings, not names: sections whose labels were swapped throughout
    still score 1.

    Parameters
    ----------
    xy_ref, xy_src, labels_ref, labels_src
        As for :func:`ot_accuracy`. Cells without a label are neither counted nor found as neighbours.
    n_neighbors
        Reference cells that vote for each source cell.

    Returns
    -------
    A number up to 1 (the same grouping); 0 is expected by chance.

    Raises
    ------
    ValueError
        As for :func:`ot_accuracy`, or if ``n_neighbors`` is below 1 or above the number of labelled reference cells.

    Examples
    --------
    >>> from inst_align.metrics import label_transfer_ari
    >>> xy, labels = [[0, 0], [1, 0], [8, 0], [9, 0]], ["a", "a", "b", "b"]
    >>> float(label_transfer_ari(xy, xy, labels, labels))
    1.0
    """
    from sklearn.metrics import adjusted_rand_score

    ref, src, codes_ref, codes_src = _labelled(xy_ref, xy_src, labels_ref, labels_src)
    if not 1 <= n_neighbors <= len(ref):
        raise ValueError(f"`n_neighbors` must be 1 to {len(ref)}, the labelled reference cells, found {n_neighbors!r}.")
    _, nearest = cKDTree(ref).query(src, k=list(range(1, n_neighbors + 1)))
    labels = codes_ref[nearest]
    votes = np.stack([(labels == labels[:, [rank]]).sum(axis=1) for rank in range(n_neighbors)], axis=1)
    transferred = labels[np.arange(len(src)), votes.argmax(axis=1)]
    return float(adjusted_rand_score(codes_src, transferred))


def _labelled(
    xy_ref: ArrayLike, xy_src: ArrayLike, labels_ref: ArrayLike, labels_src: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return coordinates and label codes of both sections' labelled cells, in an order of their own, not the rows'."""
    sections = []
    for xy, labels, name in ((xy_ref, labels_ref, "ref"), (xy_src, labels_src, "src")):
        coordinates, values = as_xy(xy, f"xy_{name}"), np.asarray(labels, dtype=object)
        if values.shape != (len(coordinates),):
            raise ValueError(
                f"`labels_{name}` has shape {values.shape}, `xy_{name}` {len(coordinates)} rows: give one label a row."
            )
        present = ~pd.isna(values)
        present[present] = values[present] != ""
        if not present.any():
            raise ValueError(f"`labels_{name}` holds no label: all {len(values)} are NaN, None or empty; label some.")
        sections.append((coordinates[present], values[present]))
    (ref, values_ref), (src, values_src) = sections
    is_text = _is_text(values_ref), _is_text(values_src)
    if set(is_text) == {True, False}:
        text, number = ("ref", "src") if is_text[0] else ("src", "ref")
        raise ValueError(f"`labels_{text}` holds text and `labels_{number}` numbers: convert one.")
    codes, _ = pd.factorize(np.concatenate([values_ref, values_src]), sort=True)
    codes_ref, codes_src = np.split(codes, [len(ref)])
    order_ref, order_src = np.lexsort((codes_ref, *ref.T)), np.lexsort((codes_src, *src.T))
    return ref[order_ref], src[order_src], codes_ref[order_ref], codes_src[order_src]


def _is_text(values: np.ndarray) -> bool | None:
    """Whether labels are all text (True) or all numbers (False); None for anything else, which is compared as it is."""
    kind = pd.api.types.infer_dtype(values)
    return True if kind == "string" else False if kind in _NUMBERS else None


def _transport_plan(xy_ref: np.ndarray, xy_src: np.ndarray, *, max_exact: int, rng: np.random.Generator) -> Plan:
    """Balanced transport plan of least Euclidean cost between two sections, every cell of a section weighing the same.

    Exact when both have at most ``max_exact`` cells. Else a full plan is built from that of compact patches and then
    improved: the cells of one section are cut into blocks, each block's mass is matched again exactly with all that it
    is joined to, and the next sweep cuts the other section in another direction. The cost never rises, and masses are
    whole numbers, so that none is lost.
    """
    divisor = np.gcd(len(xy_ref), len(xy_src))
    mass_ref = np.full(len(xy_ref), len(xy_src) // divisor)
    mass_src = np.full(len(xy_src), len(xy_ref) // divisor)
    if max(len(xy_ref), len(xy_src)) <= max_exact:
        return exact_plan(xy_ref, xy_src, mass_ref, mass_src)
    plan = _patch_plan(xy_ref, xy_src, mass_ref[0], mass_src[0], n_patches=max_exact)
    size = max(1, max_exact // 5)
    cost = _cost(xy_ref, xy_src, plan)
    for sweep in range(_MAX_SWEEPS):
        if sweep % 2:
            plan = _mirrored(_sweep(xy_src, xy_ref, _mirrored(plan), size=size, rng=rng))
        else:
            plan = _sweep(xy_ref, xy_src, plan, size=size, rng=rng)
        previous, cost = cost, _cost(xy_ref, xy_src, plan)
        if cost >= previous * (1 - _COST_TOLERANCE):
            break
    return plan


def _mirrored(plan: Plan) -> Plan:
    return plan[1], plan[0], plan[2]


def _cost(xy_ref: np.ndarray, xy_src: np.ndarray, plan: Plan) -> float:
    i, j, mass = plan
    return float(mass @ np.linalg.norm(xy_ref[i] - xy_src[j], axis=1))


def _patch_plan(xy_ref: np.ndarray, xy_src: np.ndarray, weight_ref: int, weight_src: int, *, n_patches: int) -> Plan:
    """Plan between all cells that follows the exact plan between the patches' centres.

    Lay each section's mass along a line, patch after patch. The plan of the patches then moves whole intervals from one
    line to the other, and cutting these wherever a cell begins on either line gives the pairs of cells.
    """
    patches_ref, patches_src = patches(xy_ref, n_patches), patches(xy_src, n_patches)
    p, q, mass = exact_plan(
        np.array([xy_ref[rows].mean(axis=0) for rows in patches_ref]),
        np.array([xy_src[rows].mean(axis=0) for rows in patches_src]),
        np.array([len(rows) * weight_ref for rows in patches_ref]),
        np.array([len(rows) * weight_src for rows in patches_src]),
    )
    start_ref = np.cumsum(mass) - mass
    by_src = np.lexsort((p, q))
    start_src = np.empty_like(mass)
    start_src[by_src] = np.cumsum(mass[by_src]) - mass[by_src]
    cell_src = np.arange(len(xy_src)) * weight_src
    interval = by_src[np.searchsorted(start_src[by_src], cell_src, side="right") - 1]
    cell_src = start_ref[interval] + cell_src - start_src[interval]
    cuts = np.unique(np.concatenate([start_ref, np.arange(len(xy_ref)) * weight_ref, cell_src]))
    interval = np.searchsorted(start_ref, cuts, side="right") - 1
    i = np.concatenate(patches_ref)[cuts // weight_ref]
    j = np.concatenate(patches_src)[(start_src[interval] + cuts - start_ref[interval]) // weight_src]
    return i, j, np.diff(cuts, append=mass.sum())


def _sweep(xy_a: np.ndarray, xy_b: np.ndarray, plan: Plan, *, size: int, rng: np.random.Generator) -> Plan:
    """Match again, exactly, the mass of each block of about ``size`` cells of a."""
    i, j, mass = plan
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    blocks = patches(xy_a @ turn, -(-len(xy_a) // size))
    block = np.empty(len(xy_a), dtype=np.intp)
    block[np.concatenate(blocks)] = np.repeat(np.arange(len(blocks)), [len(rows) for rows in blocks])
    order = np.argsort(block[i], kind="stable")
    parts = []
    for rows in np.split(order, np.searchsorted(block[i[order]], np.arange(1, len(blocks)))):
        cells_a, at_a = np.unique(i[rows], return_inverse=True)
        cells_b, at_b = np.unique(j[rows], return_inverse=True)
        masses = np.bincount(at_a, mass[rows]), np.bincount(at_b, mass[rows])
        new_a, new_b, new_mass = exact_plan(xy_a[cells_a], xy_b[cells_b], *masses)
        parts.append((cells_a[new_a], cells_b[new_b], new_mass))
    i, j, mass = (np.concatenate(column) for column in zip(*parts, strict=True))
    return i, j, mass
