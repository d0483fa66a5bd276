"""What a run leaves in ``uns["inst_align"][key_added]``: plain values that h5ad and zarr can hold, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align._checks import check_anndata, listing
from inst_align._keys import UNS

if TYPE_CHECKING:
    from anndata import AnnData

RECORD_VERSION = 1


def plain(value: Any) -> Any:
    """Return a copy made of nothing but dicts with string keys, str, float, int, bool and numpy arrays.

    Dataclasses become dicts; entries that are None are left out; paths become strings. A list or tuple becomes an
    array when its items make one, and else a dict with the keys "0", "1" and so on.

    Raises
    ------
    TypeError
        Something else is in there, a tensor for example.

    Examples
    --------
    >>> plain({"bounds": (0, 1), "seed": None, "steps": [{"name": "pose"}, {"name": "warp"}]})
    {'bounds': array([0, 1]), 'steps': {'0': {'name': 'pose'}, '1': {'name': 'warp'}}}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return _plain_sequence(value)
    if isinstance(value, np.ndarray) and value.ndim:
        return _plain_array(value)
    if isinstance(value, np.ndarray | np.generic):
        value = value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"A record cannot hold a {type(value).__module__}.{type(value).__name__}; convert it to an array.")


def _plain_sequence(items: list[Any] | tuple[Any, ...]) -> Any:
    items = [plain(item) for item in items if item is not None]
    kinds = {
        str if isinstance(item, str) else np.ndarray if isinstance(item, np.ndarray) else type(item) for item in items
    }
    shapes = {np.shape(item) for item in items}
    one_array = dict not in kinds and len(shapes) <= 1 and (str not in kinds or kinds == {str})
    return np.array(items) if one_array else {str(i): item for i, item in enumerate(items)}


def _plain_array(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind in "biufU":
        return np.array(array)
    words = array.astype(object)  # files give strings back in dtypes of their own
    if all(isinstance(word, str) for word in words.ravel()):
        return np.array(words.tolist(), dtype=str)
    raise TypeError(f"A record cannot hold an array of dtype {array.dtype}; convert it to numbers or strings.")


def read_record(adata: AnnData, key: str) -> dict[str, Any]:
    """Return a copy of the record of one run.

    Raises
    ------
    KeyError
        There is no record under this key.
    ValueError
        A newer version of the package wrote it.
    """
    check_anndata(adata, "adata")
    records = adata.uns.get(UNS, {})
    if not isinstance(records, Mapping) or key not in records:
        there = listing(sorted(records), 10) if isinstance(records, Mapping) else "none"
        raise KeyError(
            f"`key={key!r}`: no record of a run in `uns[{UNS!r}]`; there are records under {there}: "
            f"pass one of these as `key`, or run the alignment first."
        )
    record: dict[str, Any] = plain(records[key])
    version = record.get("version")
    if not isinstance(version, int):
        raise ValueError(f"`key={key!r}`: `uns[{UNS!r}][{key!r}]` has no version number; run the alignment again.")
    if version > RECORD_VERSION:
        raise ValueError(
            f"`key={key!r}`: the record has version {version}, and this inst-align reads versions up to "
            f"{RECORD_VERSION}; install a newer inst-align."
        )
    return record
