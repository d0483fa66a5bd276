"""The program resumes, tells of what failed, and its report says what the table holds."""

from __future__ import annotations

import pandas as pd
import pytest
from benchmarks.accuracy import __main__ as program
from benchmarks.accuracy import runs
from benchmarks.accuracy.compare import against_baseline, best_peers
from benchmarks.accuracy.methods import METHODS, Outcome, Unavailable
from benchmarks.accuracy.report import write_report
from benchmarks.accuracy.results import Results
from benchmarks.accuracy.starts import most_in_one_pose, summary


def test_a_run_resumes_and_a_missing_or_failing_method_is_told(data, tmp_path, monkeypatch):
    calls = []

    def counted(ref, src, options):
        calls.append(options.seed)
        return METHODS["raw"](ref, src, options)

    def missing(ref, src, options):
        raise Unavailable("not here")

    def failing(ref, src, options):
        raise ValueError("no | fit")

    monkeypatch.setattr(runs, "warm_up", lambda: None)
    for name, method in {"default": counted, "paper": missing, "icp": failing}.items():
        monkeypatch.setitem(METHODS, name, method)
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--pairs", "truth/*,real/*", "--seeds", "0-1"]
    arguments += ["--methods", "default,paper,icp", "--held-out"]
    program.main(arguments)
    assert sorted(calls) == [0] * 4 + [1] * 4  # the real pair twice each, for its held-out genes
    program.main(arguments)
    assert len(calls) == 8
    table = Results(tmp_path / "out" / "accuracy.csv").table
    assert len(table) == 3 * 2 * 3
    assert set(table.loc[table["method"] == "paper", "status"]) == {"missing: not here"}
    assert table.loc[table["method"] == "paper", "median"].isna().all()
    real = table[(table["kind"] == "real") & (table["method"] == "default")]
    assert real["held_out"].notna().all()
    text = (tmp_path / "out" / "accuracy.md").read_text()
    assert "not here" in text
    assert "failed: ValueError: no / fit" in text
    assert (tmp_path / "out" / "accuracy.png").stat().st_size > 0
    program.main([*arguments, "--redo", "--methods", "default", "--pairs", "truth/toy_rigid", "--seeds", "0"])
    assert len(calls) == 9


def test_the_best_peer_is_the_smallest_median_and_the_smallest_p95_apart(tmp_path):
    peers = pd.DataFrame(
        [
            ("truth", "a", "ORACLE", 0.0, 0.0),
            ("truth", "a", "RAW", 0.1, 0.1),
            ("truth", "a", "One", 2.0, 8.0),
            ("truth", "a", "Two", 3.0, 5.0),
            ("truth", "b", "One", 4.0, 6.0),
            ("real", "a", "One", 1.0, 1.0),
        ],
        columns=["kind", "pair", "tool", "tre_med", "tre_p95"],
    ).assign(variant="x")
    best = best_peers(Results(tmp_path / "none.csv").table, peers, "truth")
    assert best.loc["a"].tolist() == [2.0, 5.0, "One"]
    assert best.loc["b", "median"] == 4.0

    row = {"kind": "truth", "method": "rigid", "seed": 0, "level": "medium", "status": "ok"}
    results = Results(tmp_path / "accuracy.csv")
    results.add([row | {"pair": "a", "median": 1.0, "p95": 5.0}, row | {"pair": "b", "median": 8.0, "p95": 1.5}])
    peers.to_csv(tmp_path / "peers.csv", index=False)
    write_report(results.table, tmp_path, peers=tmp_path / "peers.csv")
    line = next(line for line in (tmp_path / "accuracy.md").read_text().splitlines() if line.startswith("| rigid"))
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[4:6] == ["2.83", "2.74"]  # geometric means of 1 and 8, and of 5 and 1.5
    assert {"1.00", "0.50", "1/2"} <= set(cells)  # against the peers: sqrt(1/2 * 2), sqrt(1 * 1/4), one lost


def test_methods_are_compared_pair_by_pair_after_a_mean_over_the_seeds():
    rows = pd.DataFrame(
        [
            (pair, method, seed, error * factor)
            for pair, error in zip("abcdefgh", range(1, 9))
            for method, factors in {"default": (1.0, 1.0), "half": (0.4, 0.6), "same": (1.0, 1.0)}.items()
            for seed, factor in enumerate(factors)
        ],
        columns=["pair", "method", "seed", "median"],
    )
    lines = against_baseline(rows, "default", {"median": "error"}, ratio=True).set_index("method")
    assert list(lines.index) == ["half", "same"]
    assert lines.loc["half", "error"] == "0.50 (0.50 to 0.50)"
    assert lines.loc["half", "error: baseline better"] == "0/8"
    assert float(lines.loc["half", "error: p"]) == pytest.approx(2 / 2**8, rel=0.05)  # all of one sign, two-sided
    assert lines.loc["same", "error"] == "1.00 (1.00 to 1.00)"
    assert float(lines.loc["same", "error: p"]) == 1
    differences = against_baseline(rows, "default", {"median": "error"}, ratio=False).set_index("method")
    assert differences.loc["half", "error"].startswith("-2.250 (-")
    assert differences.loc["half", "error: baseline better"] == "8/8"


def test_pairs_that_a_method_was_not_run_on_do_not_count_against_it():
    rows = pd.DataFrame(
        [("a", "default", 0, 1.0), ("b", "default", 0, 5.0), ("a", "other", 0, 3.0)],
        columns=["pair", "method", "seed", "median"],
    )
    lines = against_baseline(rows, "default", {"median": "error"}, ratio=True)
    assert lines["error"].tolist() == ["3.00 (3.00 to 3.00)"]
    assert against_baseline(rows, "nobody", {"median": "error"}, ratio=True).empty


def test_further_results_of_a_run_have_rows_of_their_own_and_symmetry_is_measured(data, tmp_path, monkeypatch):
    def twofold(ref, src, options):
        return Outcome(xy=src.obsm["spatial"].copy(), also={"far": src.obsm["spatial"] + 1e4})

    monkeypatch.setattr(runs, "warm_up", lambda: None)
    monkeypatch.setitem(METHODS, "default", twofold)
    arguments = ["--data", str(data), "--out", str(tmp_path), "--pairs", "stay/*,real/*", "--seeds", "0"]
    program.main([*arguments, "--methods", "default", "--symmetry", "--held-out"])
    table = Results(tmp_path / "accuracy.csv").table
    assert set(table["method"]) == {"default", "default-far"}
    own, far = (table[table["method"] == name].set_index(["kind", "pair"]) for name in ("default", "default-far"))
    assert (own["median"] < far["median"]).all()
    assert (own.loc["stay", "symmetry_median"] == 0).all()
    assert own.loc["real", "held_out"].notna().all()
    assert far.loc["real", "held_out"].notna().all()
    assert far["symmetry_median"].isna().all()


def test_the_pose_from_many_starts_resumes_and_counts_what_is_right(data, tmp_path, monkeypatch, coarse_search):
    monkeypatch.setattr(runs, "warm_up", lambda: None)
    arguments = ["--data", str(data), "--out", str(tmp_path), "--pairs", "truth/toy_mirror", "--pose-starts"]
    program.main([*arguments, "2"])
    first = pd.read_csv(tmp_path / "pose_starts.csv")
    assert first["start"].tolist() == [0, 1]
    program.main([*arguments, "3"])
    table = pd.read_csv(tmp_path / "pose_starts.csv")
    assert table["start"].tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(table[table["start"] < 2], first)
    assert table["mirrored"].all()
    assert "| truth/toy_mirror | 3 | 3/3 | 3/3 |" in (tmp_path / "pose_starts.md").read_text()
    unknown = summary(table.drop(columns=["pose_right", "pose_median"])).loc[0]
    assert (unknown["right"], unknown["same pose"]) == ("", "3/3")


def test_poses_are_the_same_across_the_cut_of_the_circle_and_not_when_mirrored():
    poses = pd.DataFrame(
        {"angle": [179.0, -179.0, 20.0, 20.0], "mirrored": [False, False, False, True], "x": 0.0, "y": 0.0}
    )
    assert most_in_one_pose(poses) == 2
    assert most_in_one_pose(poses.assign(x=[0.0, 9.0, 0.0, 0.0])) == 1
