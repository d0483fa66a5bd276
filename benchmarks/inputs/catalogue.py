"""All cases, what they came to, and the table that users see."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from benchmarks.inputs import objects, places, stored, values
from benchmarks.inputs.case import Case, Outcome, happens

if TYPE_CHECKING:
    from pathlib import Path

CASES = sorted([*places.CASES, *values.CASES, *stored.CASES, *objects.CASES], key=lambda case: case.row)
N_ROWS = 60
ELSEWHERE = {
    "SpatialData": (46, 47, 48, 49),
    "long runs: memory of a device, losses, interruption, checkpoints": (52, 54, 55, 56),
    "maps that are applied to other points": (57, 58),
}
"""Rows that are shown where the features are that they speak of."""
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
WORDS = {"handled": "handled", "warning": "**warning**", "error": "**error**"}


@functools.cache
def outcome(case: Case) -> Outcome:
    """Run a case, once in a process."""
    return happens(case)


def is_right(case: Case) -> bool:
    """Whether what was to happen did."""
    return outcome(case).kind == case.expect


def is_silent(case: Case) -> bool:
    """Whether a result was wrong, or may be, and nobody was told."""
    found = outcome(case).kind
    return found == "wrong" or (found == "handled" and case.expect != "handled")


def summary() -> str:
    """Return how many rows do what they have to, and how many results were wrong in silence."""
    rows = {case.row for case in CASES}
    right = {row for row in rows if all(is_right(case) for case in CASES if case.row == row)}
    elsewhere = "; ".join(f"{', '.join(map(str, numbers))} ({what})" for what, numbers in ELSEWHERE.items())
    return (
        f"rows that do what they have to: {len(right)} of {len(rows)} ({len(CASES)} inputs)\n"
        f"silent wrong results: {sum(map(is_silent, CASES))}\n"
        f"rows shown elsewhere, of {N_ROWS}: {elsewhere}"
    )


def table() -> str:
    """Return the catalogue as a Markdown table, with what happened as it was said."""
    head = ["| row | input | what happens | what is said, or comes out |", "|---|---|---|---|"]
    return "\n".join([*head, *table_rows(CASES)]) + "\n"


def table_rows(cases: list[Case]) -> list[str]:
    """Return the table's lines for some cases."""
    return [
        f"| {case.row} | {_cell(case.given)} | {WORDS[case.expect]} | {_cell(outcome(case).message)} |"
        for case in cases
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def page_with(page: str, new: str) -> str:
    """Return a page with another table between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}{new}{rest[rest.index(END) :]}"


def table_of(page: Path) -> str:
    """Return the table that a page holds."""
    return page.read_text().split(BEGIN)[1].split(END)[0]


def without_numbers(text: str) -> str:
    """Return a text whose numbers, which rounding may change, are all the same."""
    return re.sub(r"\d[\d.,]*(e[+-]?\d+)?", "#", text)
