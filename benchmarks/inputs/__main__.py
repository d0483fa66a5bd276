"""Run the catalogue of odd and bad input: ``python -m benchmarks.inputs [--write docs/inputs.md]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.inputs.catalogue import CASES, is_right, outcome, page_with, summary, table


def main(arguments: list[str] | None = None) -> int:
    """Run all cases, tell of each, and return 0 if all do what they have to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inputs", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page, between its marks")
    parser.add_argument("--rows", type=int, nargs="+", metavar="N", help="run only these, and write nothing")
    options = parser.parse_args(arguments)
    chosen = [case for case in CASES if options.rows is None or case.row in options.rows]
    for case in chosen:
        found = outcome(case)
        as_it_should = "" if is_right(case) else f", and not {case.expect}"
        print(f"{case.row:>3}  {case.given}: {found.kind}{as_it_should}\n       {found.message}", flush=True)
    if options.rows is None:
        print(summary())
        if options.write is not None:
            options.write.write_text(page_with(options.write.read_text(), table()))
    return 0 if all(map(is_right, chosen)) else 1


if __name__ == "__main__":
    sys.exit(main())
