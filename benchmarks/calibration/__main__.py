"""Is what the package says of its results true? ``python -m benchmarks.calibration --data PATH --out DIR``."""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmarks.accuracy.methods import warm_up
from benchmarks.calibration.cases import cases
from benchmarks.calibration.cells import binned
from benchmarks.calibration.figure import plot
from benchmarks.calibration.report import at_the_right_place, markdown
from benchmarks.calibration.runs import row_of

if TYPE_CHECKING:
    from benchmarks.calibration.cases import Maker

KEY = ["kind", "name"]


def main(arguments: list[str] | None = None) -> int:
    """Run what is not in the table yet, then write the report."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    tables = {name: options.out / f"{name}.csv" for name in ("calibration", "calibration_cells")}
    pairs, cells = (pd.read_csv(path) if path.exists() else pd.DataFrame() for path in tables.values())
    chosen = [] if options.report_only else [
        case for case in cases(options.data) if any(fnmatch(f"{case[0]}/{case[1]}", each) for each in options.cases)
    ]  # fmt: skip
    if not (chosen or options.report_only):
        sys.exit(f"No case below {options.data} fits --cases {','.join(options.cases)}.")
    warm_up()
    for maker in chosen:
        if not pairs.empty and ((pairs["kind"] == maker[0]) & (pairs["name"] == maker[1])).any():
            continue
        row, parts = _run(maker)
        if row is None:
            continue
        pairs = pd.concat([pairs, pd.DataFrame([row])], ignore_index=True)
        cells = pd.concat([cells, pd.DataFrame(parts)], ignore_index=True)
        pairs.to_csv(tables["calibration"], index=False, float_format="%.5g")
        cells.to_csv(tables["calibration_cells"], index=False, float_format="%.5g")
        print(f"{row['kind']}/{row['name']}: {row['verdict']} ({row['seconds']:.1f} s)", flush=True)
    (options.out / "calibration.md").write_text(markdown(pairs, cells), encoding="utf-8")
    plot(at_the_right_place(cells, pairs), options.out / "calibration.png")
    return 0


def _run(maker: Maker) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    case = maker[2]()
    if case is None:
        return None, []
    row, outcome = row_of(case)
    return row, [{key: row[key] for key in (*KEY, "tuned_on")} | part for part in binned(case, outcome)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sections and stored pairs")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables and the report")
    parser.add_argument("--cases", type=lambda text: text.split(","), default=["*"], help="patterns of kind/name")
    parser.add_argument("--report-only", action="store_true", help="run nothing, only write the report")
    return parser


if __name__ == "__main__":
    sys.exit(main())
