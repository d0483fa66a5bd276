"""One table says how far results can be trusted, and every number in it is counted right."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from benchmarks.inputs.catalogue import ELSEWHERE, N_ROWS
from benchmarks.trust import __main__ as program
from benchmarks.trust import catalogue
from benchmarks.trust.table import markdown, situation

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
NOTHING = pd.DataFrame()


def inputs(**changes: Any) -> pd.DataFrame:
    rows = [{"row": row, "right": True, "silent": False} for row in range(1, N_ROWS + 1)]
    return pd.DataFrame([*rows, {"row": 1, "right": True, "silent": False} | changes])


def pairs(*rows: tuple[str, str, str, float]) -> pd.DataFrame:
    """Kind, what is right, what was said, and the median error of the pose where the best is 1."""
    columns = ["kind", "right", "verdict", "pose_median"]
    table = pd.DataFrame(rows, columns=columns).assign(pose_best=1.0, warned=True, tuned_on=True)
    return table.assign(name=[str(i) for i in range(len(table))])


def line(text: str, beginning: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(f"| {beginning}"))


def test_a_row_of_the_catalogue_counts_if_all_of_its_cases_do() -> None:
    fine = markdown(inputs(), NOTHING, NOTHING, NOTHING)
    assert f"| {N_ROWS} of {N_ROWS} (61 cases) | all |" in fine
    assert "wrong in silence | 0 | 0 |" in fine
    bad = markdown(inputs(right=False, silent=True), NOTHING, NOTHING, NOTHING)
    assert f"| {N_ROWS - 1} of {N_ROWS} (61 cases) | all |" in bad
    assert "wrong in silence | 1 | 0 |" in bad


RELATED = "non-rigid | rigid sufficient"
WRONG = "ambiguous pose | poor"
SAID = pairs(
    ("warped", "non-rigid", "non-rigid", 1.0),
    ("warped", "non-rigid", "rigid sufficient", 1.0),
    ("not warped", "rigid sufficient", "poor", 1.0),
    ("harder", RELATED, "rigid sufficient", 1.0),
    ("harder", WRONG, "ambiguous pose", 9.0),
    ("harder", WRONG, "non-rigid", 9.0),
    ("symmetric", "ambiguous pose", "poor", float("nan")),
    ("shuffled", "poor", "poor", float("nan")),
    ("other genes", "poor", "non-rigid", float("nan")),
)


def test_verdicts_are_counted_by_what_is_the_case() -> None:
    text = markdown(NOTHING, SAID, NOTHING, NOTHING)
    found = {
        "right, of all pairs": "4 of 9",
        "unrelated sections called poor": "1 of 2",
        "wrong poses called ambiguous or poor": "1 of 2",
        "symmetric tissue called ambiguous or poor": "1 of 1",
        "right poses called neither": "3 of 4",
        "of those, bent or not as is right": "2 of 3",
        "ambiguous or poor with a warning": "4 of 4",
    }
    for words, count in found.items():
        assert f"| {count} |" in line(text, f"Verdicts: {words}")
    assert list(situation(SAID)) == [
        "non-rigid", "non-rigid", "rigid sufficient", "either", "elsewhere", "elsewhere", "symmetric", "poor", "poor",
    ]  # fmt: skip
    assert line(text, "sections that have nothing").endswith("| 2 | 1 |  |  | 1 |")
    assert line(text, "related sections; the pose is wrong").endswith("| 2 | 1 |  | 1 |  |")


def test_what_is_said_of_cells_is_set_against_what_is_true() -> None:
    row = {"kind": "cropped", "name": "0", "tuned_on": True, "from": 0.0, "to": 1.0, "score": 0.5}
    cells = pd.DataFrame(
        [
            row | {"what": "overlap", "n": 30, "said": 0.5, "true": 0.6},
            row | {"what": "overlap", "n": 10, "from": 1.0, "to": 2.0, "said": 1.0, "true": 0.7},
            row | {"what": "sd", "n": 5, "said": 1.0, "true": 4.0},
        ]
    )
    text = markdown(NOTHING, pairs(("cropped", "non-rigid", "non-rigid", 1.0)), cells, NOTHING)
    assert "| 0.150 (40 cells) | 0 |" in line(text, "`inst_overlap`")
    assert "| 2.00 (1 pairs) | 1 |" in line(text, "`inst_sd`, sections bent")
    elsewhere = markdown(NOTHING, pairs(("cropped", WRONG, "poor", 9.0)), cells, NOTHING)
    assert "inst_sd" not in elsewhere


def test_comparisons_keep_to_bits_or_to_what_is_promised() -> None:
    row = {"pair": "toy", "case": "x", "bits": False, "median": 0.1, "largest": 0.5, "limit": 0.2, "error": 1.0}
    repeats = pd.DataFrame(
        [
            row | {"part": "forms", "bound": "largest", "bits": True},
            row | {"part": "forms", "bound": "largest"},
            row | {"part": "invariance", "bound": "median"},
            row | {"part": "invariance", "bound": "largest"},
            row | {"part": "seeds", "bound": "largest"},
            row | {"part": "seeds", "bound": "largest", "median": 0.3, "error": 2.0},
        ]
    )
    text = markdown(NOTHING, NOTHING, NOTHING, repeats)
    assert "| 1 of 2 |" in line(text, "Forms")
    assert "| 1 of 2 |" in line(text, "Order")
    assert "| 0.20; error 1.50 ± 0.71 |" in line(text, "Spread over 2 seeds, `toy`")
    assert "Killed" not in text


def test_rows_that_the_catalogue_does_not_run_are_shown_by_tests_that_are_there() -> None:
    assert set(catalogue.TESTS) == {row for rows in ELSEWHERE.values() for row in rows}
    for _, tests in catalogue.TESTS.values():
        for test in tests:
            path, _, name = test.partition("::")
            source = (ROOT / path).read_text(encoding="utf-8")
            assert not name or f"def {name.rpartition('::')[2]}(" in source


@pytest.mark.parametrize("code", [0, 1, 4, 5])
def test_tests_pass_only_if_pytest_says_so(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def run(command: list[str], **how: Any) -> Any:
        assert command[1:3] == ["-m", "pytest"]
        assert command[-2:] == ["a.py::test_b", "c.py"]
        assert how["cwd"] == ROOT
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(catalogue.subprocess, "run", run)
    assert catalogue.passes(["a.py::test_b", "c.py"]) is (code == 0)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Put stand-ins in the place of the benchmarks, which note how they are called and return what they are told to."""

    def stand_in(*, right: bool = True, code: int = 0) -> list[str]:
        called: list[str] = []

        def run(name: str) -> Any:
            return lambda arguments: called.append(f"{name} {' '.join(arguments)}") or code

        monkeypatch.setattr(program, "input_rows", lambda: inputs(right=right))
        monkeypatch.setattr(program.calibration, "main", run("calibration"))
        monkeypatch.setattr(program.robustness, "main", run("robustness"))
        return called

    return stand_in


