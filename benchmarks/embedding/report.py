"""From the long table to Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from benchmarks.accuracy.tables import markdown, mean_and_spread
from benchmarks.embedding.representations import NULLS, REPRESENTATIONS

if TYPE_CHECKING:
    from pathlib import Path

MEASURES = {
    "ari": "ARI of Gaussian mixtures, after the vote",
    "nmi": "NMI of Gaussian mixtures, after the vote",
    "ari_plain": "ARI of Gaussian mixtures, before the vote",
    "leiden_ari": "ARI of Leiden's communities, after the vote",
    "leiden_nmi": "NMI of Leiden's communities, after the vote",
    "ilisi": "iLISI: mixing of the sections",
    "clisi": "cLISI: purity of the labels around a cell",
    "silhouette": "Silhouette of the labels",
}
BEST_NULL = "best null"


def write_report(table: pd.DataFrame, out: Path) -> None:
    """Write ``embedding.md``: for each measure a row per embedding and a column per pair, mean ± sd over the seeds."""
    seeds = table.groupby("pair")["seed"].nunique()
    parts = ["# Embedding", "", "What each number means stands in `benchmarks/README.md`. Seeds:", ""]
    parts[2] += " " + ", ".join(f"{pair} {number}" for pair, number in seeds.items()) + "."
    for column, title in MEASURES.items():
        if column in table and table[column].notna().any():
            parts += [f"## {title}", "", markdown(_by_pair(table, column)), ""]
    (out / "embedding.md").write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def _by_pair(table: pd.DataFrame, column: str) -> pd.DataFrame:
    known = table[table[column].notna()]
    names = [name for name in REPRESENTATIONS if name in set(known["embedding"])]
    lines = []
    for name in names:
        rows = known[known["embedding"] == name]
        means = rows.groupby("pair")[column].mean()
        cells = {pair: mean_and_spread(rows.loc[rows["pair"] == pair, column], "{:.3f}") for pair in means.index}
        lines.append({"embedding": name, **cells, "mean": f"{means.mean():.3f}" if len(means) else ""})
    means = known[known["embedding"].isin(NULLS)].groupby(["pair", "embedding"])[column].mean().unstack()
    best = {pair: f"{value:.3f}" for pair, value in means.max(axis=1).items()}
    lines.append({"embedding": BEST_NULL, **best})
    return pd.DataFrame(lines)
