"""One pair at one seed through one method: a row of the table, or one for each result of the run."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import benchmarks.accuracy.peers  # noqa: F401 - adds to METHODS, in processes that are spawned, too
from benchmarks.accuracy.embedding import domain_scores
from benchmarks.accuracy.held_out import held_out_correlation, split_genes
from benchmarks.accuracy.measures import measure, symmetry
from benchmarks.accuracy.methods import METHODS, Outcome, Unavailable, run_method, warm_up
from benchmarks.accuracy.results import OK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.accuracy.pairs import Pair, Recipe

FAILURES = (ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
EMBEDDERS = ("default", "paper")
NO_FIELD = "default-nofield"


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Measures that need more than one run, or take long.

    Parameters
    ----------
    held_out
        Run real pairs once more, on half of the genes.
    symmetry
        Run every pair once more, with the sections in each other's place.
    embedding
        Cluster the embedding of the methods that have one, where there are labels.
    """

    held_out: bool = False
    symmetry: bool = False
    embedding: bool = False

    def columns(self, kind: str, method: str) -> list[str]:
        """Columns that a finished row has, besides the usual ones."""
        return [
            *(["held_out"] if self.held_out and kind == "real" else []),
            *(["symmetry_median"] if self.symmetry else []),
            *(["ari"] if self.embedding and has_embedding(method) else []),
        ]


def has_embedding(method: str) -> bool:
    """Whether a method has an embedding."""
    return method.startswith(EMBEDDERS) and method != NO_FIELD


@dataclass(frozen=True)
class Task:
    """A method to run on one pair at one seed."""

    recipe: Recipe
    seed: int
    method: str
    extras: Extras

    def run(self) -> list[dict[str, Any]]:
        """Return the method's row, and one for each further result of its run."""
        pair = self.recipe.load(self.seed)
        try:
            measured = measured_rows(pair, self.method, self.extras)
        except Unavailable as reason:
            measured = {self.method: {"status": f"missing: {reason}"}}
        except FAILURES as error:
            measured = {self.method: {"status": f"failed: {type(error).__name__}: {error}"}}
        known = {
            "kind": pair.kind,
            "pair": pair.name,
            "seed": pair.seed,
            "level": pair.level,
            "n_ref": pair.ref.n_obs,
            "n_src": pair.src.n_obs,
        }
        return [known | {"method": method} | row for method, row in measured.items()]


def measured_rows(pair: Pair, name: str, extras: Extras) -> dict[str, dict[str, Any]]:
    """Run a method as often as is asked for; return its measures and those of its further results, by name."""
    method, embed = METHODS[name], extras.embedding and has_embedding(name)
    outcome = run_method(method, pair, embed=embed)
    rows: dict[str, dict[str, Any]] = {
        each: {**measure(pair, result), "status": OK} for each, result in _results(name, outcome).items()
    }
    if outcome.embedding is not None and pair.labels_ref is not None and pair.labels_src is not None:
        rows[name] |= domain_scores(pair, outcome.embedding, seed=pair.seed)
    if extras.held_out and pair.kind == "real":
        seen, unseen = split_genes(pair.ref.var_names.to_numpy())
        for each, result in _results(name, run_method(method, pair, seen)).items():
            rows[each]["held_out"] = held_out_correlation(pair, result.xy, unseen)
    if extras.symmetry:
        swapped = replace(pair, ref=pair.src, src=pair.ref, logged=pair.logged[::-1])
        rows[name] |= symmetry(pair, outcome, run_method(method, swapped))
    return rows


def _results(name: str, outcome: Outcome) -> dict[str, Outcome]:
    also = {f"{name}-{other}": replace(outcome, xy=xy) for other, xy in outcome.also.items()}
    return {name: outcome} | also


@contextmanager
def mapper(jobs: int) -> Iterator[Callable[..., Any]]:
    """Yield a function like ``map`` that spreads its work over processes, warmed up."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    if jobs == 1:
        warm_up()
        yield map
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=warm_up) as pool:
            yield pool.map
