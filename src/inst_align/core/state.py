"""The state of a fit as a JSON tree and a list of arrays, and back: no code is run to read it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from inst_align.core.transforms import Affine


def encode(state: Any) -> tuple[Any, list[np.ndarray]]:
    """Return a state as a tree for JSON, and the arrays that it refers to by number.

    Parameters
    ----------
    state
        Nested dicts with keys that are str or int, lists and tuples of ``None``, bool, int, float, str, numpy arrays,
        tensors and :class:`~inst_align.core.transforms.Affine`, as ``state_dict`` of optimisers and networks gives.

    Raises
    ------
    TypeError
        There is something else in it.

    Examples
    --------
    >>> decode(*encode({"step": 3, "rates": (0.1, 0.2), "weights": torch.ones(2)}))
    {'step': 3, 'rates': (0.1, 0.2), 'weights': tensor([1., 1.])}
    """
    arrays: list[np.ndarray] = []

    def stored(kind: str, array: np.ndarray) -> dict[str, int]:
        arrays.append(np.array(array))
        return {kind: len(arrays) - 1}

    def node(value: Any) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, torch.Tensor):
            return stored("tensor", value.detach().cpu().numpy())
        if isinstance(value, np.ndarray):
            return stored("array", value)
        if isinstance(value, Affine):
            return stored("affine", value.matrix)
        if isinstance(value, list | tuple):
            return {"list" if isinstance(value, list) else "tuple": [node(item) for item in value]}
        if isinstance(value, dict):
            return {"dict": [[_key(key), node(item)] for key, item in value.items()]}
        raise TypeError(f"The state of a fit cannot hold a {type(value).__module__}.{type(value).__name__}.")

    return node(state), arrays


def _key(key: Any) -> str | int:
    if isinstance(key, str | int):
        return key
    raise TypeError(f"The state of a fit cannot have a {type(key).__name__} for a key.")


def decode(tree: Any, arrays: list[np.ndarray]) -> Any:
    """Return the state that :func:`encode` took apart; tensors are on the CPU."""
    if not isinstance(tree, dict):
        return tree
    [(kind, content)] = tree.items()
    if kind == "dict":
        return {key: decode(value, arrays) for key, value in content}
    if kind in ("list", "tuple"):
        items = [decode(item, arrays) for item in content]
        return items if kind == "list" else tuple(items)
    array = arrays[content]
    return {"tensor": torch.from_numpy, "array": np.asarray, "affine": Affine}[kind](array)  # type: ignore[operator]
