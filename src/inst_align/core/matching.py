"""Soft matching of two sections by place and expression together (INST-Align, eq. 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from inst_align.core.losses import mean_square_distance
from inst_align.core.memory import in_chunks
from inst_align.core.neighbours import CHUNK_ELEMENTS, NearestNeighbours

SCALE_FLOOR = 1e-8
LOWEST_LOGIT = -40.0
"""Weights below exp(-40) of the largest are lost in float32 anyway, and denormal numbers make a CPU crawl."""


@dataclass(frozen=True, kw_only=True)
class MatchSettings:
    """Constants of the matching.

    Parameters
    ----------
    n_neighbours
        ``K``: candidates of each point, the nearest ones in space.
    feature_weight
        ``lambda``: weight of the expression's term of the cost against the place's.
    decay
        Share of the old value that running scales and temperature keep in each update.
    temperature_min, temperature_max
        Bounds of the temperature, in units of the cost.
    """

    n_neighbours: int = 64
    feature_weight: float = 1.0
    decay: float = 0.9
    temperature_min: float = 0.01
    temperature_max: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchState:
    """Running scales and temperature of the matching: tensors without dimensions, on the device, never written to.

    Parameters
    ----------
    scale_geometry
        ``s_g``: running mean of the squared distance between a point and its candidates, in squared units of length.
    scale_feature
        ``s_f``: running mean of their cosine distance.
    temperature
        ``tau``: softness of the assignment, in units of the cost.
    """

    scale_geometry: Tensor
    scale_feature: Tensor
    temperature: Tensor

    @classmethod
    def start(cls, temperature: float = 0.1, *, device: torch.device | str = "cpu") -> MatchState:
        """Return scales of one and the given temperature."""
        one = torch.ones((), dtype=torch.float32, device=device)
        return cls(scale_geometry=one, scale_feature=one, temperature=one * temperature)


class Pairs(NamedTuple):
    """Points and their ``K`` candidates: the candidates' places, squared distances and cosine distances."""

    target_xy: Tensor
    square_distance: Tensor
    feature_distance: Tensor


class SoftMatch(NamedTuple):
    """Targets, shape ``(n, 2)``; weights of the candidates, shape ``(n, K)``; mean weighted cost, no dimensions."""

    targets: Tensor
    weights: Tensor
    mean_cost: Tensor


def unit_rows(features: Tensor) -> Tensor:
    """Return features, shape ``(n, d)``, with rows of unit length (rows of zeros stay zero)."""
    return normalize(features, dim=1)


