"""Spateo (spateo-release 1.1.1): its pairwise morpho alignment, non-rigid, and the rigid part besides."""

from __future__ import annotations

import random
import sys
import types
from importlib.util import find_spec

import numpy as np
import torch
from exchange import Task, log_normalise, main

# Importing the package imports all of its tools and their many requirements; the alignment alone needs few.
spateo = types.ModuleType("spateo")
spateo.__path__ = list(find_spec("spateo").submodule_search_locations)
sys.modules["spateo"] = spateo

from spateo.alignment.morpho_alignment import morpho_align  # noqa: E402
from spateo.alignment.utils import group_pca  # noqa: E402


def align(task: Task) -> dict[str, np.ndarray]:
    """Run as in the package's tutorial: on joint principal components, compared by their angle."""
    random.seed(task.seed)
    np.random.seed(task.seed)  # noqa: NPY002 - what the package draws from
    torch.manual_seed(task.seed)
    sections = log_normalise(task)
    group_pca(sections, pca_key="X_pca")
    (_, moved), _ = morpho_align(
        models=sections,
        rep_layer="X_pca",
        rep_field="obsm",
        dissimilarity="cos",
        allow_flip=task.allow_reflection,
        verbose=False,
        iter_key_added=None,
        vecfld_key_added=None,
    )
    rigid = moved.obsm["align_spatial_rigid"]
    return {"xy": moved.obsm["align_spatial_nonrigid"], "rigid": rigid}


if __name__ == "__main__":
    main(align)
