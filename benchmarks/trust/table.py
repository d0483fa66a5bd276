"""One table of all that was found, with the command for each number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from benchmarks.calibration.report import PARTIAL, VERDICTS, at_the_right_place, elsewhere, pooled
from benchmarks.inputs.catalogue import N_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    Line = tuple[str, str, str, str]

CATALOGUE = "`python -m benchmarks.trust --parts inputs --out DIR`"
CALIBRATION = "`python -m benchmarks.calibration --data PATH --out DIR`"
ROBUSTNESS = "`python -m benchmarks.robustness --data PATH --parts {} --out DIR`"
UNRELATED = ["shuffled", "other genes", "other tissue"]
NOT_TO_BE_TRUSTED = {"ambiguous pose", "poor"}
SAID_OF = {
    "non-rigid": "related sections, warped; the pose is right",
    "rigid sufficient": "related sections, not warped; the pose is right",
    "either": "related sections with hardly anything in common; the pose is right",
    "elsewhere": "related sections; the pose is wrong",
    "symmetric": "halves that are the same after a half-turn",
    "poor": "sections that have nothing to do with each other",
}


def markdown(inputs: pd.DataFrame, pairs: pd.DataFrame, cells: pd.DataFrame, repeats: pd.DataFrame) -> str:
    """Return the report on the tables of inputs, pairs, cells in bins, and comparisons; any may be empty."""
    lines = [*_inputs(inputs), *_verdicts(pairs), *_cells(cells, pairs), *_repeats(repeats)]
    text = [
        "# Can a result be trusted?",
        "",
        "Made by `python -m benchmarks.trust --data PATH`. Distances are in median neighbour distances of the reference.",
        "",
        "| question | found | aim | how to reproduce |",
        "|---|---|---|---|",
        *(f"| {' | '.join(line)} |" for line in lines),
    ]
    return "\n".join([*text, *_matrix(pairs)]) + "\n"


def _inputs(inputs: pd.DataFrame) -> Iterator[Line]:
    if inputs.empty:
        return
    rows = inputs.groupby("row")["right"].all()
    yield (
        "Odd and bad input: rows of the catalogue that do what they have to",
        f"{rows.sum()} of {N_ROWS} ({len(inputs)} cases)",
        "all",
        CATALOGUE,
    )
    yield "Odd and bad input: results that are wrong in silence", str(int(inputs["silent"].sum())), "0", CATALOGUE


def situation(pairs: pd.DataFrame) -> pd.Series:
    """Return what each pair is, as a key of ``SAID_OF``; of ``"either"``, both verdicts that are good are right."""
    is_what = pairs["right"].mask(pairs["right"] == "non-rigid | rigid sufficient", "either")
    is_what = is_what.mask(pairs["kind"] == "symmetric", "symmetric")
    return is_what.mask(elsewhere(pairs), "elsewhere")


def _verdicts(pairs: pd.DataFrame) -> Iterator[Line]:
    if pairs.empty:
        return
    is_what = situation(pairs)
    told = pairs["verdict"].isin(NOT_TO_BE_TRUSTED)
    right = pd.Series(
        [said in allowed.split(" | ") for allowed, said in zip(pairs["right"], pairs["verdict"], strict=True)],
        index=pairs.index,
    )
    fine = is_what.isin(["non-rigid", "rigid sufficient", "either"])
    for words, some, hit in (
        ("Right, of all pairs", fine | ~fine, right),
        ("Unrelated sections called poor", is_what == "poor", pairs["verdict"] == "poor"),
        ("Wrong poses called ambiguous or poor", is_what == "elsewhere", told),
        ("Symmetric tissue called ambiguous or poor", is_what == "symmetric", told),
        ("Right poses called neither", fine, ~told),
        ("Of those, bent or not as is right", fine & ~told, right),
    ):
        if some.any():
            yield (
                f"Verdicts: {words[0].lower()}{words[1:]}",
                f"{(hit & some).sum()} of {some.sum()}",
                "all",
                CALIBRATION,
            )
    warned = pairs["warned"].astype(bool)
    if told.any():
        yield (
            "Verdicts: ambiguous or poor with a warning",
            f"{(told & warned).sum()} of {told.sum()}",
            "all",
            CALIBRATION,
        )


def _cells(cells: pd.DataFrame, pairs: pd.DataFrame) -> Iterator[Line]:
    if cells.empty or pairs.empty:
        return
    cells = at_the_right_place(cells, pairs)
    some = cells[(cells["what"] == "overlap") & cells["kind"].isin(PARTIAL)]
    if not some.empty:
        n, off = _weighted([(n, abs(said - true)) for _, n, said, true in pooled(some)])
        yield (
            "`inst_overlap`: said against true share with a counterpart, mean difference over bins",
            f"{off:.3f} ({n} cells)",
            "0",
            CALIBRATION,
        )
    for what, words in (("sd", "bent"), ("sd, not bent", "not bent")):
        some = cells[cells["what"] == what]
        if some.empty:
            continue
        ratio = np.sqrt(np.average(some["true"], weights=some["n"]) / np.average(some["said"], weights=some["n"]))
        by_pair = [
            [np.average(of[key], weights=of["n"]) for key in ("said", "true")]
            for _, of in some.groupby(["kind", "name"])
        ]
        order = (
            f", rank correlation between pairs {spearmanr(*np.transpose(by_pair)).statistic:.2f}"
            if len(by_pair) > 4
            else ""
        )
        yield (
            f"`inst_sd`, sections {words}: true error over what was said, root mean squares",
            f"{ratio:.2f} ({len(by_pair)} pairs{order})",
            "1",
            CALIBRATION,
        )


def _weighted(found: list[tuple[int, float]]) -> tuple[int, float]:
    n, values = zip(*found, strict=True)
    return sum(n), float(np.average(values, weights=n))


def _repeats(repeats: pd.DataFrame) -> Iterator[Line]:
    if repeats.empty:
        return
    parts = {
        "resume": "Killed at a quarter, a half and three quarters, and resumed: same bits as in one go",
        "forms": "Forms that the input is kept in: same bits",
        "invariance": "Order, place, units, turn: what is promised holds",
    }
    for part, words in parts.items():
        some = repeats[repeats["part"] == part]
        if some.empty:
            continue
        bound = np.where(some["bound"] == "median", some["median"], some["largest"])
        holds = bound <= some["limit"] if part == "invariance" else some["bits"].astype(bool)
        yield words, f"{int(holds.sum())} of {len(some)}", "all", ROBUSTNESS.format(part)
    for pair, some in repeats[repeats["part"] == "seeds"].groupby("pair", sort=False):
        error = "" if some["error"].isna().any() else f"; error {some['error'].mean():.2f} ± {some['error'].std():.2f}"
        yield (
            f"Spread over {len(some)} seeds, `{pair}`: median distance from their mean",
            f"{some['median'].mean():.2f}{error}",
            "small beside the error",
            ROBUSTNESS.format("seeds"),
        )


def _matrix(pairs: pd.DataFrame) -> Iterator[str]:
    if pairs.empty:
        return
    yield from ("", "Verdicts, by what is the case:", "")
    yield f"| | pairs | {' | '.join(VERDICTS)} |"
    yield "|---|---|" + "---|" * len(VERDICTS)
    is_what = situation(pairs)
    for case, words in SAID_OF.items():
        said = pairs["verdict"][is_what == case]
        counts = [int((said == verdict).sum()) for verdict in VERDICTS]
        if len(said):
            yield f"| {words} | {len(said)} | {' | '.join(str(count or '') for count in counts)} |"
