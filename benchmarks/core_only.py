"""Time and accuracy of the numerical core alone: needs numpy, scipy and torch, no AnnData and no scanpy.

    PYTHONPATH=src python benchmarks/core_only.py --cells 2000 20000 --device cuda

Sections are made up here: a smooth expression field with Poisson counts, sampled twice, the source rotated, shifted and
warped. One line of JSON per size: seconds by stage, peak memory, and the true error in median neighbour distances.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

import numpy as np
import torch
from scipy import sparse

from inst_align.core.fit import fit_pair
from inst_align.core.prepared import PairConfig
from inst_align.core.section import Section


def made_up_pair(n_cells: int, n_genes: int, rng: np.random.Generator) -> tuple[Section, Section, np.ndarray]:
    """Reference, source, and where the source's cells belong, shape (n_cells, 2)."""
    centres = rng.uniform(-1.2, 1.2, (n_genes, 2))
    widths = rng.uniform(0.2, 0.8, n_genes)
    level = rng.gamma(0.5, 2.0, n_genes)

    def sample(factor: np.ndarray) -> tuple[np.ndarray, sparse.csr_matrix]:
        xy = rng.uniform(-1, 1, (n_cells, 2)) * [1.0, 0.8]
        xy += 0.15 * np.column_stack([np.sin(2 * xy[:, 1]), xy[:, 0] ** 2])
        blocks = []
        for part in np.array_split(xy, max(1, n_cells // 8192)):
            distance = ((part[:, None] - centres) ** 2).sum(axis=2)
            rate = level * factor * (0.1 + np.exp(-distance / widths**2))
            counts = rng.poisson(rate * 300 / rate.sum(axis=1, keepdims=True))
            logged = np.log1p(counts * 300 / counts.sum(axis=1, keepdims=True).clip(1))
            blocks.append(sparse.csr_matrix(logged.astype(np.float32)))
        return xy, sparse.vstack(blocks).tocsr()

    xy_ref, expression_ref = sample(np.ones(n_genes))
    xy_true, expression_src = sample(rng.lognormal(0, 0.4, n_genes))
    warped = xy_true + 0.12 * np.column_stack([np.sin(2.5 * xy_true[:, 1] + 1), np.cos(2 * xy_true[:, 0])])
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    ref = Section(xy=1000 * xy_ref, expression=expression_ref, name="reference")
    src = Section(xy=1000 * warped @ turn.T + rng.uniform(-2000, 2000, 2), expression=expression_src, name="source")
    return ref, src, 1000 * xy_true


def run(n_cells: int, n_genes: int, device: torch.device, *, field: bool, seed: int) -> dict[str, object]:
    """Fit one pair and return its figures."""
    ref, src, truth = made_up_pair(n_cells, n_genes, np.random.default_rng(seed))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    config = PairConfig() if field else dataclasses.replace(PairConfig(), field=None)
    start = time.perf_counter()
    result = fit_pair(ref, src, config=config, generator=torch.Generator().manual_seed(seed), device=device)
    seconds = time.perf_counter() - start
    error = np.linalg.norm(result.transform(src.xy) - truth, axis=1) / ref.spacing
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return {
        "cells": n_cells,
        "genes": n_genes,
        "device": str(device),
        "field": field,
        "seconds": round(seconds, 2),
        "stages": {stage: round(value, 2) for stage, value in result.seconds.items()},
        "cuda_gib": memory,
        "error_median": round(float(np.median(error)), 3),
        "error_p95": round(float(np.percentile(error, 95)), 3),
        "fold_fraction": result.report["fold_fraction"],
    }


def main() -> None:
    """Read the command line, print one line of JSON per size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--genes", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-field", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for n_cells in options.cells:
        device = torch.device(options.device)
        print(json.dumps(run(n_cells, options.genes, device, field=not options.no_field, seed=options.seed)))


if __name__ == "__main__":
    main()
