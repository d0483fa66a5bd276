"""What all tests share: small toy sections, small budgets, one torch thread, and the way to the real sections."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

    from inst_align.core.prepared import PairConfig

REAL_DATA = Path(__file__).parents[1] / "../shared/data"
"""Real sections; they are no part of the project, so tests that need them are skipped where they are not there."""


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Keep torch to one thread: the problems are small, and timings and bits should not depend on the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("there is no CUDA device")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of the real sections."""
    if not REAL_DATA.is_dir():
        pytest.skip("real sections are not there")
    return REAL_DATA


@pytest.fixture(scope="session")
def toy() -> tuple[AnnData, AnnData]:
    """Return a small toy pair with known truth; shared by all tests, so never written to: see ``pair``."""
    from inst_align.datasets import toy_pair

    return toy_pair(n_cells=500, n_genes=80, rng=3)


@pytest.fixture
def pair(toy: tuple[AnnData, AnnData]) -> tuple[AnnData, AnnData]:
    """Return copies of the toy pair, to be written to."""
    ref, src = toy
    return ref.copy(), src.copy()


@pytest.fixture(scope="session")
def true_pose(toy: tuple[AnnData, AnnData]) -> np.ndarray:
    """Return the rigid part of the truth, source to reference, shape (3, 3): a start that needs no search."""
    return np.linalg.inv(toy[1].uns["toy"]["affine"])


@pytest.fixture(scope="session")
def tiny() -> PairConfig:
    """Return constants with which a whole fit takes a fraction of a second: enough for properties, not for accuracy."""
    from inst_align.core.fourier import FieldConfig
    from inst_align.core.prepared import PairConfig
    from inst_align.core.registration import Level, RegistrationConfig

    levels = (Level(sigma=0.5, control_spacing=1.5, steps=5), Level(sigma=0.27, control_spacing=1.1, steps=5))
    registration = RegistrationConfig(levels=levels, n_pixels=48)
    return PairConfig(registration=registration, field=FieldConfig(n_frequencies=64))


@pytest.fixture(scope="session")
def best_rigid_error() -> Callable[..., float]:
    """Return a function for the median error of the best rigid map to the truth: what no pose can be expected to beat."""

    def error(xy: np.ndarray, truth: np.ndarray) -> float:
        center, center_truth = xy.mean(axis=0), truth.mean(axis=0)
        medians = []
        for mirror in (1.0, -1.0):
            left, _, right = np.linalg.svd(((xy - center) * [mirror, 1]).T @ (truth - center_truth))
            turn = left @ np.diag([1, np.linalg.det(left @ right)]) @ right
            placed = ((xy - center) * [mirror, 1]) @ turn + center_truth
            medians.append(float(np.median(np.linalg.norm(placed - truth, axis=1))))
        return min(medians)

    return error


@pytest.fixture
def coarse_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search the pose on a raster with a quarter of the pixels: as right on the toy pair, and much faster."""
    from inst_align.core import pose

    monkeypatch.setattr(pose, "N_PIXELS", 33)
