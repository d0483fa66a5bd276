"""When numbers leave the finite: the descent stops, what was last seen to be fine is put back, and the fit tells of it.

Looking at a loss makes the host wait for the device, so that it is done every ``CHECK_EVERY`` steps and at the end only.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHECK_EVERY = 20

_stops: ContextVar[tuple[str, list[str]] | None] = ContextVar("stops", default=None)


@contextmanager
def telling(stage: str, stops: list[str]) -> Iterator[None]:
    """Within the block, what stops early is told of in ``stops``, one sentence without its full stop each."""
    token = _stops.set((stage, stops))
    try:
        yield
    finally:
        _stops.reset(token)


def tell(what: str) -> None:
    """Tell of something that stopped early, if anyone listens."""
    listening = _stops.get()
    if listening is not None:
        stage, stops = listening
        sentence = f"{stage}: {what}"
        if sentence not in stops:
            stops.append(sentence)


class Guard:
    """Watches one descent.

    Parameters
    ----------
    values
        What is being changed, in place; must be finite now.
    n_steps
        Number of the last step.
    done
        Steps that there were before, if numbers do not begin with one.

    Examples
    --------
    >>> value = torch.ones(2)
    >>> guard = Guard([value], n_steps=3)
    >>> for loss in (1.0, float("nan"), 0.5):
    ...     value += loss
    ...     fine = guard.fine(torch.tensor(loss))
    >>> fine, guard.good, value
    (False, 0, tensor([1., 1.]))
    """

    def __init__(self, values: Sequence[torch.Tensor], n_steps: int, *, done: int = 0) -> None:
        self._values = list(values)
        self.n_steps = n_steps
        self._losses: list[torch.Tensor] = []
        self._kept = self._copies()
        self.good = done
        """Steps up to which all was seen to be fine."""

    def fine(self, loss: torch.Tensor, *, check: bool = False) -> bool:
        """Take the loss, no dimensions, that a step went by; returns whether to go on.

        Looks only now and then, and after the last step, or if ``check`` asks for it. If something is not finite then,
        the values are put back to what they were when they were last looked at.
        """
        self._losses.append(loss.detach())
        step = self.good + len(self._losses)
        if not check and step % CHECK_EVERY and step < self.n_steps:
            return True
        losses = torch.stack(self._losses).isfinite()
        if bool(torch.stack([losses.all(), *(value.detach().isfinite().all() for value in self._values)]).all()):
            self.good, self._losses, self._kept = step, [], self._copies()
            return True
        bad = (~losses).nonzero()
        tell(f"loss not finite at step {self.good + 1 + int(bad[0])}" if len(bad) else f"not finite after step {step}")
        with torch.no_grad():
            for value, kept in zip(self._values, self._kept, strict=True):
                value.copy_(kept)
        return False

    def _copies(self) -> list[torch.Tensor]:
        return [value.detach().clone() for value in self._values]
