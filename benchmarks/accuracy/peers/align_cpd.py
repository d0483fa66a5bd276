"""CPD (pycpd 2.0): deformable coherent point drift, on coordinates alone. It has no global search of its own."""

from __future__ import annotations

import numpy as np
from exchange import Task, main
from pycpd import DeformableRegistration


def align(task: Task) -> dict[str, np.ndarray]:
    """Run with the defaults, in a frame of unit size."""
    fixed, posed = task.ref.obsm["spatial"], task.src.obsm["spatial"]
    middle = fixed.mean(axis=0)
    scale = np.sqrt(((fixed - middle) ** 2).mean())
    moved, _ = DeformableRegistration(X=(fixed - middle) / scale, Y=(posed - middle) / scale).register()
    return {"xy": moved * scale + middle, "posed": posed}


if __name__ == "__main__":
    main(align)
