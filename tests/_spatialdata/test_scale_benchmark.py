from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are no part of the package

from benchmarks import spatialdata_scale as scale


def test_the_benchmark_of_scale_moves_what_it_says_to_the_right_place(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "PER_PARTITION", 300)
    path = tmp_path / "section.zarr"
    scale.make_store(path, n_pixels=700, n_points=900)
    row = scale.move(path, ["image", "labels", "points"], n_pixels=700)
    assert row["result"]["points"] == "900"
    assert row["error"]["image"] < 3  # of 18,000 grey levels
    assert row["error"]["labels"] < 0.01
    assert row["error"]["points"] == pytest.approx(0, abs=1e-6)
    assert row["gib_peak"] >= row["gib_before"] > 0
    assert not list(path.glob("*/*_aligned"))
