"""Measure, in turns, and write one table: ``python -m benchmarks.speed --out DIR [--data PATH]``."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import inst_align as ia
from benchmarks.accuracy.methods import METHODS as ADAPTERS
from benchmarks.accuracy.methods import Options, Unavailable
from benchmarks.accuracy.pairs import recipes
from benchmarks.accuracy.peers import ENVIRONMENTS, PEERS
from benchmarks.speed.child import BACKED, METHODS
from benchmarks.speed.report import write_report

if TYPE_CHECKING:
    from anndata import AnnData

DENSITY_DEPTH = {500: 200.0, 2000: 600.0}
"""Counts of a median cell that make about a fifth of so many genes' values other than zero."""


def main(arguments: list[str] | None = None) -> int:
    """Run everything ``--repeats`` times, one after the other, so that a busy minute meets all methods alike."""
    options = _parser().parse_args(arguments)
    if options.peer_envs is not None:
        os.environ[ENVIRONMENTS] = str(options.peer_envs.resolve())
    options.out.mkdir(parents=True, exist_ok=True)
    table = options.out / "speed.csv"
    rows = [] if options.redo or not table.exists() else pd.read_csv(table).to_dict("records")
    if not options.report_only:
        with tempfile.TemporaryDirectory() as folder:
            for pair in _pairs(options, Path(folder)):
                for repeat in range(options.repeats):
                    for method in options.methods:
                        rows = _with(rows, dict(pair) | _measure(pair, method, options) | {"repeat": repeat})
                        pd.DataFrame(rows).drop(columns=["ref", "src", "logged"], errors="ignore").to_csv(
                            table, index=False
                        )
    write_report(pd.read_csv(table), options.out)
    print(f"wrote {options.out}/speed.csv, speed.md and speed.png")
    return 0


def _with(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return rows with a new one in place of what was measured of the same before."""
    names = ("pair", "method", "device", "threads", "repeat")
    key = [str(row[name]) for name in names]
    said = f"{row['seconds']:.2f} s" if pd.notna(row["seconds"]) else row["status"]
    print(f"{row['pair']:24} {row['method']:16} {said}", flush=True)
    return [other for other in rows if [str(other[name]) for name in names] != key] + [row]


def _pairs(options: argparse.Namespace, folder: Path) -> Any:
    """Yield what is known of each pair, and the files that it was put into."""
    if options.data is not None:
        for recipe in recipes(options.data, options.pairs):
            pair = recipe.load(0)
            yield _stored(folder, f"{pair.kind}/{pair.name}", *pair.blind(), logged=pair.logged)
    for n_genes in options.genes:
        for n_cells in options.cells:
            start = time.perf_counter()
            depth = DENSITY_DEPTH.get(n_genes, 0.3 * n_genes)
            ref, src = ia.datasets.toy_pair(n_cells=n_cells, n_genes=n_genes, depth=depth, rng=0)
            yield _stored(folder, f"toy/{n_cells}x{n_genes}", ref, src) | {"made": time.perf_counter() - start}


def _stored(
    folder: Path, name: str, ref: AnnData, src: AnnData, logged: tuple[bool, bool] = (False, False)
) -> dict[str, Any]:
    paths = {role: folder / f"{role}.h5ad" for role in ("ref", "src")}
    for role, section in (("ref", ref), ("src", src)):
        section.write_h5ad(paths[role])
    known = {"pair": name, "cells": ref.n_obs, "cells_source": src.n_obs, "genes": ref.n_vars, "logged": logged}
    return known | paths


def _measure(pair: dict[str, Any], method: str, options: argparse.Namespace) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "device": options.device, "threads": options.threads, "seconds": None}
    if method in METHODS:
        return row | _in_a_child(pair, method, options)
    if pair["cells"] > options.most_for_peers:
        return row | {"status": "left out: too many cells"}
    import anndata as ad

    os.environ |= _threads(options.threads)
    told = Options(logged=pair["logged"], allow_reflection=False, seed=0)
    try:
        found = ADAPTERS[method](ad.read_h5ad(pair["ref"]), ad.read_h5ad(pair["src"]), told)
    except (Unavailable, RuntimeError) as error:
        return row | {"status": str(error)}
    return row | {"seconds": found.seconds, "status": "ok"}


def _in_a_child(pair: dict[str, Any], method: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.speed.child", str(pair["ref"]), str(pair["src"]), method]
    environment = os.environ | _threads(options.threads)
    done = subprocess.run([*command, options.device, "0"], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return {"status": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]}
    found = json.loads(done.stdout.splitlines()[-1])
    stages = {f"stage_{name}": seconds for name, seconds in found.pop("stages").items()}
    return {"status": "ok", **found, **stages}


def _threads(number: int) -> dict[str, str]:
    return {f"{name}_NUM_THREADS": str(number) for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


def _parser() -> argparse.ArgumentParser:
    def numbers(text: str) -> list[int]:
        return [int(float(part)) for part in text.split(",") if part]

    def words(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="benchmarks.speed", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for speed.csv, speed.md and speed.png")
    parser.add_argument("--cells", type=numbers, default=[1000, 5000, 20_000], help="of the made-up sections")
    parser.add_argument("--genes", type=numbers, default=[500, 2000])
    parser.add_argument("--data", type=Path, help="folder with stored pairs, as for the accuracy")
    parser.add_argument("--pairs", type=words, default=["truth/dlpfc_medium"], help="of those in --data")
    known, usual = [*METHODS, *PEERS], [name for name in METHODS if not name.endswith(BACKED)]
    parser.add_argument("--methods", type=words, default=usual, help=f"of {', '.join(known)}")
    parser.add_argument("--most-for-peers", type=int, default=5000, help="cells beyond which other tools are left out")
    parser.add_argument("--peer-envs", type=Path, help="folder with the environments of other tools")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--redo", action="store_true", help="forget what is in the table")
    parser.add_argument("--report-only", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
