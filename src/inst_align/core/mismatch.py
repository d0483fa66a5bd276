"""How badly two sections agree under a map: the data term of the registration, in both directions.

Both sections are drawn as smoothed feature rasters in the reference's unit frame. In one direction, every tissue pixel
is asked whether it finds its own features in the other section. Per channel c, r_c is the mean squared difference and
the term is the mean of ``w_c log r_c`` over channels: the negative log-likelihood of Gaussian residuals of unknown
variance, so that a channel counts by how well it *can* be matched in this pair. The weight w_c is the channel's
correlation between the sections when the descent begins: channels of noise do not pull.

Pixels that ought to have a counterpart and are mapped off the other section's tissue pay as if matched with the mean,
so that tissue cannot improve its score by sliding over the edge. Pixels that have none neither pull nor are pulled,
which is what partial overlap needs. Ought to: those on the other's tissue when the descent began; and, where the
sections cover each other nearly wholly, those just outside of it too, since then the outline itself is evidence.

The gradient is computed with the value, in closed form and without autograd, which takes three times as long.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from inst_align.core.lookup import Lookup
from inst_align.core.raster import blur, sample
from inst_align.core.threads import side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable

    from inst_align.core.drawn import Drawn

    Both = tuple[torch.Tensor, torch.Tensor]
    """Of the source, who asks the reference, and of the reference, who asks the source."""
    Move = Callable[[Both], Both]
    """From places of both, (p, 2) and (q, 2), to places."""
    Slopes = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

FULL_OVERLAP = 0.85
"""Sections cover each other nearly wholly when each has this share of its tissue on the other's."""
OUTLINE_REACH = 0.5
"""How far outside "just outside" is, in units of a level's blur."""
RESIDUAL_FLOOR = 0.02
"""Share of a channel's variance below which a smaller residual earns little: keeps the logarithm finite."""
MIN_COVERAGE = 0.2
"""A sampled raster counts where at least this share of the interpolated pixels is tissue."""
FEW = 400
"""Pixels of tissue below which all of them are asked at once."""


def residuals(
    own: torch.Tensor,
    found: torch.Tensor,
    matched: torch.Tensor,
    left: torch.Tensor,
    variance: torch.Tensor,
    escape_cost: float,
) -> tuple[torch.Tensor, Callable[[torch.Tensor], Slopes]]:
    """Residual variance of every channel, shape (k,), relative to the channel's own; see the module's text.

    Parameters
    ----------
    own
        Features of the section that asks, at its p pixels of tissue, shape (p, k).
    found
        The other section's features at the places that these are mapped to, (p, k).
    matched, left
        How much each pixel counts that finds tissue, and that ought to and does not, (p,).
    variance
        Of the channels, (k,).
    escape_cost
        What it costs to find none, in units of being matched with the mean.

    Returns
    -------
    The residuals, and what makes of a gradient with respect to them (k,) those with respect to ``found``, ``matched``
    and ``left``.
    """
    number = matched.sum()
    off = found - own
    # A channel's mean over the overlap differs where one section is cropped; it is taken out.
    off -= matched @ off / number.clamp_min(1.0)
    squared, paid = off.square(), escape_cost * own.square()
    total = (number + left.sum()).clamp_min(1.0)
    unit = total * variance.clamp_min(1e-12)
    ratio = (matched @ squared + left @ paid) / unit

    def slopes(by_ratio: torch.Tensor) -> Slopes:
        by_sum = by_ratio / unit
        by_total = -(by_ratio @ ratio) / total
        by_found = off * (2 * by_sum) * matched[:, None]
        return by_found, squared @ by_sum + by_total, paid @ by_sum + by_total

    return ratio, slopes


