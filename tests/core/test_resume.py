"""A process that is killed in the middle of a fit loses nothing but the steps since its last stop: kills that are real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import sparse

from inst_align.core.checkpoint import NOTHING, Checkpoint, FolderCheckpoint
from inst_align.core.fit import fit_pair
from inst_align.core.fourier import FieldConfig
from inst_align.core.prepared import PairConfig
from inst_align.core.registration import Level, RegistrationConfig
from inst_align.core.section import Section
from inst_align.core.transforms import Affine

if TYPE_CHECKING:
    from inst_align.core.alignment import Alignment, Step

LEVELS = tuple(Level(sigma=sigma, control_spacing=2.5 * sigma + 0.3, steps=6) for sigma in (0.6, 0.5, 0.4, 0.3))
CONFIG = PairConfig(registration=RegistrationConfig(levels=LEVELS, n_pixels=40), field=FieldConfig(n_frequencies=32))
SHARES = {0.25: 0, 0.5: 1, 0.75: 2}
"""Shares of the steps at which a process is killed, and how many levels are over then: the last steps are lost."""


def sections() -> tuple[Section, Section]:
    rng = np.random.default_rng(0)
    waves, phase = rng.normal(size=(2, 30)) / 3, rng.uniform(0, 6, 30)
    found = []
    for name in ("reference", "source"):
        xy = rng.uniform(0, 20, (300, 2)) * [1, 0.7]
        counts = rng.poisson(2 * np.exp(np.sin(xy @ waves + phase))).astype(np.float32)
        found.append(Section(xy=xy, expression=sparse.csr_matrix(np.log1p(counts)), name=name))
    return found[0], found[1]


def fit(checkpoint: Checkpoint, *, kill_at: int | None = None) -> Alignment:
    def callback(step: Step) -> None:
        if step.done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    return fit_pair(
        *sections(),
        config=CONFIG,
        init=Affine.from_rigid(0.02, (0.1, 0.2)),
        accept="nonrigid",
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        callback=callback,
        checkpoint=checkpoint,
    )


def folder_checkpoint(folder: Path) -> FolderCheckpoint:
    return FolderCheckpoint(folder, version="1", data={}, parameters={})


@pytest.fixture(scope="module")
def straight() -> Alignment:
    return fit(NOTHING)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(("share", "n_levels"), SHARES.items())
def test_a_killed_fit_goes_on_to_the_same_bits(
    tmp_path: Path, straight: Alignment, share: float, n_levels: int
) -> None:
    step = round(share * CONFIG.n_steps)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_resume as t; from pathlib import Path; t.fit(t.folder_checkpoint(Path({str(tmp_path)!r})), kill_at={step})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = folder_checkpoint(tmp_path).load("registration")
    assert len([] if kept is None else kept["terms"]) == n_levels
    assert folder_checkpoint(tmp_path).load("trial") is not None
    resumed = fit(folder_checkpoint(tmp_path))
    assert resumed.transform == straight.transform
    assert resumed.report == straight.report
    assert resumed.history.keys() == straight.history.keys()
    for name, values in straight.history.items():
        np.testing.assert_array_equal(resumed.history[name], values)
    assert resumed.field is not None
    assert straight.field is not None
    for name, values in straight.field.items():
        np.testing.assert_array_equal(resumed.field[name], values)
