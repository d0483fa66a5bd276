"""The report: how often verdicts are right, and whether the numbers beside them mean what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from benchmarks.calibration.cases import TUNED_ON
from benchmarks.calibration.runs import ELSEWHERE

if TYPE_CHECKING:
    from collections.abc import Iterator

VERDICTS = ["non-rigid", "rigid sufficient", "ambiguous pose", "poor"]
KINDS = {
    "warped": "stored pairs, warped",
    "cropped": "stored pairs, warped and cropped",
    "not warped": "stored pairs, not warped",
    "hard": "made pairs with little in common",
    "harder": "made pairs with hardly anything in common",
    "mirrored, not allowed": "turned over, which is not allowed",
    "symmetric": "symmetric under a half-turn",
    "shuffled": "expression shuffled over the cells",
    "other genes": "genes named at random",
    "other tissue": "another tissue, orthologous genes",
}
NUMBERS = [
    "heldout_z",
    "heldout_correlation_pose",
    "heldout_correlation_nonrigid",
    "heldout_shared_signal",
    "heldout_gain",
    "feature_correlation",
    "pose_score",
    "overlap",
    "displacement_median",
    "inverse_consistency_median",
    "position_sd_median",
]
PARTIAL = ["cropped", "hard", "harder"]
"""Kinds of pairs of which a part of the cells has no counterpart."""
SETS = {True: "tissues tuned on", False: "other tissues"}


def markdown(pairs: pd.DataFrame, cells: pd.DataFrame) -> str:
    """Return the report on a table of pairs and one of cells in bins."""
    lines = [
        "# Is what is said of a result true?",
        "",
        f"{len(pairs)} pairs, `align_pair(field=False)`, seed 0. The factor of `inst_sd` was fitted to all of them, and the verdicts' thresholds had their",
        f"last change on pairs of {', '.join(TUNED_ON)}; pairs with another tissue in them are told apart. The thresholds",
        "were first chosen with earlier pairs of all these tissues in view, so these are other pairs, but not unseen tissues. Errors",
        "are in median neighbour distances of the reference.",
        "",
        *_confusion(pairs),
        *_poses(pairs),
        *_numbers(pairs),
        *_overlap(at_the_right_place(cells, pairs)),
        *_sd(at_the_right_place(cells, pairs)),
    ]
    return "\n".join(lines) + "\n"


def at_the_right_place(cells: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of pairs whose pose is not elsewhere: what is said of cells holds if the pose is right."""
    right = pairs[~elsewhere(pairs)][["kind", "name"]]
    return cells.merge(right, on=["kind", "name"])


def elsewhere(pairs: pd.DataFrame) -> pd.Series:
    """Return which pairs have a pose that is wrong; none has of which the truth is not known."""
    return pairs["pose_median"] > 1.5 * pairs["pose_best"] + ELSEWHERE


