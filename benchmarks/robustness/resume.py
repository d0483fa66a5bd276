"""A fit that is killed at a quarter, a half and three quarters of its steps, and goes on: the same bits as in one go?

Run as a program, ``python -m benchmarks.robustness.resume FOLDER STEP``, it is the process that kills itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import inst_align as ia
from benchmarks.robustness.rows import KEY, compared
from inst_align.core.prepared import PairConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from benchmarks.robustness.rows import Row

CONFIG = PairConfig()
SHARES = (0.25, 0.5, 0.75)


def fit(checkpoint: str | None) -> tuple[AnnData, AnnData]:
    """Align the toy pair by the default preset."""
    ref, src = ia.datasets.toy_pair(n_cells=800, n_genes=100, rng=0)
    ia.tl.align_pair(
        ref, src, config=CONFIG, accept="nonrigid", rng=0, device="cpu", progress=False, checkpoint=checkpoint
    )
    return ref, src


def killed_at(folder: str, step: int) -> None:
    """Fit, and end at a step as the kernel ends a process that takes too much memory."""
    from tqdm.auto import tqdm

    update = tqdm.update
    steps = []

    def counted(bar: Any, n: float = 1) -> None:
        update(bar, n)
        steps.append(n)
        if len(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    with mock.patch.object(tqdm, "update", counted):
        fit(folder)


def resume_rows() -> Iterator[Row]:
    """Yield a row for each share of the steps."""
    ref, wanted = fit(None)
    for share in SHARES:
        step = round(share * CONFIG.n_steps)
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.robustness.resume", folder, str(step)]
            code = subprocess.run(command, check=False).returncode
            if code != -signal.SIGKILL:
                raise RuntimeError(f"The process was to be killed at step {step}, and ended with {code}.")
            kept = {path.stem for path in Path(folder).glob("*.npz")}
            _, found = fit(folder)
        case = f"killed at {share:.0%} (kept: {', '.join(sorted(kept))})"
        yield compared("resume", "toy", case, found.obsm[KEY], wanted.obsm[KEY], ref, limit=0.0)


if __name__ == "__main__":
    killed_at(sys.argv[1], int(sys.argv[2]))
