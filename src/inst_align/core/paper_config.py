"""The constants of INST-Align as published."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from inst_align.core.matching import MatchSettings


@dataclass(frozen=True, kw_only=True)
class PaperConfig:
    """Constants of the published method.

    [P] is stated by the paper; the rest is what the authors' released program uses where the paper is silent. Lengths
    are in z-scores: standard deviations of the coordinates of both sections together.

    Parameters
    ----------
    phase1_epochs, phase2_epochs
        Epochs of the pre-training [P: 300], one step each, and of the joint training [P: 400], one pass over the
        source each.
    batch_size
        Most cells of one section in a step.
    learning_rate, learning_rate_min
        Step size of Adam at the start, and the least that the plateau rule leaves.
    plateau_patience, plateau_factor
        After this many joint epochs without a better matching loss the step size is multiplied by the factor.
    gradient_clip
        Largest norm of one network's gradient.
    lambda_recon
        Weight of the reconstruction in the joint phase [P: 0.1]. Larger: a better field, a lazier deformation.
    lambda_jacobian
        Weight of the Jacobian term in the joint phase. Larger: closer to area-preserving.
    lambda_magnitude
        Weight of the mean squared displacement in the joint phase, which the paper does not mention. Larger: closer
        to the pose.
    compression_weight
        How much more the Jacobian term charges for compression than for expansion.
    jacobian_points
        Points of a batch at which the Jacobian is taken.
    dice_weight
        Weight of the Dice term within the reconstruction loss.
    reverse_weight
        Weight of the reverse matching against the forward one.
    n_neighbours
        Candidates of each point in the matching.
    feature_weight
        Weight of expression against place in the cost of a match.
    temperature_start, temperature_min, temperature_max
        Softness of the matching at the start of each phase, and its bounds, in units of the cost.
    ema_decay
        Share of the old value that the running scales and temperature keep.
    phase1_opening, phase2_opening
        Parts of the phases over which the windows of the encodings open [P: one third, in phase 1]; in phase 2 only
        that of the deformation, which starts closed again.
    n_frequencies, max_log2
        Bands of the encodings, and the power of two of the highest frequency, in half periods per z-score.
    n_latent
        Length of a latent vector.
    field_width, field_depth, decoder_width, decoder_depth
        Sizes of expression fields [P: depth 4] and decoder.
    deformation_width, deformation_depth, deformation_head
        Sizes of the deformation network [P: depth 6].

    Raises
    ------
    ValueError
        If a value is out of its range.

    Examples
    --------
    >>> PaperConfig().phase2_epochs
    400
    >>> PaperConfig(batch_size=0)
    Traceback (most recent call last):
    ...
    ValueError: `batch_size` of the paper preset must be at least 1, found 0.
    """

    phase1_epochs: int = 300
    phase2_epochs: int = 400
    batch_size: int = 4000
    learning_rate: float = 1e-3
    learning_rate_min: float = 1e-6
    plateau_patience: int = 200
    plateau_factor: float = 0.5
    gradient_clip: float = 2.0
    lambda_recon: float = 0.1
    lambda_jacobian: float = 0.01
    lambda_magnitude: float = 0.05
    compression_weight: float = 5.0
    jacobian_points: int = 256
    dice_weight: float = 0.01
    reverse_weight: float = 1.0
    n_neighbours: int = 64
    feature_weight: float = 1.0
    temperature_start: float = 0.1
    temperature_min: float = 0.01
    temperature_max: float = 1.0
    ema_decay: float = 0.9
    phase1_opening: float = 1 / 3
    phase2_opening: float = 0.2
    n_frequencies: int = 6
    max_log2: float = 5.0
    n_latent: int = 64
    field_width: int = 256
    field_depth: int = 4
    decoder_width: int = 256
    decoder_depth: int = 4
    deformation_width: int = 128
    deformation_depth: int = 6
    deformation_head: int = 64

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least: float = 1 if isinstance(field.default, int) else 0
            if field.name in {"phase1_epochs", "phase2_epochs"}:
                least = 0
            if not (math.isfinite(value) and value >= least):
                msg = f"`{field.name}` of the paper preset must be at least {least}, found {value}."
                raise ValueError(msg)
        for name in ("learning_rate", "gradient_clip", "plateau_factor", "temperature_min"):
            if getattr(self, name) == 0:
                msg = f"`{name}` of the paper preset must be above 0, found 0."
                raise ValueError(msg)
        for name in ("phase1_opening", "phase2_opening", "ema_decay", "plateau_factor"):
            if getattr(self, name) >= 1:
                msg = f"`{name}` of the paper preset must be below 1, found {getattr(self, name)}."
                raise ValueError(msg)
        if not self.temperature_min <= self.temperature_start <= self.temperature_max:
            found = f"{self.temperature_min}, {self.temperature_start}, {self.temperature_max}"
            msg = f"`temperature_min`, `_start` and `_max` of the paper preset must ascend, found {found}."
            raise ValueError(msg)

    @property
    def matching(self) -> MatchSettings:
        """The constants of the matching, by themselves."""
        return MatchSettings(
            n_neighbours=self.n_neighbours,
            feature_weight=self.feature_weight,
            decay=self.ema_decay,
            temperature_min=self.temperature_min,
            temperature_max=self.temperature_max,
        )
