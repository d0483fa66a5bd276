"""Every row of the catalogue of odd and bad input does what it says, and so does the page that shows it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no part of the package

from benchmarks.inputs import __main__ as program
from benchmarks.inputs import catalogue
from benchmarks.inputs.case import Case, happens, is_one_sentence

PAGE = Path(__file__).parents[1] / "docs" / "inputs.md"


def name_of(case: Case) -> str:
    return f"{case.row}: {case.given}"


PARAMETERS = [
    pytest.param(case, id=name_of(case), marks=[pytest.mark.slow] if case.slow else []) for case in catalogue.CASES
]


@pytest.mark.parametrize("case", PARAMETERS)
def test_each_input_has_the_outcome_that_the_catalogue_says(case: Case) -> None:
    found = catalogue.outcome(case)
    assert found.kind == case.expect, found.message
    assert found.message
    if case.expect != "handled":
        assert is_one_sentence(found.message)


def test_every_row_is_shown_here_or_elsewhere() -> None:
    here = {case.row for case in catalogue.CASES}
    elsewhere = {row for rows in catalogue.ELSEWHERE.values() for row in rows}
    assert here | elsewhere == set(range(1, catalogue.N_ROWS + 1))
    assert not here & elsewhere


def test_the_page_holds_what_was_said() -> None:
    written = catalogue.table_of(PAGE).splitlines()
    quick = [case for case in catalogue.CASES if not case.slow]
    assert len(written) == len(catalogue.CASES) + 2
    shown = {catalogue.without_numbers(line) for line in written}
    assert {catalogue.without_numbers(line) for line in catalogue.table_rows(quick)} <= shown


def case(expect: str, run: object) -> Case:
    return Case(row=1, given="something", expect=expect, run=run)  # type: ignore[arg-type]


def fails(error: Exception) -> object:
    def run() -> str:
        raise error

    return run


def warns() -> str:
    import warnings

    warnings.warn("Something is odd.", stacklevel=1)
    return "done"


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        (lambda: "done", "handled"),
        (warns, "warning"),
        (fails(KeyError("no such key.")), "error"),
        (fails(AssertionError("it differs")), "wrong"),
        (fails(IndexError("deep inside")), "crash"),
    ],
)
def test_what_happens_is_told_apart(run: object, kind: str) -> None:
    assert happens(case("handled", run)).kind == kind


def test_a_result_that_is_wrong_without_a_word_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        case("error", lambda: "done"),
        case("handled", fails(AssertionError("it differs"))),
        case("warning", warns),
    ]
    monkeypatch.setattr(catalogue, "CASES", cases)
    assert [catalogue.is_silent(each) for each in cases] == [True, True, False]
    assert "silent wrong results: 2" in catalogue.summary()


def test_the_command_writes_the_table_and_fails_where_a_row_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{catalogue.BEGIN}old\n{catalogue.END}after\n")
    for expect, status in (("handled", 0), ("error", 1)):
        cases = [case(expect, lambda: "a | b < c")]
        monkeypatch.setattr(catalogue, "CASES", cases)
        monkeypatch.setattr(program, "CASES", cases)
        assert program.main(["--write", str(page)]) == status
    assert "something: handled, and not error" in capsys.readouterr().out
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| 1 | something | **error** | a \\| b &lt; c |" in text
    assert "old" not in text
