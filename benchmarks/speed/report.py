"""The table as Markdown and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from pathlib import Path

OURS = "default", "default-nofield", "default-backed", "default-nofield-backed"
LARGE = 20_000
"""Cells from which on the exponents are fitted: below, fixed costs count."""


def write_report(rows: pd.DataFrame, out: Path) -> None:
    """Write ``speed.md`` and ``speed.png``."""
    done = rows[rows["status"] == "ok"]
    keys = ["pair", "cells", "genes", "method", "device", "threads"]
    medians = done.groupby(keys, sort=False).median(numeric_only=True).reset_index()
    text = ["# Speed and memory", "", INTRODUCTION, ""]
    text += ["## Seconds and memory", "", _table(medians), ""]
    text += ["## By stage", "", _stages(medians), ""]
    text += ["## Beside others, in the same run", "", _ratios(done), ""]
    text += ["## Exponents", "", _exponents(medians), ""]
    (out / "speed.md").write_text("\n".join(text))
    _plot(medians, out / "speed.png")


INTRODUCTION = """Medians over the repeats; from AnnData to AnnData, without imports and files, which `-backed` leaves the expression in and
reads as it goes. Memory is the peak above what the sections took, or, with sections, above what was there before them;\nenergy, where the processors tell, is that of the whole machine. `preprocessing` is scanpy's `normalize_total`, `log1p`, `highly_variable_genes` and `pca` on both sections.
Errors are true errors of made-up sections: they lie in one tissue 2000 µm long whatever the number of cells."""


def _table(medians: pd.DataFrame) -> str:
    table = medians[["pair", "cells", "genes", "method", "device", "threads", "seconds", "mebibytes"]].copy()
    table["kB per cell"] = medians["mebibytes"] * 2**20 / 1000 / (medians["cells"] + medians["cells_source"])
    for name in ("mebibytes_with_sections", "cuda_mebibytes", "joules"):
        if name in medians:
            table[name.replace("_", " ")] = medians[name]
    for name in ("error", "error_p95", "spacing"):
        if name in medians:
            table[f"{name} µm"] = medians[name]
    return table.round(2).astype(object).where(table.notna(), "").to_markdown(index=False)


def _stages(medians: pd.DataFrame) -> str:
    columns = [name for name in medians if name.startswith("stage_")]
    table = medians[medians["method"].isin(OURS)][["pair", "method", *columns]]
    table = table.rename(columns=lambda name: name.removeprefix("stage_")).dropna(axis=1, how="all").round(2)
    return table.astype(object).where(table.notna(), "").to_markdown(index=False)


def _ratios(done: pd.DataFrame) -> str:
    """Seconds of others over ours, and ours over the preprocessing, repeat by repeat."""
    wide = done.pivot_table(index=["pair", "device", "repeat"], columns="method", values="seconds")
    lines = []
    for own in (name for name in OURS if name in wide):
        for other in (name for name in wide if name not in OURS):
            ratio = (wide[own] / wide[other] if other == "preprocessing" else wide[other] / wide[own]).dropna()
            what = f"{own} / {other}" if other == "preprocessing" else f"{other} / {own}"
            lines += [
                {"pair": pair, "ratio": what, "median": part.median(), "least": part.min(), "most": part.max()}
                for (pair, _), part in ratio.groupby(level=["pair", "device"], sort=False)
            ]
    return pd.DataFrame(lines).round(2).to_markdown(index=False) if lines else "Nothing to compare with."


def _exponents(medians: pd.DataFrame) -> str:
    lines = []
    large = medians[(medians["cells"] >= LARGE) & medians["method"].isin(OURS)]
    for (genes, method, device), part in large.groupby(["genes", "method", "device"], sort=False):
        if part["cells"].nunique() > 1:
            slopes = {
                name: np.polyfit(np.log(part["cells"]), np.log(part[name].clip(lower=1e-3)), 1)[0]
                for name in ("seconds", "mebibytes")
            }
            sizes = f"{part['cells'].min()} to {part['cells'].max()}"
            lines.append({"genes": genes, "method": method, "device": device, "cells": sizes, **slopes})
    return (
        pd.DataFrame(lines).round(2).to_markdown(index=False)
        if lines
        else f"Fewer than two sizes from {LARGE} cells on."
    )


def _plot(medians: pd.DataFrame, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    toy = medians[medians["pair"].str.startswith("toy/")]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, (name, label) in zip(
        axes, (("seconds", "seconds"), ("mebibytes", "MiB above the sections")), strict=True
    ):
        for (method, genes), part in toy.groupby(["method", "genes"], sort=False):
            part = part.sort_values("cells").dropna(subset=[name])
            style = "--" if method == "preprocessing" else "-"
            axis.plot(part["cells"], part[name], style, marker="o", ms=4, label=f"{method}, {genes} genes")
        axis.set(xscale="log", yscale="log", xlabel="cells in each section", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