def test_the_program_runs_all_parts_afresh_and_fails_if_one_does(parts: Any, tmp_path: Path) -> None:
    stale = tmp_path / "calibration.csv"
    SAID.to_csv(stale, index=False)
    arguments = ["--data", "there", "--out", str(tmp_path), "--cases", "warped/*", "--pairs", "none"]
    called = parts()
    assert program.main([*arguments, "--resume"]) == 0
    assert stale.exists()
    assert "Verdicts: right" in (tmp_path / "trust.md").read_text(encoding="utf-8")
    assert program.main(arguments) == 0
    assert not stale.exists()
    assert called[2:] == [
        f"calibration --data there --out {tmp_path} --cases warped/*",
        f"robustness --data there --out {tmp_path} --pairs none",
    ]
    parts(right=False)
    assert program.main([*arguments, "--parts", "inputs"]) == 1
    parts(code=1)
    assert program.main([*arguments, "--parts", "robustness"]) == 1


def test_from_results_nothing_is_run(parts: Any, tmp_path: Path) -> None:
    called = parts()
    inputs().to_csv(tmp_path / "inputs.csv", index=False)
    SAID.to_csv(tmp_path / "calibration.csv", index=False)
    assert program.main(["--from-results", "--out", str(tmp_path)]) == 0
    assert called == []
    text = (tmp_path / "trust.md").read_text(encoding="utf-8")
    assert "60 of 60 (61 cases)" in text
    assert "4 of 9" in text


@pytest.mark.parametrize("arguments", [["--parts", "calibration"], ["--parts", "speed", "--data", "there"]])
def test_what_cannot_be_run_is_refused(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        program.main([*arguments, "--out", str(tmp_path)])
