"""The paper's tables: published numbers stand beside those of the same method on the same pair."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from benchmarks.accuracy import runs
from benchmarks.accuracy.methods import METHODS, Outcome
from benchmarks.reproduction import __main__ as program
from benchmarks.reproduction.tables import METRICS, PUBLISHED, TABLE1, TABLE3


def test_published_numbers_are_shares_or_distances_of_methods_that_the_tables_name():
    published = pd.read_csv(PUBLISHED)
    assert set(published["metric"]) == set(METRICS)
    assert set(published.loc[published["table"] == 1, "method"]) <= set(TABLE1)
    assert set(published.loc[published["table"] == 3, "method"]) == set(TABLE3)
    assert not published.duplicated(["table", "dataset", "method", "metric"]).any()
    shares = published.loc[published["metric"] != "chamfer", "value"]
    assert shares.between(0, 1).all()
    assert {name for name in [*TABLE1.values(), *TABLE3.values()] if name} <= set(METHODS)


@pytest.fixture
def paper_data(tmp_path, section):
    """A cortex pair, of which only one is there, with the rows and columns of an array."""
    folder = tmp_path / "dlpfc"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("151675", "151676"):
        adata = section[np.sort(rng.permutation(section.n_obs)[:300])].copy()
        adata.obs["label"] = adata.obs["layer"]
        adata.obs["array_row"], adata.obs["array_col"] = (adata.obsm["spatial"] / 50).round().T.astype(int)
        adata.write_h5ad(folder / f"{name}.h5ad")
    return tmp_path


def test_a_pair_on_its_array_lies_at_rows_and_columns_and_is_not_turned(paper_data):
    [recipe] = program.published_pairs(paper_data)
    first, other = recipe.load(0), recipe.load(1)
    xy = first.src.obsm["spatial"]
    np.testing.assert_array_equal(xy, first.src.obs[["array_row", "array_col"]].to_numpy(float))
    np.testing.assert_array_equal(xy, other.src.obsm["spatial"])
    assert first.xy_true is None


def test_the_tables_set_what_was_reached_beside_what_was_published(paper_data, tmp_path, monkeypatch):
    def close(ref, src, options):
        return Outcome(xy=src.obsm["spatial"].copy(), embedding=(ref.obsm["spatial"], src.obsm["spatial"]))

    monkeypatch.setattr(runs, "warm_up", lambda: None)
    monkeypatch.setattr("benchmarks.accuracy.embedding.N_STARTS", 1)
    for name in ("default", "paper"):
        monkeypatch.setitem(METHODS, name, close)
    arguments = [
        "--data",
        str(paper_data),
        "--out",
        str(tmp_path / "out"),
        "--methods",
        "raw,default",
        "--seeds",
        "0,1",
    ]
    program.main(arguments)
    table = pd.read_csv(tmp_path / "out" / "reproduction.csv")
    assert table.groupby("method").size().to_dict() == {"default": 2, "paper": 1, "raw": 2}
    assert (table["chamfer_units"] > 0).all()
    assert table.loc[table["method"] != "raw", "ari_each"].notna().all()
    lines = (tmp_path / "out" / "reproduction.md").read_text().splitlines()
    raw = next(line for line in lines if line.startswith("| Raw")).split("|")
    assert raw[2].strip() == "0.673"
    row = table[(table["method"] == "raw") & (table["seed"] == 0)].iloc[0]
    assert raw[3].strip() == f"{row['ot']:.3f} ± 0.000"
    full = next(line for line in lines if line.startswith("| Full")).split("|")
    assert full[2].strip() == "0.81"
