"""How near the estimated factor between two units comes to the true one: ``python -m benchmarks.inputs.scale --data PATH``.

``PATH`` holds pairs with known truth as for ``benchmarks.accuracy``, in ``truth/<pair>/{ref,src}.h5ad``. The truth is the
factor of the best similarity, by least squares, from the source's coordinates to its true ones: 1 where nothing was warped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import torch

from inst_align._anndata import read_pair
from inst_align._checks import extent
from inst_align.core.scale import estimate_scale

if TYPE_CHECKING:
    from anndata import AnnData

PAIRS = (
    "starmap_rigid",
    "embryo1_rigid",
    "merfish_rigid",
    "dlpfc_rigid",
    "embryo1_partial",
    "starmapi_partial",
    "merfishi_partial",
    "drosoi_partial",
)


def best_factor(src: AnnData) -> float:
    """Factor of the similarity with the least squared error from the source's places to its true ones."""
    xy, truth = (section - section.mean(axis=0) for section in (src.obsm["spatial"], src.obsm["spatial_true"]))
    return float(np.linalg.svd(xy.T @ truth)[1].sum() / (xy**2).sum())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inputs.scale", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the folder truth")
    parser.add_argument("--pairs", nargs="+", default=PAIRS, metavar="NAME", help="default: four whole, four cropped")
    options = parser.parse_args(arguments)
    print(f"{'pair':<20}{'by extents':>12}{'estimated':>12}{'true':>12}")
    for name in options.pairs:
        ref, src = (ad.read_h5ad(options.data / "truth" / name / f"{role}.h5ad") for role in ("ref", "src"))
        pair = read_pair(ref, src)
        start = extent(pair.ref) / extent(pair.src)
        generator = torch.Generator().manual_seed(0)
        found = estimate_scale(pair.ref, pair.src, start=start, generator=generator, device=torch.device("cpu"))
        print(f"{name:<20}{start:>12.3f}{found:>12.3f}{best_factor(src):>12.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
