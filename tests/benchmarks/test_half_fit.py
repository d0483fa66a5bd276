"""The benchmark of cells that were left out: they are left out, and their errors are theirs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from benchmarks import half_fit
from benchmarks.accuracy.methods import METHODS, Options, Outcome

import inst_align as ia

if TYPE_CHECKING:
    from pathlib import Path

SHIFTS = {"all": 1.0, "source": 2.0, "both": 4.0}
"""How far off the made-up method is, in units, by what it is given."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data/truth/lattice_rigid"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    ref = AnnData(rng.poisson(3, (60, 5)).astype(np.float32))
    ref.obsm["spatial"] = 2.0 * np.column_stack(np.divmod(np.arange(60), 10))
    src = ref[:41].copy()
    src.obsm["spatial_true"] = src.obsm["spatial"].copy()
    src.uns |= {"truth": json.dumps({"level": "rigid", "mirrored": False}), "logged": False}
    ref.write_h5ad(folder / "ref.h5ad")
    src.write_h5ad(folder / "src.h5ad")
    return tmp_path / "data"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[AnnData, AnnData]]:
    """Replaces the fit by a shift that depends on what was given, and lists that."""
    given = []

    def shift(ref: AnnData, src: AnnData, options: Options) -> Outcome:
        given.append((ref, src))
        name = "all" if src.n_obs == 41 else "source" if ref.n_obs == 60 else "both"
        transform = ia.transforms.Affine.from_rigid(0, (SHIFTS[name], 0))
        return Outcome(xy=transform(src.obsm["spatial"]), transform=transform)

    monkeypatch.setitem(METHODS, half_fit.METHOD, shift)
    monkeypatch.setattr(half_fit, "warm_up", lambda: None)
    return given


def test_halves_are_fitted_and_the_other_half_is_judged(data: Path, tmp_path: Path, given: list[Any]) -> None:
    arguments = ["--data", str(data), "--out", str(tmp_path / "out")]
    half_fit.main(arguments)
    assert [(ref.n_obs, src.n_obs) for ref, src in given] == [(60, 41), (60, 20), (30, 20)]
    assert all("spatial_true" not in src.obsm for _, src in given)
    table = pd.read_csv(tmp_path / "out/half_fit.csv").set_index("halved")
    for halved in ("source", "both"):  # the lattice has a pitch of 2
        assert table.loc[halved, "fitted_median"] == table.loc[halved, "held_out_p95"] == SHIFTS[halved] / 2
        assert table.loc[halved, "all_median"] == SHIFTS["all"] / 2
    text = (tmp_path / "out/half_fit.md").read_text()
    assert "| halves of both | the other half | 2.000 | 2.000 | 0.00% at most |" in text
    assert "| all cells | the other half | 0.500 | 0.500 | |" in text
    half_fit.main(arguments)
    assert len(given) == 3


def test_a_pattern_that_fits_no_pair_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="No pair below"):
        half_fit.main(["--data", str(data), "--out", str(tmp_path), "--pairs", "truth/nope"])
