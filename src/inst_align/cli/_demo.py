"""``inst-align demo``: the whole flow on a pair whose true alignment is known, because it is made up."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from inst_align import __version__
from inst_align._keys import SPATIAL, SPATIAL_ALIGNED, SPATIAL_RIGID, SPATIAL_TRUE
from inst_align._replace import replacing
from inst_align.cli import _figures, _files
from inst_align.cli._words import table

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

ALIGNMENTS = {"before": SPATIAL, "rigid": SPATIAL_RIGID, "non-rigid": SPATIAL_ALIGNED, "true places": SPATIAL_TRUE}
"""Rows of the table, and where in obsm of the source the coordinates are."""

FILES = {
    "alignment_by_section.png": "both sections, before and after",
    "alignment_by_layer.png": "the same, coloured by the layer of the tissue",
    "deformation.png": "how the map bends the source",
    "convergence.png": "how the losses went down, scale by scale",
    "embedding.png": "the embedding that both sections share, next to the layers",
    "metrics.csv": "the table above",
    "reference.h5ad": "the reference with its new keys",
    "source.h5ad": "the source with its new keys, the map and the report",
}

INTRODUCTION = """\
inst-align {version}: aligning two made-up sections of one made-up tissue

Each section has {n_cells} cells and {n_genes} genes; the source was bent, turned and
shifted. Because the pair is made up, the true place of every source cell is
known. The alignment is told neither the places nor the layers of the tissue.
"""

EXPLANATION = """
  error        distance from the true place, in neighbour distances of the
               reference (of which the median is {spacing:.1f})
  same layer   share of source cells that meet a reference cell of their layer,
               by nearest neighbours and by optimal transport
  Chamfer      distance between the two sets of cells; 1.00 floors is to be
               expected when two random samples of one tissue lie just right
  true places  what an alignment without error gets: more cells in the same
               layer than there, or less Chamfer distance, is no gain
"""


def demo(options: Namespace) -> None:
    """Run the command.

    Raises
    ------
    OSError, ValueError
        The folder cannot be written to, or no section can be made with that many cells.
    """
    import inst_align as ia

    start = time.perf_counter()
    say = (lambda text: None) if options.quiet else (lambda text: print(text, flush=True))
    ref, src = ia.datasets.toy_pair(n_cells=options.cells, rng=options.rng)
    if options.out.exists() and not options.out.is_dir():
        raise NotADirectoryError(f"`out`: {str(options.out)!r} is a file; give the name of a folder.")
    options.out.mkdir(parents=True, exist_ok=True)
    say(INTRODUCTION.format(version=__version__, n_cells=ref.n_obs, n_genes=ref.n_vars))
    _run(ref, src, options)
    numbers = measure(ref, src)
    say("\n".join(table(numbers)))
    say(EXPLANATION.format(spacing=ia.metrics.spacing(ref.obsm[SPATIAL])))
    written = _write(ref, src, numbers, options.out)
    say(f"Written to {options.out} ({time.perf_counter() - start:.0f} s in all):")
    say("\n".join(f"  {name:<26}{FILES[name]}" for name in written))


def _run(ref: AnnData, src: AnnData, options: Namespace) -> None:
    import inst_align as ia

    show = sys.stderr.isatty() and not options.quiet
    ia.pp.rigid_align(ref, src, rng=options.rng, device=options.device)
    ia.tl.align_pair(ref, src, field=not options.no_field, rng=options.rng, device=options.device, progress=show)
    ia.tl.canonical_embed(ref, src, rng=options.rng, device=options.device, progress=show)


def measure(ref: AnnData, src: AnnData) -> pd.DataFrame:
    """Return how good each of ``ALIGNMENTS`` is: one row each, errors in neighbour distances of the reference."""
    import pandas as pd

    import inst_align as ia

    xy_ref = ref.obsm[SPATIAL]
    rows = {}
    for name, key in ALIGNMENTS.items():
        xy = src.obsm[key]
        labels = xy_ref, xy, ref.obs["layer"], src.obs["layer"]
        error = ia.metrics.registration_error(xy, src.obsm[SPATIAL_TRUE], unit=ia.metrics.spacing(xy_ref))
        rows[name] = {
            "median_error": np.median(error),
            "p95_error": np.percentile(error, 95),
            "nn_accuracy": ia.metrics.nn_accuracy(*labels, direction="src_to_ref"),
            "ot_accuracy": ia.metrics.ot_accuracy(*labels, rng=0),
            "chamfer_over_floor": ia.metrics.chamfer_distance(xy_ref, xy) / ia.metrics.chamfer_floor(xy_ref, xy),
            "fold_fraction": _folds(src, key),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("alignment")


def _folds(src: AnnData, key: str) -> float:
    """Return the share of cells at which the map folds, NaN where there is no map."""
    import inst_align as ia

    if key not in (SPATIAL_RIGID, SPATIAL_ALIGNED):
        return float("nan")
    return ia.metrics.fold_fraction(ia.get.transform(src, key), src.obsm[SPATIAL])


def _write(ref: AnnData, src: AnnData, numbers: pd.DataFrame, folder: Path) -> list[str]:
    """Write all files, each whole or not at all, and return their names."""
    import inst_align as ia

    _figures.draw_without_screen()
    writers: dict[str, Callable[[Path], object]] = {
        "alignment_by_section.png": lambda path: _figures.save(ia.pl.alignment(ref, src), path),
        "alignment_by_layer.png": lambda path: _figures.save(ia.pl.alignment(ref, src, color="layer"), path),
        "deformation.png": lambda path: _figures.save(ia.pl.deformation(src), path),
        "convergence.png": lambda path: _figures.save(ia.pl.convergence(src), path),
        "embedding.png": lambda path: _figures.save(_figures.embedding(ref, src, color="layer"), path),
        "metrics.csv": lambda path: numbers.to_csv(path, float_format="%.4f"),
        "reference.h5ad": lambda path: _files.write_section(ref, path),
        "source.h5ad": lambda path: _files.write_section(src, path),
    }
    for name, write in writers.items():
        with replacing(folder / name) as path:
            write(path)
    return list(writers)
