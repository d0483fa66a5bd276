"""Run it all: ``python -m benchmarks.robustness [--data PATH] [--out DIR]``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from benchmarks.accuracy.pairs import recipes
from benchmarks.robustness.forms import form_rows
from benchmarks.robustness.repeats import invariance_rows, seed_rows, toy
from benchmarks.robustness.report import markdown
from benchmarks.robustness.resume import resume_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.accuracy.pairs import Pair
    from benchmarks.robustness.rows import Row

PAIRS = "truth/starmap_medium,truth/merfish_partial"


def all_rows(pairs: list[Pair], parts: list[str], *, field: bool) -> Iterator[Row]:
    """Yield the rows of some parts."""
    if "resume" in parts:
        yield from resume_rows()
    if "forms" in parts:
        yield from form_rows()
    if "invariance" in parts:
        yield from chain.from_iterable(map(invariance_rows, pairs))
    if "seeds" in parts:
        yield from chain.from_iterable(seed_rows(pair, field=field) for pair in pairs)


def main(arguments: list[str] | None = None) -> int:
    """Run, write ``robustness.csv`` and ``robustness.md``, and return 0 if all that is promised holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robustness", description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="folder with the stored pairs in truth/; without it, the toy pair only"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder (default: %(default)s)")
    parser.add_argument("--pairs", default=PAIRS, help="patterns of kind/name, comma-separated (default: %(default)s)")
    parser.add_argument("--parts", default="resume,forms,invariance,seeds", help="comma-separated (default: all)")
    parser.add_argument("--no-field", action="store_true", help="leave the field out for the seeds")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pairs = [toy()]
    if options.data is not None:
        pairs += [recipe.load(0) for recipe in recipes(options.data, options.pairs.split(","))]
    rows = []
    for row in all_rows(pairs, options.parts.split(","), field=not options.no_field):
        rows.append(row)
        print(f"{row.part} {row.pair}, {row.case}: {row.median:.2g}, {row.largest:.2g}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([asdict(row) for row in rows])
    table.to_csv(options.out / "robustness.csv", index=False, float_format="%.6g")
    (options.out / "robustness.md").write_text(markdown(rows), encoding="utf-8")
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
