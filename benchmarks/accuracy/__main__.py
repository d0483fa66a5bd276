"""Run methods on pairs and write one table: ``python -m benchmarks.accuracy --data PATH --out DIR``."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.accuracy.measures import held_out_correlation, measure, split_genes
from benchmarks.accuracy.methods import METHODS, Unavailable, run_method, warm_up
from benchmarks.accuracy.pairs import recipes
from benchmarks.accuracy.report import write_report
from benchmarks.accuracy.results import OK, Results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.accuracy.pairs import Pair, Recipe

FAILURES = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Task:
    """The methods to run on one pair at one seed."""

    recipe: Recipe
    seed: int
    methods: tuple[str, ...]
    held_out: bool

    def run(self) -> list[dict[str, Any]]:
        """Return one row per method."""
        pair = self.recipe.load(self.seed)
        return [self._row(pair, name) for name in self.methods]

    def _row(self, pair: Pair, name: str) -> dict[str, Any]:
        row: dict[str, Any] = {
            "kind": pair.kind,
            "pair": pair.name,
            "method": name,
            "seed": pair.seed,
            "level": pair.level,
            "n_ref": pair.ref.n_obs,
            "n_src": pair.src.n_obs,
        }
        try:
            row |= measure(pair, run_method(METHODS[name], pair))
            if self.held_out and pair.kind == "real":
                seen, unseen = split_genes(pair.ref.var_names.to_numpy())
                row["held_out"] = held_out_correlation(pair, run_method(METHODS[name], pair, seen).xy, unseen)
        except Unavailable as reason:
            return row | {"status": f"missing: {reason}"}
        except FAILURES as error:
            return row | {"status": f"failed: {type(error).__name__}: {error}"}
        return row | {"status": OK}


def main(arguments: list[str] | None = None) -> int:
    """Run what is not in the table yet, then write the report."""
    options = _parser().parse_args(arguments)
    results = Results(options.out / "accuracy.csv")
    if not options.report_only:
        chosen = recipes(options.data, options.pairs)
        if not chosen:
            sys.exit(f"No pair below {options.data} fits --pairs {','.join(options.pairs)}.")
        tasks = _tasks(chosen, results, options)
        print(f"{len(chosen)} pairs, {sum(len(task.methods) for task in tasks)} runs to do")
        with _mapper(options.jobs) as mapped:
            for done, rows in enumerate(mapped(Task.run, tasks), start=1):
                results.add(rows)
                _tell(done, len(tasks), rows)
    if not results.table.empty:
        write_report(results.table, options.out, peers=options.peers)
        print(f"wrote {options.out}/accuracy.csv, accuracy.md and accuracy.png")
    return 0


def _tasks(chosen: list[Recipe], results: Results, options: argparse.Namespace) -> list[Task]:
    tasks = []
    for seed in options.seeds:
        for recipe in chosen:
            held_out = options.held_out and recipe.kind == "real"
            todo = tuple(
                method
                for method in options.methods
                if options.redo or not results.has(recipe.kind, recipe.name, method, seed, held_out=held_out)
            )
            if todo:
                tasks.append(Task(recipe, seed, todo, options.held_out))
    return tasks


@contextmanager
def _mapper(jobs: int) -> Iterator[Callable[..., Any]]:
    if jobs == 1:
        warm_up()
        yield map
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=warm_up) as pool:
            yield pool.map


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
    parser.add_argument("--methods", type=_methods, default=["rigid", "default"], help=f"of {', '.join(METHODS)}")
    parser.add_argument("--seeds", type=_seeds, default=[0, 1, 2], help="as 0,1,2 or 0-35")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--held-out", action="store_true", help="fit real pairs once more, on half of the genes")
    parser.add_argument("--peers", type=Path, help="CSV of what other tools reached on the same pairs")
    parser.add_argument("--redo", action="store_true", help="run again what is in the table already")
    parser.add_argument("--report-only", action="store_true", help="run nothing, only write the report")
    return parser


def _list(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _methods(text: str) -> list[str]:
    names = _list(text)
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown {unknown}; available: {sorted(METHODS)}")
    return names


def _seeds(text: str) -> list[int]:
    seeds: list[int] = []
    for part in _list(text):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


if __name__ == "__main__":
    sys.exit(main())
