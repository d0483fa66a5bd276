"""One measurement in a process of its own: ``python -m benchmarks.speed.child REF SRC METHOD DEVICE SEED``, JSON to stdout.

What is measured begins with two AnnData and ends with two AnnData; imports are not part of it. They are in memory, read
before anything is measured, or for a method whose name ends with ``-backed`` their expression is left in the file. A small
pair is aligned first, so that nothing is loaded within the measurement.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

MEBIBYTE = 2**20
BACKED = "-backed"
COUNTERS = Path("/sys/class/powercap")
"""Where Linux counts the energy that the processors take, if they tell and it may be read."""


class Memory:
    """Peak of the resident memory, in MiB, above what it was at the start and above what was there before the sections."""

    def __init__(self, without_sections: float) -> None:
        self._without_sections = without_sections
        try:
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak of reading the files
        except OSError:
            print(
                "the peak of the memory cannot be reset here, so that what the files took to read counts",
                file=sys.stderr,
            )
        self._before = _status("VmRSS")

    def peaks(self) -> dict[str, float]:
        peak = _status("VmHWM")
        return {
            "mebibytes": (peak - self._before) / MEBIBYTE,
            "mebibytes_with_sections": (peak - self._without_sections) / MEBIBYTE,
        }


def _status(name: str) -> float:
    """Return a size in bytes that Linux tells of this process; the peak where there is no such thing."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def joules() -> float | None:
    """Return what all processors of the machine have taken since some time, or None where nobody tells."""
    try:
        counts = [int(path.read_text()) for path in COUNTERS.glob("intel-rapl:?/energy_uj")]
    except OSError:
        return None
    return sum(counts) / 1e6 if counts else None


def ours(ref: AnnData, src: AnnData, device: str, seed: int, *, field: bool) -> dict[str, float]:
    """Align a pair as :func:`inst_align.tl.align_pair` does; returns seconds by stage."""
    from inst_align._calls import finish
    from inst_align.tl._align_pair import fit_sections

    start = time.perf_counter()
    pair, result, params = fit_sections(ref, src, field=field, rng=seed, device=device, progress=False)
    fitted = time.perf_counter()
    finish(ref, src, pair, result, key_added="spatial_aligned", spatial_key="spatial", copy=False, rng=seed, **params)
    stages = dict(result.seconds)
    return {"read": fitted - start - sum(stages.values()), **stages, "write": time.perf_counter() - fitted}


def preprocessing(ref: AnnData, src: AnnData, _device: str, _seed: int) -> dict[str, float]:
    """What every user of scanpy does to both sections before anything else."""
    import scanpy as sc

    stages = {}
    for name, step in (
        ("normalize", sc.pp.normalize_total),
        ("log", sc.pp.log1p),
        ("genes", sc.pp.highly_variable_genes),
        ("pca", sc.pp.pca),
    ):
        start = time.perf_counter()
        for section in (ref, src):
            step(section)
        stages[name] = time.perf_counter() - start
    return stages


METHODS: dict[str, Callable[..., dict[str, float]]] = {
    "default": lambda *arguments: ours(*arguments, field=True),
    "default-nofield": lambda *arguments: ours(*arguments, field=False),
    "preprocessing": preprocessing,
    "default-backed": lambda *arguments: ours(*arguments, field=True),
    "default-nofield-backed": lambda *arguments: ours(*arguments, field=False),
}


def main() -> None:
    """Measure, and print what was found."""
    ref_path, src_path, method, device, seed = sys.argv[1:]
    import inst_align as ia

    METHODS[method](*ia.datasets.toy_pair(n_cells=300, n_genes=60, rng=0), device, 0)
    without_sections = _status("VmRSS")
    ref, src = (ad.read_h5ad(path, backed="r" if method.endswith(BACKED) else None) for path in (ref_path, src_path))
    memory = Memory(without_sections)
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    start, before = time.perf_counter(), joules()
    stages = METHODS[method](ref, src, device, int(seed))
    found: dict[str, Any] = {"seconds": time.perf_counter() - start, "stages": stages} | memory.peaks()
    after = joules()
    if before is not None and after is not None and after > before:  # the counters begin again from time to time
        found["joules"] = after - before
    if device.startswith("cuda"):
        found["cuda_mebibytes"] = torch.cuda.max_memory_allocated(device) / MEBIBYTE
    if "spatial_aligned" in src.obsm and "spatial_true" in src.obsm:
        error = np.linalg.norm(src.obsm["spatial_aligned"] - src.obsm["spatial_true"], axis=1)
        unit = ia.metrics.spacing(ref.obsm["spatial"])
        found |= {"error": float(np.median(error)), "error_p95": float(np.quantile(error, 0.95)), "spacing": unit}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
