"""Numbers as a reader of the screen wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "median_error": ("error", "median", "{:.2f}"),
    "p95_error": ("error", "95 %", "{:.2f}"),
    "nn_accuracy": ("same layer", "nearest", "{:.3f}"),
    "ot_accuracy": ("same layer", "transport", "{:.3f}"),
    "chamfer_over_floor": ("Chamfer", "/ floor", "{:.2f}"),
    "fold_fraction": ("folds", "share", "{:.1%}"),
}
"""Group, name and format of the columns of the demo's table."""


def table(numbers: pd.DataFrame) -> list[str]:
    """Return the demo's numbers, one row per alignment and the columns of ``COLUMNS``, as lines of text."""
    width = max(map(len, numbers.index)) + 2
    groups = [group for group, _, _ in COLUMNS.values()]
    shown = [group if i == 0 or group != groups[i - 1] else "" for i, group in enumerate(groups)]
    rows = [("", shown), ("", [name for _, name, _ in COLUMNS.values()])]
    for name, row in numbers.iterrows():
        cells = [
            "-" if row[column] != row[column] else form.format(row[column]) for column, (_, _, form) in COLUMNS.items()
        ]
        rows.append((str(name), cells))
    lines = ["  " + name.ljust(width) + "".join(cell.rjust(10) for cell in cells) for name, cells in rows]
    return [*lines[:2], "  " + "-" * (len(lines[1]) - 2), *lines[2:]]
