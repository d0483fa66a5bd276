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
    both = ad.concat(dict(zip(("ref", "src"), log_normalise(task), strict=True)), label="section")
    both.obs["section"] = both.obs["section"].astype("category")
    is_src = (both.obs["section"] == "src").to_numpy()
    sc.pp.pca(both, random_state=task.seed)
    problem = AlignmentProblem(both).prepare(
        batch_key="section", policy="star", reference="ref", joint_attr={"attr": "obsm", "key": "X_pca"}
    )
    problem = problem.solve()
    for mode in ("warp", "affine"):
        problem.align(mode=mode, key_added=mode)
    # its affine mode leaves the sections on the origin: the reference's middle is put back
    affine = both.obsm["affine"][is_src] + task.ref.obsm["spatial"].mean(axis=0)
    return {"xy": both.obsm["warp"][is_src], "affine": affine}


if __name__ == "__main__":
    main(align)