def _table(head: list[str], rows: list[list[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    yield from (f"| {' | '.join(map(str, row))} |" for row in rows)
    yield ""


def _confusion(pairs: pd.DataFrame) -> Iterator[str]:
    yield "## Verdicts"
    yield ""
    yield "Right is the verdict in the second column; where the truth is known and the pose is elsewhere, it is one of the last two."
    yield "In brackets, how many had no warning."
    yield ""
    for tuned, title in SETS.items():
        of_set = pairs[pairs["tuned_on"] == tuned]
        rows: list[list[object]] = []
        for kind, words in KINDS.items():
            some = of_set[of_set["kind"] == kind]
            if some.empty:
                continue
            hits = sum(
                verdict in right.split(" | ") for right, verdict in zip(some["right"], some["verdict"], strict=True)
            )
            rows.append(
                [
                    words,
                    some["right"].mode()[0].replace(" | ", " or "),
                    *(_count(some, each) for each in VERDICTS),
                    f"{hits} of {len(some)}",
                ]
            )
        yield f"### {title[0].upper()}{title[1:]}"
        yield ""
        yield from _table(["pairs", "right is", *VERDICTS, "right"], rows)


def _count(some: pd.DataFrame, verdict: str) -> str:
    found = some[some["verdict"] == verdict]
    silent = int((~found["warned"].astype(bool)).sum())
    return (
        ""
        if found.empty
        else f"{len(found)}" + (f" ({silent})" if verdict in ("ambiguous pose", "poor") and silent else "")
    )


def _poses(pairs: pd.DataFrame) -> Iterator[str]:
    known = pairs[pairs["pose_median"].notna()]
    misplaced = elsewhere(known)
    yield "## Poses"
    yield ""
    yield f"Pairs with a known truth. A pose is elsewhere if its median error exceeds 1.5 times that of the best rigid map by {ELSEWHERE:g}."
    yield ""
    rows: list[list[object]] = []
    for tuned, title in SETS.items():
        for wrong, word in ((False, "right"), (True, "elsewhere")):
            some = known[(known["tuned_on"] == tuned) & (misplaced == wrong)]
            counts = [int((some["verdict"] == each).sum()) for each in ("ambiguous pose", "poor")]
            rows.append([title, word, len(some), *counts, len(some) - sum(counts)])
    yield from _table(["", "pose", "pairs", "ambiguous pose", "poor", "neither"], rows)


def _numbers(pairs: pd.DataFrame) -> Iterator[str]:
    yield "## Numbers of the report"
    yield ""
    yield "Rank correlation, over pairs whose pose is not elsewhere, with the true median error; and how well they tell related pairs from others (area under"
    yield "the curve: 0.5 says nothing)."
    yield ""
    known = pairs[pairs["error_median"].notna() & ~elsewhere(pairs)]
    related = ~pairs["kind"].isin(["shuffled", "other genes", "other tissue"])
    rows: list[list[object]] = []
    for name in NUMBERS:
        cells = [_rank(known[known["tuned_on"] == tuned], name) for tuned in SETS]
        rows.append([f"`{name}`", *cells, _area(pairs[name], related)])
    yield from _table(["number", *(f"error, {title}" for title in SETS.values()), "related or not"], rows)


def _rank(some: pd.DataFrame, name: str) -> str:
    both = some[[name, "error_median"]].dropna()
    varies = len(both) > 4 and both[name].nunique() > 1
    return f"{spearmanr(both[name], both['error_median']).statistic:.2f}" if varies else ""


def _area(values: pd.Series, positive: pd.Series) -> str:
    one, other = values[positive].dropna().to_numpy(), values[~positive].dropna().to_numpy()
    if not (len(one) and len(other)):
        return ""
    return f"{np.mean((one[:, None] > other) + 0.5 * (one[:, None] == other)):.3f}"


def _overlap(cells: pd.DataFrame) -> Iterator[str]:
    yield "## `inst_overlap`"
    yield ""
    yield "Cells of both sections of pairs whose pose is not elsewhere, in bins of what was said: mean of it, and the share that has a"
    yield "counterpart. The bins are those of the pairs that were cropped or have little in common."
    yield ""
    some = cells[cells["what"] == "overlap"]
    scores = some.groupby(["kind", "name", "tuned_on"])["score"].first().reset_index()
    yield "Brier score, mean over pairs: " + ", ".join(
        f"{KINDS[str(kind)]} {score:.3f}" for kind, score in scores.groupby("kind")["score"].mean().items()
    ) + "."  # fmt: skip
    yield ""
    part = some[some["kind"].isin(PARTIAL)]
    yield from _table(["said", "cells", "mean", "true"], [
        [f"{low:g} to {high:g}", n, f"{said:.3f}", f"{true:.3f}"] for (low, high), n, said, true in pooled(part)
    ])  # fmt: skip


def _sd(cells: pd.DataFrame) -> Iterator[str]:
    yield "## `inst_sd`"
    yield ""
    yield "The source's cells with a counterpart, of pairs whose pose is not elsewhere, in bins of what was said; root mean squares, in"
    yield "neighbour distances."
    yield ""
    for what, words in (("sd", "bent"), ("sd, not bent", "not bent")):
        for tuned, title in SETS.items():
            some = cells[(cells["what"] == what) & (cells["tuned_on"] == tuned)]
            if some.empty:
                continue
            pairs = some.groupby(["kind", "name"])
            means = pd.DataFrame(
                [{key: np.sqrt(np.average(of[key], weights=of["n"])) for key in ("said", "true")} for _, of in pairs]
            )
            within = pairs["score"].first().mean()
            order = (
                f", rank correlation between pairs {spearmanr(means['said'], means['true']).statistic:.2f}"
                if len(means) > 4
                else ""
            )
            yield f"### Sections that were {words}, {title}"
            yield ""
            yield f"{len(means)} pairs{order}, within pairs {within:.2f} in the mean."
            yield ""
            yield from _table(["said", "cells", "said", "true"], [
                [f"{low:g} to {high:g}", n, f"{np.sqrt(said):.2f}", f"{np.sqrt(true):.2f}"]
                for (low, high), n, said, true in pooled(some)
            ])  # fmt: skip


def pooled(some: pd.DataFrame) -> Iterator[tuple[tuple[float, float], int, float, float]]:
    """Yield the edges of each bin, its number of cells, and the means of what was said and of what is true."""
    for edges, of in some.groupby(["from", "to"]):
        low, high = (float(edge) for edge in edges)
        yield (
            (low, high),
            int(of["n"].sum()),
            *(float(np.average(of[key], weights=of["n"])) for key in ("said", "true")),
        )
