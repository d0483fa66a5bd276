"""PASTE (paste-bio 1.4.0 with POT 0.9.1; later POT breaks it): pairwise alignment, then its rigid Procrustes fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paste
import scanpy as sc
from exchange import Task, main

if TYPE_CHECKING:
    import numpy as np

MIN_COUNTS = 15
"""Of a gene, as in the package's tutorial."""


def align(task: Task) -> dict[str, np.ndarray]:
    """Run with the defaults."""
    sections = [task.ref, task.src]
    for adata in sections:
        sc.pp.filter_genes(adata, min_counts=MIN_COUNTS)
    plan = paste.pairwise_align(*sections, gpu_verbose=False)
    xy_ref, xy_src = task.ref.obsm["spatial"], task.src.obsm["spatial"]
    _, _, turn, middle_ref, middle_src = paste.visualization.generalized_procrustes_analysis(
        xy_ref, xy_src, plan, output_params=True, matrix=True
    )
    xy = (xy_src - middle_src) @ turn.T + middle_ref
    return {"xy": xy, "posed": xy}


if __name__ == "__main__":
    main(align)
