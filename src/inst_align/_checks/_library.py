"""Several sections in one object: which labels there are, and whether the ones asked for are among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from inst_align._checks._words import listing

if TYPE_CHECKING:
    from anndata import AnnData


def library_labels(adata: AnnData, library_key: str) -> list[Any]:
    """Return the sections' labels in ``obs[library_key]``, those that some cell has, in their own order.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        Cells have no label, or all have the same.
    """
    if library_key not in adata.obs:
        raise KeyError(
            f"`library_key={library_key!r}`: no `obs[{library_key!r}]` in `adata`; it has "
            f"{listing(adata.obs.columns, 10)}: pass the column that says which section a cell is in."
        )
    column = adata.obs[library_key]
    missing = column.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"`library_key={library_key!r}`: {missing.sum()} of {len(missing)} cells have no label "
            f"({listing(adata.obs_names[missing])}); give them one, or leave them out."
        )
    if isinstance(column.dtype, pd.CategoricalDtype):
        labels = column.cat.remove_unused_categories().cat.categories.tolist()
    elif column.dtype == object:  # pandas would take True for 1
        labels = list({(kind_of(label), label): label for label in column}.values())
    else:
        labels = column.unique().tolist()
    if len(labels) < 2:
        raise ValueError(
            f"`library_key={library_key!r}`: all {len(column)} cells are in one section, {labels_in_words(labels)}; pass "
            f"the column that tells the sections apart, or two objects."
        )
    return labels


def find_label(labels: list[Any], label: object, argument: str, library_key: str) -> Any:
    """Return the label that was asked for, as it is stored; 1, "1" and True are three labels.

    Raises
    ------
    ValueError
        No cell has it.
    """
    for there in labels:
        if kind_of(there) == kind_of(label) and there == label:
            return there
    alike = [there for there in labels if str(there) == str(label)]
    hint = f" (a {type(label).__name__}, but the label is a {type(alike[0]).__name__})" if alike else ""
    raise ValueError(
        f"`{argument}={label!r}`: no cell has this label in `obs[{library_key!r}]`{hint}; there are "
        f"{labels_in_words(labels)}."
    )


def rows_with(adata: AnnData, library_key: str, label: object) -> np.ndarray:
    """Return a mask, shape ``(n,)``, of the cells with a label."""
    column = adata.obs[library_key]
    if column.dtype == object:
        return np.array([kind_of(there) == kind_of(label) and there == label for there in column])
    return np.asarray(column == label)


def kind_of(label: object) -> str:
    """Return what a label is, of words, truth values and numbers, so that labels of two kinds are never the same."""
    if isinstance(label, bool | np.bool_):
        return "truth value"
    return "number" if isinstance(label, int | float | np.number) else type(label).__name__


def labels_in_words(labels: list[Any], limit: int = 10) -> str:
    """Return labels as Python writes them, and how many more there are."""
    shown = ", ".join(repr(label) for label in labels[:limit])
    return shown if len(labels) <= limit else f"{shown} and {len(labels) - limit} more"