@dataclass(frozen=True, kw_only=True, eq=False)
class _Question:
    """What some pixels of one section's tissue ask of the other section.

    The tissue is one more channel: of the other section it says where there is any, and of the own it is zero.
    """

    pixels: torch.Tensor  # (p,), flat indices into the grid
    places: torch.Tensor  # (p, 2), where they are
    own: torch.Tensor  # (p, k + 1)
    other: Lookup  # of k + 1 channels
    variance: torch.Tensor  # (k + 1,), of own
    expected: torch.Tensor  # (p,), whether they ought to find tissue, from 0 to 1

    @classmethod
    def of(cls, own: Drawn, other: Drawn) -> _Question:
        pixels = own.tissue.flatten().nonzero()[:, 0]
        features = torch.cat([own.features, torch.zeros_like(own.features[:1])])
        return cls(
            pixels=pixels,
            places=own.grid.points(pixels.device).flatten(0, 1)[pixels],
            own=features.flatten(1).T[pixels],
            other=Lookup.of(own.grid, torch.cat([other.features, other.tissue[None]])),
            variance=torch.cat([own.variance, own.variance.new_ones(1)]),
            expected=own.tissue.new_zeros(len(pixels)),
        )

    def expecting(self, coverage: torch.Tensor) -> _Question:
        """Return the question, tissue being expected as an image (H, W) has it."""
        return replace(self, expected=coverage.flatten()[self.pixels])

    def parted(self) -> tuple[_Question, _Question]:
        """Return two questions of every other pixel each, as on a chessboard; twice the same if there are few."""
        if len(self.pixels) < FEW:
            return self, self
        width = self.other.grid.width
        black = (self.pixels // width + self.pixels % width) % 2 == 0
        return self._some(black), self._some(~black)

    def _some(self, chosen: torch.Tensor) -> _Question:
        parts: dict[str, Any] = {name: getattr(self, name)[chosen] for name in ("pixels", "places", "own", "expected")}
        return replace(self, **parts)

    def ratio(self, places: torch.Tensor) -> torch.Tensor:
        """Relative residual variance (k,) where tissue is found, the pixels being mapped to ``places`` (p, 2)."""
        values = self.other.values(places)
        coverage, _, found = _covered(values)
        return residuals(self.own, found, coverage, torch.zeros_like(coverage), self.variance, 0.0)[0][:-1]

    def cost(
        self, places: torch.Tensor, weights: torch.Tensor, escape_cost: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the data term of this direction, and its gradient with respect to ``places`` (p, 2)."""
        values, *changes = self.other(places)
        coverage, scale, found = _covered(values)
        left = (1 - coverage) * self.expected
        ratio, slopes = residuals(self.own, found, coverage, left, self.variance, escape_cost)
        weights = torch.cat([weights, weights.new_zeros(1)])
        by_found, by_matched, by_left = slopes(weights / (ratio + RESIDUAL_FLOOR))
        by_coverage = by_matched - self.expected * by_left - scale * _dots(by_found, found)
        slope = [scale * _dots(by_found, change) + by_coverage * change[:, -1] for change in changes]
        return torch.log(ratio + RESIDUAL_FLOOR) @ weights, torch.stack(slope, dim=1) / self.other.grid.pixel


def _covered(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How much tissue was sampled (p,), what features are multiplied with to be its mean (p,), and these (p, k + 1)."""
    coverage = values[:, -1]
    scale = (coverage > MIN_COVERAGE) / coverage.clamp_min(MIN_COVERAGE)
    return coverage, scale, values * scale[:, None]


def _dots(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Scalar products (p,) of the rows of (p, k) and (p, k)."""
    return (a * b) @ a.new_ones(a.shape[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class Mismatch:
    """The data term for two drawn sections.

    Every call asks but half of the pixels, those of one colour of a chessboard, and the next ought to ask the others:
    neighbouring pixels say nearly the same.
    """

    parts: tuple[tuple[_Question, _Question], ...]  # of one colour each: the source's, the reference's
    escape_cost: float
    correlation: torch.Tensor  # (k,), of the channels between the sections, when the descent began

    @classmethod
    @torch.no_grad()
    def begin(cls, ref: Drawn, src: Drawn, move: Move, *, escape_cost: float, sigma: float) -> Mismatch:
        """Fix the channels' weights and the tissue expected from the map that the descent begins with.

        ``sigma`` is the blur of the drawings, in unit lengths.
        """
        questions = _Question.of(src, ref), _Question.of(ref, src)
        ratios = side_by_side(_Question.ratio, questions, move((questions[0].places, questions[1].places)))
        grid = ref.grid
        points = grid.points(ref.features.device).flatten(0, 1)
        coverage = [
            sample(other.tissue[None], grid, places).reshape(grid.height, grid.width)
            for other, places in zip((ref, src), move((points, points)), strict=True)
        ]
        share = [(on * own.tissue).sum() / own.tissue.sum() for on, own in zip(coverage, (src, ref), strict=True)]
        if min(share) > FULL_OVERLAP:
            coverage = [(2 * blur(on[None], OUTLINE_REACH * sigma / grid.pixel)[0]).clamp(0, 1) for on in coverage]
        asked = (question.expecting(on).parted() for question, on in zip(questions, coverage, strict=True))
        return cls(
            parts=tuple(zip(*asked, strict=True)),
            escape_cost=escape_cost,
            correlation=(1 - torch.stack(ratios).sum(dim=0) / 4).clamp(
                0, 1
            ),  # r = v_ref + v_src - 2 cov, each v about 1
        )

    def __call__(self, move: Move, turn: int) -> torch.Tensor:
        """Mean of both directions; ``turn`` counts the calls."""
        questions = self.parts[turn % len(self.parts)]
        weights = self.correlation / self.correlation.sum().clamp_min(1e-3 * len(self.correlation))
        places = move((questions[0].places, questions[1].places))
        return _WithSlopes.apply(questions, weights / 2, self.escape_cost, *places)


class _WithSlopes(torch.autograd.Function):
    """A sum of costs that come with their gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        questions: tuple[_Question, _Question],
        weights: torch.Tensor,
        escape_cost: float,
        *places: torch.Tensor,
    ) -> torch.Tensor:
        found = [question.cost(at, weights, escape_cost) for question, at in zip(questions, places, strict=True)]
        costs, slopes = zip(*found, strict=True)
        ctx.save_for_backward(*slopes)
        return sum(costs)

    @staticmethod
    def backward(ctx: Any, above: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return None, None, None, *(above * slope for slope in ctx.saved_tensors)
