"""The table in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from benchmarks.robustness.rows import Row

TITLES = {
    "resume": "Killed and resumed",
    "forms": "Forms of the input",
    "invariance": "What ought not to matter",
    "seeds": "Seeds",
}
TEXTS = {
    "resume": "A process that fits the toy pair of 800 cells is killed (SIGKILL); the same call with the same `checkpoint` "
    "goes on. Compared with a fit in one go.",
    "forms": "One pair, a short fit, compared with CSR, float32, sorted genes and float64 coordinates.",
    "invariance": "`align_pair(field=False)`, compared with the pair as it is. Promised are 1e-6 of the extent for the "
    "order of cells and genes, 1e-5 for place and units, and for a turn 0.05 neighbour distances at the median, since "
    "rasters are not isotropic.",
    "seeds": "`align_pair` by five seeds: the distance of a seed's result from the mean of all five, and the median "
    "error against the truth.",
}


def markdown(rows: list[Row]) -> str:
    """Return the report."""
    lines = [
        "# Robustness",
        "",
        "Distances between the source's places in two results are in median neighbour distances of the reference.",
        "",
        "| part | comparisons | same bits | largest distance | what is promised holds |",
        "|---|---|---|---|---|",
    ]
    parts = {part: [row for row in rows if row.part == part] for part in TITLES}
    parts = {part: of for part, of in parts.items() if of}
    for part, of in parts.items():
        promised = [row for row in of if not np.isnan(row.limit)]
        holds = f"{sum(row.holds for row in promised)} of {len(promised)}" if promised else "nothing promised"
        largest = max(row.largest for row in of)
        lines.append(f"| {TITLES[part]} | {len(of)} | {sum(row.bits for row in of)} | {largest:.2g} | {holds} |")
    for part, of in parts.items():
        lines += ["", f"## {TITLES[part]}", "", TEXTS[part], ""]
        lines += _seeds(of) if part == "seeds" else _comparisons(of)
    return "\n".join(lines) + "\n"


def _comparisons(rows: list[Row]) -> list[str]:
    lines = ["| pair | case | same bits | median | largest | holds |", "|---|---|---|---|---|---|"]
    for row in rows:
        holds = "yes" if row.holds else f"no: {row.bound} above {row.limit:.2g}"
        bits = "yes" if row.bits else "no"
        lines.append(f"| {row.pair} | {row.case} | {bits} | {row.median:.2g} | {row.largest:.2g} | {holds} |")
    return lines


def _seeds(rows: list[Row]) -> list[str]:
    lines = [
        "| pair | seeds | median distance from the mean | largest | median error, mean of the seeds | standard deviation |",
        "|---|---|---|---|---|---|",
    ]
    for pair in dict.fromkeys(row.pair for row in rows):
        of = [row for row in rows if row.pair == pair]
        errors = np.array([row.error for row in of])
        spread = np.median([row.median for row in of])
        largest = max(row.largest for row in of)
        lines.append(
            f"| {pair} | {len(of)} | {spread:.3f} | {largest:.2f} | {errors.mean():.3f} | {errors.std():.3f} |"
        )
    return lines
