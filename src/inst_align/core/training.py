"""What a training loop keeps while it runs: the course of its losses, and the best weights so far."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


class History:
    """Loss terms per epoch; they stay on the device until the end, so that nothing waits for them."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, phase: str, terms: dict[str, Tensor]) -> None:
        """Append one epoch's terms, each under ``phase.name``."""
        for name, value in terms.items():
            self._values.setdefault(f"{phase}.{name}", []).append(value.detach())

    def cut(self, n_epochs: int, phase: str = "") -> None:
        """Forget what came after so many epochs of a phase, or of all."""
        for name in [name for name in self._values if name.startswith(phase)]:
            del self._values[name][n_epochs:]
            if n_epochs == 0:
                del self._values[name]

    def resume(self, arrays: dict[str, np.ndarray], device: torch.device) -> int:
        """Take back what :meth:`to_arrays` returned; returns the number of epochs."""
        self._values = {name: list(torch.from_numpy(values).to(device)) for name, values in arrays.items()}
        return max(map(len, arrays.values()), default=0)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return every term as an array with one value per epoch."""
        return {name: torch.stack(values).cpu().numpy() for name, values in self._values.items()}


class BestWeights:
    """Remembers the weights of some modules at the lowest loss that it was shown."""

    def __init__(self, *modules: nn.Module) -> None:
        self._modules = modules
        self._lowest = math.inf
        self._states: list[dict[str, Tensor]] = []

    def offer(self, loss: float) -> None:
        """Remember the present weights if the loss is the lowest so far."""
        if loss < self._lowest:
            self._lowest = loss
            self._states = [
                {name: value.detach().clone() for name, value in module.state_dict().items()}
                for module in self._modules
            ]

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered."""
        return {"lowest": self._lowest, "states": self._states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        self._lowest, self._states = state["lowest"], state["states"]

    def restore(self) -> None:
        """Put the remembered weights back, if there are any."""
        for module, state in zip(self._modules, self._states):
            module.load_state_dict(state)
