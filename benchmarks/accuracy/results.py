"""The long table: one row per pair, method and seed, kept in a CSV that a later run adds to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEY = ["kind", "pair", "method", "seed"]
COLUMNS = [
    *KEY,
    "level",
    "status",
    "n_ref",
    "n_src",
    "median",
    "p95",
    "max",
    "median_lost",
    "pose_median",
    "pose_best",
    "pose_right",
    "pose_ambiguous",
    "bent",
    "gain_in_errors",
    "folds",
    "inverse_median",
    "inverse_p99",
    "flipped",
    "symmetry_median",
    "symmetry_p95",
    "nn_src",
    "nn_src_ceiling",
    "nn_src_gap_se",
    "nn_ref",
    "nn_ref_ceiling",
    "ot",
    "ot_ceiling",
    "chamfer",
    "chamfer_units",
    "held_out",
    "ari",
    "nmi",
    "ari_each",
    "nmi_each",
    "seconds",
]
OK = "ok"


class Results:
    """The table in memory and on disk. Rows are saved as they are added.

    Parameters
    ----------
    path
        The CSV; read if it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)
        self.table = self.table.reindex(columns=COLUMNS)

    def has(self, kind: str, pair: str, method: str, seed: int, *, filled: Sequence[str] = ()) -> bool:
        """Whether a row is there, with values in these columns; failed and missing ones are to be tried again."""
        rows = self.table
        found = rows[
            (rows["kind"] == kind) & (rows["pair"] == pair) & (rows["method"] == method) & (rows["seed"] == seed)
        ]
        return bool(((found["status"] == OK) & found[list(filled)].notna().all(axis=1)).any())

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Add rows, in place of earlier ones of the same key, and save."""
        if not rows:
            return
        new = pd.DataFrame(rows).reindex(columns=COLUMNS)
        joined = new if self.table.empty else pd.concat([self.table, new], ignore_index=True)
        self.table = joined.drop_duplicates(KEY, keep="last").sort_values(KEY, ignore_index=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_suffix(".part")
        self.table.to_csv(scratch, index=False, float_format="%.6g")
        scratch.replace(self.path)