def feature_distance(query_f: Tensor, target_f: Tensor, neighbours: Tensor) -> Tensor:
    """Return one minus the cosine between points and their candidates, without gradients, in chunks of rows.

    Parameters
    ----------
    query_f, target_f
        Features with rows of unit length, shapes ``(n, d)`` and ``(m, d)``.
    neighbours
        Candidates of each query among the targets, shape ``(n, K)``.

    Returns
    -------
    Shape ``(n, K)``, between 0 and 2.
    """
    query_f, target_f = query_f.detach(), target_f.detach()
    rows = max(1, CHUNK_ELEMENTS // (neighbours.shape[1] * target_f.shape[1]))

    def cosine(part: slice) -> Tensor:
        return torch.bmm(target_f[neighbours[part]], query_f[part].unsqueeze(2)).squeeze(2)

    return 1 - torch.cat(in_chunks(cosine, len(query_f), rows))


def pair_up(query_xy: Tensor, query_f: Tensor, target_xy: Tensor, target_f: Tensor, neighbours: Tensor) -> Pairs:
    """Return the two distances between points and their candidates; parameters as in :func:`soft_targets`."""
    n, k = neighbours.shape
    # Indexing by `target_xy[neighbours]` adds up its gradient in an order that changes from run to run when torch uses
    # several threads; `gather` along the last axis does not, and is faster.
    candidates = target_xy.T.contiguous().gather(1, neighbours.reshape(1, -1).expand(2, -1)).T.reshape(n, k, 2)
    square_distance = (query_xy.unsqueeze(1) - candidates).square().sum(dim=2)
    return Pairs(candidates, square_distance, feature_distance(query_f, target_f, neighbours))


def assign(pairs: Pairs, state: MatchState, feature_weight: float = 1.0) -> SoftMatch:
    r"""Return soft targets from the distances between points and candidates.

    .. math::
        c_{ij} = \frac{\|q_i - t_j\|^2}{s_g} + \lambda \frac{1 - \cos(u_i, v_j)}{s_f}, \qquad
        p_{ij} = \mathrm{softmax}_j(-c_{ij} / \tau), \qquad \text{target}_i = \sum_j p_{ij}\, t_j

    INST-Align, eq. 6. Gradients flow through places and weights, not through features.

    Parameters
    ----------
    pairs
        From :func:`pair_up`.
    state
        ``s_g``, ``s_f`` and ``tau``.
    feature_weight
        ``lambda``.
    """
    geometry = pairs.square_distance / (state.scale_geometry + SCALE_FLOOR)
    feature = pairs.feature_distance / (state.scale_feature + SCALE_FLOOR)
    cost = geometry + feature_weight * feature
    logits = -cost / state.temperature
    logits = (logits - logits.amax(dim=1, keepdim=True).detach()).clamp(min=LOWEST_LOGIT)
    weights = logits.softmax(dim=1)
    targets = (weights.unsqueeze(2) * pairs.target_xy).sum(dim=1)
    return SoftMatch(targets, weights, (weights * cost).sum(dim=1).mean())


def soft_targets(
    query_xy: Tensor,
    query_f: Tensor,
    target_xy: Tensor,
    target_f: Tensor,
    neighbours: Tensor,
    state: MatchState,
    feature_weight: float = 1.0,
) -> SoftMatch:
    """Return, for every query, the mean place of its candidates, weighted by place and expression.

    Parameters
    ----------
    query_xy, target_xy
        Coordinates, shapes ``(n, 2)`` and ``(m, 2)``, in one frame.
    query_f, target_f
        Features with rows of unit length (:func:`unit_rows`), shapes ``(n, d)`` and ``(m, d)``; constants.
    neighbours
        Candidates of each query among the targets, shape ``(n, K)``.
    state
        Scales and temperature, see :func:`assign` for the formula.
    feature_weight
        Weight of the features' term of the cost.

    Examples
    --------
    >>> query, target = torch.zeros(1, 2), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    >>> feature = unit_rows(torch.ones(2, 3))
    >>> match = soft_targets(query, feature[:1], target, feature, torch.tensor([[0, 1]]), MatchState.start())
    >>> match.targets
    tensor([[0., 0.]])
    """
    return assign(pair_up(query_xy, query_f, target_xy, target_f, neighbours), state, feature_weight)


def update_scales(state: MatchState, pairs: Pairs, settings: MatchSettings) -> MatchState:
    """Return the state with both scales moved towards the pairs' mean distances (exponential moving average)."""
    return replace(
        state,
        scale_geometry=_average(state.scale_geometry, pairs.square_distance.detach().mean(), settings.decay),
        scale_feature=_average(state.scale_feature, pairs.feature_distance.mean(), settings.decay),
    )


def update_temperature(state: MatchState, mean_cost: Tensor, settings: MatchSettings) -> MatchState:
    """Return the state with the temperature moved towards half of the mean weighted cost, within its bounds.

    The half is the authors' number; a Gaussian assignment in the plane would reproduce its own mean cost without it.
    """
    temperature = _average(state.temperature, mean_cost.detach() / 2, settings.decay)
    return replace(state, temperature=temperature.clamp(settings.temperature_min, settings.temperature_max))


def _average(old: Tensor, new: Tensor, decay: float) -> Tensor:
    return decay * old + (1 - decay) * new


def forward_loss(
    source_xy: Tensor,
    source_f: Tensor,
    reference_xy: Tensor,
    reference_f: Tensor,
    state: MatchState,
    settings: MatchSettings,
    *,
    nearest: NearestNeighbours | None = None,
) -> tuple[Tensor, MatchState]:
    r"""Return how far deformed source points are from their soft targets in the reference, and the state after it.

    .. math:: L_{fwd} = \frac1n \sum_i \Big\|\varphi(x^2_i) - \sum_j p_{ij}\, x^1_j\Big\|^2

    INST-Align, section 2.4. The scales are updated before the assignment, the temperature after it.

    Parameters
    ----------
    source_xy, reference_xy
        Deformed source and reference coordinates, shapes ``(n, 2)`` and ``(m, 2)``.
    source_f, reference_f
        Features with rows of unit length, shapes ``(n, d)`` and ``(m, d)``; constants.
    state, settings
        State before, and constants of the matching.
    nearest
        Neighbours among ``reference_xy`` when they have been indexed already.
    """
    nearest = NearestNeighbours(reference_xy) if nearest is None else nearest
    neighbours = nearest(source_xy, settings.n_neighbours)
    pairs = pair_up(source_xy, source_f, reference_xy, reference_f, neighbours)
    state = update_scales(state, pairs, settings)
    match = assign(pairs, state, settings.feature_weight)
    return mean_square_distance(source_xy, match.targets), update_temperature(state, match.mean_cost, settings)


def reverse_loss(
    source_xy: Tensor,
    source_f: Tensor,
    reference_xy: Tensor,
    reference_f: Tensor,
    state: MatchState,
    settings: MatchSettings,
) -> Tensor:
    r"""Return how far reference points are from their soft targets among the deformed source points.

    .. math:: L_{rev} = \frac1m \sum_j \Big\|x^1_j - \sum_i p'_{ji}\, \varphi(x^2_i)\Big\|^2

    INST-Align, section 2.4: it asks for every reference point to be explained, and so works against many points
    collapsing onto one. Scales and temperature are those of the forward direction. Parameters as in
    :func:`forward_loss`.
    """
    neighbours = NearestNeighbours(source_xy)(reference_xy, settings.n_neighbours)
    match = soft_targets(reference_xy, reference_f, source_xy, source_f, neighbours, state, settings.feature_weight)
    return mean_square_distance(reference_xy, match.targets)
