"""Everything that changes while a network trains, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WindowSchedule:
    """How an encoding's window opens, linearly, over the first epochs of a phase.

    Parameters
    ----------
    n_frequencies
        Bands of the encoding: the window's value when it is fully open.
    n_epochs
        Epochs of the phase.
    fraction
        Part of the phase during which the window opens; 0 keeps it open from the first epoch on.

    Examples
    --------
    >>> window = WindowSchedule(n_frequencies=6, n_epochs=300, fraction=1 / 3)
    >>> [window.alpha(epoch) for epoch in (0, 50, 100, 299)]
    [0.0, 3.0, 6.0, 6.0]
    """

    n_frequencies: int
    n_epochs: int
    fraction: float

    @property
    def opening_epochs(self) -> int:
        """Epochs at the start of the phase during which the window is not fully open."""
        return round(self.n_epochs * self.fraction)

    def alpha(self, epoch: int) -> float:
        """Return the window's value in an epoch, counted from zero."""
        if epoch >= self.opening_epochs:
            return float(self.n_frequencies)
        return self.n_frequencies * epoch / self.opening_epochs

    def is_open(self, epoch: int) -> bool:
        """Return whether the window is fully open in an epoch, counted from zero."""
        return epoch >= self.opening_epochs
