"""moscot 0.5: its AlignmentProblem, "warp", and "affine" besides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import scanpy as sc
from exchange import Task, log_normalise, main
from moscot.problems.space import AlignmentProblem

if TYPE_CHECKING:
    import numpy as np


def align(task: Task) -> dict[str, np.ndarray]:
    """Run with the defaults, on the principal components of both sections."""
    sections, middle = log_normalise(task), task.ref.obsm["spatial"].mean(axis=0)
    for adata in sections:  # "affine" leaves them on the origin, and rows of a plan that lack mass pull "warp" to it
        adata.obsm["spatial"] = adata.obsm["spatial"] - adata.obsm["spatial"].mean(axis=0)
    both = ad.concat(dict(zip(("ref", "src"), sections, strict=True)), label="section")
    both.obs["section"] = both.obs["section"].astype("category")
    is_src = (both.obs["section"] == "src").to_numpy()
    sc.pp.pca(both, random_state=task.seed)
    problem = AlignmentProblem(both).prepare(
        batch_key="section", policy="star", reference="ref", joint_attr={"attr": "obsm", "key": "X_pca"}
    )
    problem = problem.solve()
    for mode in ("warp", "affine"):
        problem.align(mode=mode, key_added=mode)
    return {"xy": both.obsm["warp"][is_src] + middle, "affine": both.obsm["affine"][is_src] + middle}


if __name__ == "__main__":
    main(align)
