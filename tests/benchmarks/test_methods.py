"""Methods see what they are to see; peers that are not there leave a blank."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.accuracy import peers
from benchmarks.accuracy.levels import LEVELS
from benchmarks.accuracy.measures import best_rigid, measure
from benchmarks.accuracy.methods import ABLATIONS, METHODS, Options, Outcome, Unavailable, changed, run_method
from benchmarks.accuracy.pairs import Made
from benchmarks.accuracy.peers import PEERS, Peer, exchange

from inst_align.core.prepared import PairConfig


def test_methods_see_expression_gene_names_and_coordinates_and_nothing_else(section, made, as_pair):
    ref, src = made(section, "medium")
    for adata in (ref, src):
        adata.layers["more"] = adata.X.copy()
        adata.obsm["hint"] = adata.obsm["spatial"].copy()
        adata.var["note"] = 1
    pair = as_pair(ref, src, allow_reflection=True, logged=(False, True))
    seen = []

    def spy(blind_ref, blind_src, options):
        seen.extend([blind_ref, blind_src, options])
        blind_src.X.data[:] = 0
        blind_src.obsm["spatial"][:] = 0
        return Outcome(xy=np.zeros((blind_src.n_obs, 2)))

    run_method(spy, pair)
    for blind, full in zip(seen[:2], (ref, src)):
        assert list(blind.obsm) == ["spatial"]
        for part in ("layers", "obsp", "varm", "varp"):
            assert not list(getattr(blind, part))
        assert blind.raw is None
        assert set(blind.uns) <= {"log1p"}
        assert list(blind.obs.columns) == list(blind.var.columns) == []
        assert [name.split("_")[1] for name in blind.obs_names] == [str(i) for i in range(full.n_obs)]
        assert list(blind.var_names) == list(full.var_names)
    assert set(seen[0].obs_names).isdisjoint(seen[1].obs_names)
    assert ["log1p" in blind.uns for blind in seen[:2]] == [False, True]
    assert vars(seen[2]) == {"logged": (False, True), "allow_reflection": True, "seed": 0, "embed": False}
    assert src.X.sum() > 0  # the method had a copy of its own
    assert np.ptp(src.obsm["spatial"]) > 0


def test_no_adapter_returns_what_it_was_not_given(section, made, as_pair):
    ref, src = made(section, "rigid")
    pair = as_pair(ref, src)
    outcome = run_method(METHODS["rigid"], pair)
    row = measure(pair, outcome)
    assert row["median"] == row["pose_median"] < 1
    assert row["pose_best"] < 1e-9
    assert row["median"] > 0  # the truth itself would be 0
    assert row["folds"] == 0
    assert row["inverse_p99"] < 1e-9


def test_a_made_pair_tells_methods_what_is_logged_and_hides_labels_of_unmatched_cells(section, tmp_path):
    labelled = section.copy()
    labelled.obs["label"] = labelled.obs["layer"]
    labelled.write_h5ad(tmp_path / "toy.h5ad")
    logged = Made(tmp_path / "toy.h5ad", "logged", inverted=False).load(0)
    assert logged.logged == (False, True) == (False, LEVELS["logged"].logged)
    cropped = Made(tmp_path / "toy.h5ad", "ref60", inverted=False).load(0)
    assert cropped.matched is not None
    np.testing.assert_array_equal([isinstance(name, str) for name in cropped.labels_src], cropped.matched)


def test_an_ablation_changes_one_constant_and_a_constant_that_is_not_there_is_missing():
    config = PairConfig()
    other = changed(config, ["registration", "bending"], 0.0)
    assert other.registration.bending == 0
    assert changed(other, ["registration", "bending"], config.registration.bending) == config
    fewer = changed(config, ["registration", "levels"], lambda levels: levels[:-1])
    assert fewer.registration.levels == config.registration.levels[:-1]
    with pytest.raises(Unavailable, match="RegistrationConfig has no 'charm'"):
        changed(config, ["registration", "charm"], 0)


@pytest.mark.parametrize("name", [name for name in ABLATIONS if name.startswith("nofield")])
def test_ablations_of_the_default_are_still_possible(name, section, made, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "inst_align.tl.align_pair", lambda *_, config, accept="auto", **__: seen.append((config, accept)) or stop()
    )

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        METHODS[name](*made(section, "rigid"), Options(logged=(False, False), allow_reflection=False, seed=0))
    assert seen[0] != (PairConfig(), "auto")


def test_a_peer_without_its_package_is_missing(section, made, monkeypatch):
    monkeypatch.delenv(peers.ENVIRONMENTS, raising=False)
    with pytest.raises(Unavailable, match="no package not_there here"):
        Peer("paste", "not_there")(
            *made(section, "rigid"), Options(logged=(False,) * 2, allow_reflection=False, seed=0)
        )


def test_sections_survive_the_way_to_a_peer(section, made):
    ref, _ = made(section, "medium")
    back = exchange.unpack("ref", exchange.pack("ref", ref))
    np.testing.assert_array_equal(back.X.toarray(), ref.X.toarray())
    np.testing.assert_array_equal(back.obsm["spatial"], ref.obsm["spatial"])
    assert list(back.var_names) == list(ref.var_names)


@pytest.fixture
def toy_peer(tmp_path, monkeypatch) -> Path:
    """An environment whose peer lays the source where the reference's middle is, or fails if the seed says so."""
    script = tmp_path / "align_toy.py"
    script.write_text(
        f"""
import sys
sys.path.insert(0, {str(Path(peers.__file__).parent)!r})
import exchange

def align(task):
    if task.seed:
        raise ValueError("not this one")
    assert task.logged == (False, True) and task.allow_reflection
    xy = task.src.obsm["spatial"]
    moved = xy - xy.mean(axis=0) + task.ref.obsm["spatial"].mean(axis=0)
    return {{"xy": moved, "posed": xy, "other": moved + 1}}

exchange.main(align)
"""
    )
    monkeypatch.setattr(peers, "__file__", str(tmp_path / "__init__.py"))
    environment = tmp_path / "environments" / "toy" / "bin"
    environment.mkdir(parents=True)
    (environment / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (environment / "python").chmod(0o755)
    monkeypatch.setenv(peers.ENVIRONMENTS, str(tmp_path / "environments"))
    return script


def test_a_peer_runs_in_its_own_environment_and_its_errors_are_told(section, made, toy_peer):
    ref, src = made(section, "rigid")
    peer = Peer("toy", "not_there")
    found = peer(ref, src, Options(logged=(False, True), allow_reflection=True, seed=0))
    np.testing.assert_allclose(found.xy.mean(axis=0), ref.obsm["spatial"].mean(axis=0))
    np.testing.assert_allclose(best_rigid(found.xy, src.obsm["spatial"]), src.obsm["spatial"], atol=1e-6)
    np.testing.assert_array_equal(found.xy_posed, src.obsm["spatial"])
    np.testing.assert_allclose(found.also["other"], found.xy + 1)
    assert found.seconds >= 0
    with pytest.raises(RuntimeError, match="toy: ValueError: not this one"):
        peer(ref, src, Options(logged=(False, True), allow_reflection=True, seed=1))


def test_every_peer_has_its_script():
    for peer in PEERS.values():
        assert (Path(peers.__file__).parent / f"align_{peer.name}.py").exists()
