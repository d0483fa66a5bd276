"""Run methods on pairs and write one table: ``python -m benchmarks.accuracy --data PATH --out DIR``."""

from __future__ import annotations

import argparse
import os
import sys
from fnmatch import filter as matching
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.accuracy import starts
from benchmarks.accuracy.methods import METHODS
from benchmarks.accuracy.pairs import recipes
from benchmarks.accuracy.peers import ENVIRONMENTS
from benchmarks.accuracy.report import write_report
from benchmarks.accuracy.results import OK, Results
from benchmarks.accuracy.runs import Extras, Task, mapper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.accuracy.pairs import Recipe


def main(arguments: list[str] | None = None) -> int:
    """Run what is not in the table yet, then write the report."""
    options = _parser().parse_args(arguments)
    if options.peer_envs is not None:
        os.environ[ENVIRONMENTS] = str(options.peer_envs.resolve())
    chosen = [] if options.report_only else recipes(options.data, options.pairs)
    if not (chosen or options.report_only):
        sys.exit(f"No pair below {options.data} fits --pairs {','.join(options.pairs)}.")
    if options.pose_starts:
        starts.run(chosen, options.pose_starts, options.out, jobs=options.jobs, redo=options.redo)
        return 0
    results = Results(options.out / "accuracy.csv")
    extras = Extras(held_out=options.held_out, symmetry=options.symmetry, embedding=options.embedding)
    fill(results, chosen, options.methods, options.seeds, extras, jobs=options.jobs, redo=options.redo)
    if not results.table.empty:
        write_report(results.table, options.out, peers=options.peers, baseline=options.baseline)
        print(f"wrote {options.out}/accuracy.csv, accuracy.md and accuracy.png")
    return 0


def fill(
    results: Results,
    chosen: Sequence[Recipe],
    methods: Sequence[str],
    seeds: Sequence[int],
    extras: Extras,
    *,
    jobs: int = 1,
    redo: bool = False,
) -> None:
    """Run what a table lacks, and save each row as it comes."""
    tasks = [
        Task(recipe, seed, method, extras)
        for seed in seeds
        for recipe in chosen
        for method in methods
        if redo or not results.has(recipe.kind, recipe.name, method, seed, filled=extras.columns(recipe.kind, method))
    ]
    if not tasks:
        return
    print(f"{len(chosen)} pairs, {len(tasks)} runs to do")
    with mapper(jobs) as mapped:
        for done, rows in enumerate(mapped(Task.run, tasks), start=1):
            results.add(rows)
            _tell(done, len(tasks), rows)


def _tell(done: int, total: int, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        found = (
            f"{row['median']:.2f}/{row['p95']:.2f}"
            if "median" in row
            else f"nn {row['nn_src']:.3f}"
            if "nn_src" in row
            else ""
        )
        told = f"{found}  {row['seconds']:.1f} s" if row["status"] == OK else row["status"]
        print(f"[{done}/{total}] {row['kind']}/{row['pair']} seed {row['seed']} {row['method']}: {told}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sections and stored pairs")
    parser.add_argument("--out", type=Path, required=True, help="folder for the table, the report and the plot")
    parser.add_argument("--pairs", type=_list, default=["truth/*", "real/*", "stay/*"], help="patterns of kind/name")
    methods = f"names or patterns, of {', '.join(METHODS)}"
    parser.add_argument("--methods", type=names_of_methods, default=["rigid", "default"], help=methods)
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2], help="as 0,1,2 or 0-35")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--held-out", action="store_true", help="fit real pairs once more, on half of the genes")
    parser.add_argument("--symmetry", action="store_true", help="fit once more, the other way round, and compare")
    parser.add_argument("--embedding", action="store_true", help="cluster the embedding and compare with the labels")
    parser.add_argument("--pose-starts", type=int, metavar="N", help="run the pose alone, from N random starts a pair")
    parser.add_argument("--peers", type=Path, help="CSV of what other tools reached on the same pairs")
    parser.add_argument("--peer-envs", type=Path, help=f"folder with the environments of peers (or ${ENVIRONMENTS})")
    parser.add_argument("--baseline", default="default", help="method that the others are compared with, pair by pair")
    parser.add_argument("--redo", action="store_true", help="run again what is in the table already")
    parser.add_argument("--report-only", action="store_true", help="run nothing, only write the report")
    return parser


def _list(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def names_of_methods(text: str) -> list[str]:
    """Return the methods that names and patterns, separated by commas, stand for."""
    names: list[str] = []
    for pattern in _list(text):
        found = matching(METHODS, pattern)
        if not found:
            raise argparse.ArgumentTypeError(f"unknown {pattern!r}; available: {sorted(METHODS)}")
        names += [name for name in found if name not in names]
    return names


def numbers(text: str) -> list[int]:
    """Return the numbers that a text like 0,1,2 or 0-35 stands for."""
    seeds: list[int] = []
    for part in _list(text):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


if __name__ == "__main__":
    sys.exit(main())
