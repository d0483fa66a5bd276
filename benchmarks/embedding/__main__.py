"""Compare embeddings of labelled pairs: ``python -m benchmarks.embedding --data PATH --out DIR``."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.accuracy.__main__ import numbers
from benchmarks.accuracy.pairs import Pair, Real, real_pairs
from benchmarks.embedding.report import write_report
from benchmarks.embedding.representations import REPRESENTATIONS, WITH_FIELD, Aligned
from benchmarks.embedding.scores import leiden_scores, mixture_scores, scib_scores

KEY = ["pair", "seed", "embedding"]


def main(arguments: list[str] | None = None) -> int:
    """Run what is not in the table yet, then write the report."""
    options = _parser().parse_args(arguments)
    path = options.out / "embedding.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=KEY)
    pairs = [pair for pair in _labelled(options.data) if any(fnmatch(pair.name, p) for p in options.pairs)]
    pairs = [pair for pair in pairs if pair.ref.exists() and pair.src.exists()]
    if not (pairs or options.report_only):
        sys.exit(f"No labelled pair below {options.data} fits --pairs {','.join(options.pairs)}.")
    for seed in [] if options.report_only else options.seeds:
        for recipe in pairs:
            done = set(table.loc[(table["pair"] == recipe.name) & (table["seed"] == seed), "embedding"])
            missing = [name for name in options.embeddings if name not in done]
            if not missing:
                continue
            rows = _run(recipe.load(seed), missing, options, extras=seed == min(options.seeds))
            table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True).sort_values(KEY, ignore_index=True)
            options.out.mkdir(parents=True, exist_ok=True)
            table.to_csv(path, index=False, float_format="%.5g")
    write_report(table, options.out)
    print(f"wrote {path} and embedding.md")
    return 0


def _labelled(data: Path) -> list[Real]:
    """Real pairs, with labels that were not made from the expression."""
    dlpfc = data / "dlpfc"
    further = Real("dlpfc_74_75", dlpfc / "151674.h5ad", dlpfc / "151675.h5ad")
    return [replace(pair, label_key="label") for pair in (*real_pairs(data), further)]


def _run(pair: Pair, names: list[str], options: argparse.Namespace, *, extras: bool) -> list[dict[str, Any]]:
    aligned = Aligned.of(pair, field=not WITH_FIELD.keys().isdisjoint(names))
    rows = []
    for name in names:
        start = time.perf_counter()
        values = REPRESENTATIONS[name](aligned)
        row: dict[str, Any] = {
            "pair": pair.name,
            "seed": pair.seed,
            "embedding": name,
            "columns": values.shape[1],
            "seconds": time.perf_counter() - start,
        }
        row |= mixture_scores(pair, values, seed=pair.seed, n_starts=options.starts)
        if extras and options.scib:
            row |= scib_scores(pair, values)
        if extras and options.leiden:
            row |= leiden_scores(pair, values, seed=pair.seed)
        rows.append(row)
        print(f"{pair.name} seed {pair.seed} {name}: ari {row['ari']:.3f}, nmi {row['nmi']:.3f}", flush=True)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embedding", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sections")
    parser.add_argument("--out", type=Path, required=True, help="folder for the table and the report")
    parser.add_argument("--pairs", type=lambda text: text.split(","), default=["*"], help="patterns of names")
    parser.add_argument("--embeddings", type=_names, default=list(REPRESENTATIONS), help="patterns of names, by ;")
    parser.add_argument("--seeds", type=numbers, default=list(range(10)), help="as 0,1,2 or 0-9")
    parser.add_argument("--starts", type=int, default=10, help="of each mixture, of which the likeliest counts")
    parser.add_argument(
        "--scib", action="store_true", help="also mixing and separation, by scib-metrics, for the first seed"
    )
    parser.add_argument("--leiden", action="store_true", help="also cluster by Leiden, for the first seed")
    parser.add_argument("--report-only", action="store_true", help="run nothing, only write the report")
    return parser


def _names(text: str) -> list[str]:
    patterns = text.split(";")
    names = [name for name in REPRESENTATIONS if any(fnmatch(name, pattern) for pattern in patterns)]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} fits none of: {'; '.join(REPRESENTATIONS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
