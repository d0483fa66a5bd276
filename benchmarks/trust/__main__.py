"""Run all that says whether results can be trusted: ``python -m benchmarks.trust --data PATH [--out DIR]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from benchmarks.calibration import __main__ as calibration
from benchmarks.robustness import __main__ as robustness
from benchmarks.trust.catalogue import input_rows
from benchmarks.trust.table import markdown

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = ("inputs", "calibration", "robustness")
TABLES = ("inputs", "calibration", "calibration_cells", "robustness")


def main(arguments: list[str] | None = None) -> int:
    """Run the parts, write their tables and ``trust.md``, and return 0 if no promise is broken and no result wrong in silence."""
    parser = _parser()
    options = parser.parse_args(arguments)
    parts = [] if options.from_results else options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--parts: {', '.join(sorted(unknown))} is none of {', '.join(PARTS)}.")
    if options.data is None and {"calibration", "robustness"} & set(parts):
        parser.error("--data is needed, except with --from-results or --parts inputs.")
    options.out.mkdir(parents=True, exist_ok=True)
    broken = sum(_run(options, parts))
    tables = (options.out / f"{name}.csv" for name in TABLES)
    found = [pd.read_csv(path) if path.exists() else pd.DataFrame() for path in tables]
    (options.out / "trust.md").write_text(markdown(*found), encoding="utf-8")
    return 1 if broken else 0


def _run(options: argparse.Namespace, parts: list[str]) -> Iterator[bool]:
    """Run some parts; yields whether a promise is broken."""
    data = ["--data", str(options.data), "--out", str(options.out)]
    if "inputs" in parts:
        rows = input_rows()
        rows.to_csv(options.out / "inputs.csv", index=False)
        print(f"inputs: {rows['right'].sum()} of {len(rows)} as they should be", flush=True)
        yield not rows["right"].all()
    if "calibration" in parts:
        if not options.resume:
            for name in ("calibration", "calibration_cells"):
                (options.out / f"{name}.csv").unlink(missing_ok=True)
        yield bool(calibration.main([*data, "--cases", options.cases]))
    if "robustness" in parts:
        yield bool(robustness.main([*data, "--pairs", options.pairs]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with the sections and stored pairs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder (default: %(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated (default: all)")
    parser.add_argument("--resume", action="store_true", help="keep the rows of the calibration that are there already")
    parser.add_argument("--cases", default="*", help="patterns of kind/name, of the calibration (default: all)")
    parser.add_argument("--pairs", default=robustness.PAIRS, help="of the robustness (default: %(default)s)")
    parser.add_argument("--from-results", action="store_true", help="run nothing, only write the table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
