"""Does a map serve cells that it was not fitted to? ``python -m benchmarks.half_fit --data PATH --out DIR``.

Each pair with known truth is fitted on all cells, on a random half of the source's cells, and on random halves of both
sections. The maps are applied to the half of the source's cells that the second and the third never saw. Errors are
distances from where cells belong, in median neighbour distances of the whole reference, so that rows compare.
"""

from __future__ import annotations

import argparse
import sys
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import inst_align as ia
from benchmarks.accuracy.methods import METHODS, Options, warm_up
from benchmarks.accuracy.pairs import recipes

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from benchmarks.accuracy.pairs import Pair
    from inst_align.core.transforms import Transform

METHOD = "default-nofield"
HALVED = {"source": "a half of the source", "both": "halves of both"}
KEY = ["pair", "seed", "halved"]
ERRORS = {
    "fitted": "the half that was fitted",
    "held_out": "the other half",
    "all": "the other half, by the fit on all cells",
}
COLUMNS = [
    *KEY,
    "n_ref",
    "n_src",
    *(f"{name}_{part}" for part in ("median", "p95") for name in ERRORS),
    "folds_held_out",
]


def rows_of(pair: Pair) -> list[dict[str, Any]]:
    """Fit a pair three times; returns a row for each way to halve it."""
    assert pair.xy_true is not None
    ref, src = pair.blind()
    xy, true = src.obsm["spatial"], pair.xy_true
    unit = ia.metrics.spacing(ref.obsm["spatial"])
    rng = np.random.default_rng([pair.seed, zlib.crc32(pair.name.encode())])
    fitted, fitted_ref = (np.sort(rng.permutation(len(a))[: len(a) // 2]) for a in (src, ref))
    other = np.setdiff1d(np.arange(len(src)), fitted)

    def errors(transform: Callable[[np.ndarray], np.ndarray], cells: np.ndarray) -> np.ndarray:
        return ia.metrics.registration_error(transform(xy[cells]), true[cells], unit=unit)

    options = Options(logged=pair.logged, allow_reflection=pair.allow_reflection, seed=pair.seed)

    def fit(ref: AnnData, src: AnnData) -> Transform:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transform = METHODS[METHOD](ref.copy(), src.copy(), options).transform
        assert transform is not None
        return transform

    by_all = errors(fit(ref, src), other)
    rows = []
    for halved in HALVED:
        some_ref = ref[fitted_ref] if halved == "both" else ref
        transform = fit(some_ref, src[fitted])
        found = {"fitted": errors(transform, fitted), "held_out": errors(transform, other), "all": by_all}
        row = {"pair": pair.name, "seed": pair.seed, "halved": halved, "n_ref": len(some_ref), "n_src": len(fitted)}
        for name, error in found.items():
            row |= {f"{name}_median": np.median(error), f"{name}_p95": np.quantile(error, 0.95)}
        rows.append(row | {"folds_held_out": ia.metrics.fold_fraction(transform, xy[other])})
    return rows


def markdown(rows: pd.DataFrame) -> str:
    """Return the report: geometric means over the pairs, and every pair."""
    seeds = ", ".join(map(str, sorted(set(rows["seed"]))))
    lines = [
        "# A map fitted on half of the cells, applied to the other half",
        "",
        f"{rows['pair'].nunique()} pairs, seeds {seeds}, `align_pair(field=False)`. Errors are in median neighbour distances",
        "of the whole reference. Geometric means over pairs and seeds. What a map loses on cells that it was not fitted to",
        "is the step from the first row to the second, and from the third to the fourth; the step to the last row is what",
        "twice the cells to go by are worth.",
        "",
        "| fitted on | cells | median | 95 % | folds |",
        "|---|---|---|---|---|",
    ]
    for halved, of in rows.groupby("halved", sort=False):
        folds = f"{of['folds_held_out'].max():.2%} at most"
        lines.append(f"| {HALVED[str(halved)]} | {ERRORS['fitted']} | {_means(of, 'fitted')} | |")
        lines.append(f"| {HALVED[str(halved)]} | {ERRORS['held_out']} | {_means(of, 'held_out')} | {folds} |")
    lines.append(f"| all cells | {ERRORS['held_out']} | {_means(rows, 'all')} | |")
    for halved, of in rows.groupby("halved", sort=False):
        names = " | ".join(ERRORS.values())
        lines += ["", f"## Fitted on {HALVED[str(halved)]}", "", "Median / 95th percentile.", ""]
        lines += [f"| pair | seed | {names} |", "|---|---|" + "---|" * len(ERRORS)]
        for _, row in of.sort_values(["pair", "seed"]).iterrows():
            cells = " | ".join(f"{row[f'{name}_median']:.2f} / {row[f'{name}_p95']:.2f}" for name in ERRORS)
            lines.append(f"| {row['pair']} | {row['seed']} | {cells} |")
    return "\n".join(lines) + "\n"


def _means(rows: pd.DataFrame, name: str) -> str:
    """Return the geometric means of median and 95th percentile as two cells of a table."""
    return " | ".join(f"{np.exp(np.log(rows[f'{name}_{part}']).mean()):.3f}" for part in ("median", "p95"))


def main(arguments: list[str] | None = None) -> int:
    """Run what is not in the table yet, pair by pair, then write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.half_fit", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the stored pairs in truth/")
    parser.add_argument("--out", type=Path, required=True, help="folder for half_fit.csv and half_fit.md")
    parser.add_argument("--pairs", default="truth/*", help="patterns of kind/name, comma-separated")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    options = parser.parse_args(arguments)
    path = options.out / "half_fit.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)
    chosen = recipes(options.data, options.pairs.split(","))
    if not chosen:
        sys.exit(f"No pair below {options.data} fits --pairs {options.pairs}.")
    options.out.mkdir(parents=True, exist_ok=True)
    warm_up()
    for seed in map(int, options.seeds.split(",")):
        for recipe in chosen:
            if ((table["pair"] == recipe.name) & (table["seed"] == seed)).any():
                continue
            new = pd.DataFrame(rows_of(recipe.load(seed)))[COLUMNS]
            table = new if table.empty else pd.concat([table, new], ignore_index=True)
            table.to_csv(path, index=False, float_format="%.6g")
            told = ", ".join(f"{row.held_out_median:.2f} ({row.all_median:.2f})" for row in new.itertuples())
            print(f"{recipe.name} seed {seed}: {told}", flush=True)
    (options.out / "half_fit.md").write_text(markdown(table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
