"""The benchmark of embeddings: every embedding has a row per cell, and a run writes and resumes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from benchmarks.embedding import __main__ as program
from benchmarks.embedding.representations import REPRESENTATIONS, WITH_FIELD, Aligned, averaged
from benchmarks.embedding.scores import mixture_scores

if TYPE_CHECKING:
    from inst_align.core.prepared import PairConfig


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tiny: PairConfig) -> None:
    monkeypatch.setattr("inst_align.core.pose.N_PIXELS", 33)
    monkeypatch.setattr(
        "inst_align.tl._align_pair._config", lambda *_, field: tiny if field else replace(tiny, field=None)
    )


@pytest.mark.usefixtures("quick")
def test_every_embedding_has_a_row_for_each_cell(section, made, as_pair):
    ref, src = made(section[::3].copy(), "rigid")
    aligned = Aligned.of(as_pair(ref, src), field=True)
    for name, make in REPRESENTATIONS.items():
        values = make(aligned)
        assert values.shape[0] == ref.n_obs + src.n_obs, name
        assert np.isfinite(values).all(), name
    assert set(WITH_FIELD) < set(REPRESENTATIONS)


def test_a_mean_over_neighbours_knows_no_sections():
    xy = np.array([[0.0, 0], [1, 0], [10, 0]])
    np.testing.assert_allclose(averaged(xy, np.array([[1.0], [3], [7]]), 2), [[2], [2], [5]])


def test_a_section_without_labels_is_clustered_but_not_judged(section, made, as_pair):
    ref, src = made(section, "rigid")
    pair = replace(as_pair(ref, src), labels_src=None)
    codes = np.unique(np.concatenate([ref.obs["label"], src.obs["label"]]), return_inverse=True)[1]
    knowing = np.eye(codes.max() + 1)[codes] + 0.01 * np.random.default_rng(0).normal(
        size=(len(codes), codes.max() + 1)
    )
    scores = mixture_scores(pair, knowing, seed=0, n_starts=3)
    assert scores["ari_plain"] > 0.9
    assert set(scores) == {"ari", "nmi", "ari_plain", "nmi_plain"}


@pytest.mark.usefixtures("quick")
def test_a_run_writes_a_table_and_a_report_and_resumes(data, tmp_path, capsys):
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--seeds", "0", "--starts", "1"]
    assert program.main([*arguments, "--embeddings", "coordinates;X_inst"]) == 0
    table = pd.read_csv(tmp_path / "out" / "embedding.csv")
    assert list(table["embedding"]) == ["X_inst", "coordinates"]
    assert set(table["pair"]) == {"embryo1_z2_z5"}
    report = (tmp_path / "out" / "embedding.md").read_text(encoding="utf-8")
    assert "ARI of Gaussian mixtures" in report
    capsys.readouterr()
    program.main([*arguments, "--embeddings", "coordinates;X_inst"])
    assert "seed 0" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match="No labelled pair below"):
        program.main([*arguments, "--pairs", "dlpfc*"])
