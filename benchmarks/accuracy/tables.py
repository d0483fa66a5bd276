"""Numbers as text, and tables as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable


def markdown(table: pd.DataFrame) -> str:
    """Return a table as Markdown; NaN is left blank."""
    header = [str(column) for column in table.columns]
    body = [["" if pd.isna(value) else str(value).replace("|", "/") for value in row] for row in table.to_numpy()]
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean_and_spread(values: pd.Series, form: str = "{:.2f}") -> str:
    """Return the mean, with the standard deviation where there are several values."""
    known = values.dropna()
    if known.empty:
        return ""
    text = form.format(known.mean())
    return text if len(known) == 1 else f"{text} ± {form.format(known.std())}"


def summarised(values: pd.Series, form: str, summary: Callable[[pd.Series], float]) -> str:
    """Return a summary of the values that are there; blank if there are none."""
    known = values.dropna()
    return form.format(summary(known)) if len(known) else ""


def geometric_mean(values: pd.Series) -> float:
    """Return the geometric mean; NaN of nothing."""
    return float(np.exp(np.log(values).mean()))
