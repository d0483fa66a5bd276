"""From the long table to Markdown and a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmarks.accuracy.compare import NOT_A_PEER, PEERS, against_baseline, against_peers, best_peers
from benchmarks.accuracy.figure import plot
from benchmarks.accuracy.methods import ABLATIONS
from benchmarks.accuracy.results import OK
from benchmarks.accuracy.tables import geometric_mean, markdown, mean_and_spread, summarised

if TYPE_CHECKING:
    from pathlib import Path

ORDER = ["raw", "icp", "rigid", *PEERS, "paper", "default-nofield", "default"]
BEST_PEER = "best peer"
CEILING_GAP, PARTIAL_GAP = 0.03, 0.08
KNOWN = {"truth": "Stored pairs with known truth", "made": "Made pairs with known truth"}
REAL = {
    "ot": "OT accuracy",
    "nn_src": "NN accuracy, source to reference",
    "nn_ref": "NN accuracy, reference to source",
    "held_out": "correlation of genes held out of the fit",
    "chamfer": "Chamfer distance over its floor",
    "median": "median true error, where the stored frame is the truth",
    "symmetry_median": "median symmetry error",
    "flipped": "share of triangles turned over",
    "ari": "ARI of the embedding's clusters",
    "nmi": "NMI of the embedding's clusters",
    "seconds": "seconds",
}
TWO_PLACES = {"seconds", "chamfer", "median", "symmetry_median"}


def write_report(table: pd.DataFrame, out: Path, *, peers: Path | None, baseline: str = "default") -> None:
    """Write ``accuracy.md`` and, where there are pairs with known truth, ``accuracy.png``.

    Parameters
    ----------
    table
        As :class:`benchmarks.accuracy.results.Results` holds it.
    out
        Folder.
    peers
        CSV with columns kind, pair, tool, tre_med and tre_p95, and ot_acc and nn_acc for real pairs; or None.
    baseline
        Method that the others are compared with, pair by pair.
    """
    rows = table[table["status"] == OK]
    stored = None if peers is None else pd.read_csv(peers)
    parts = ["# Accuracy", ""]
    parts += [f"{len(rows)} runs. What each number means stands in `benchmarks/README.md`.", ""]
    best = {kind: best_peers(rows, stored, kind) for kind in KNOWN}
    for kind, title in KNOWN.items():
        if len(known := rows[rows["kind"] == kind]):
            parts += [f"## {title}", "", *_summary(known, best[kind]), *_against(known, baseline, KNOWN_COLUMNS)]
            parts += [*_by_group(known, "level"), *_by_group(known, "tissue"), *_by_pair(known, best[kind])]
    if len(still := rows[rows["kind"] == "stay"]):
        parts += ["## Pairs that lie right already: how far they are moved", "", *_by_pair(still, None)]
    if len(real := rows[rows["kind"] == "real"]):
        parts += ["## Real pairs", "", *_real(real, stored), *_against(real, baseline, REAL_COLUMNS)]
    if len(bad := table[table["status"] != OK]):
        by_reason = bad.groupby(["method", "status"])["pair"].agg(["count", "first"]).reset_index()
        by_reason.columns = pd.Index(["method", "why", "runs", "first pair"])
        parts += ["## Not run", "", markdown(by_reason), ""]
    (out / "accuracy.md").write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    all_best = pd.concat(list(best.values()))
    plot(rows, out / "accuracy.png", all_best if len(all_best) else None)


KNOWN_COLUMNS = {"median": "median", "p95": "p95"}
REAL_COLUMNS = {name: REAL[name] for name in ("ot", "nn_src", "nn_ref", "held_out")}


def _methods(rows: pd.DataFrame) -> list[str]:
    present = set(rows["method"])
    return [name for name in ORDER if name in present] + sorted(present - set(ORDER))


def _summary(rows: pd.DataFrame, best: pd.DataFrame) -> list[str]:
    """One line per method, over all pairs but those of the rigid level, for which there is a line of their own."""
    lines = []
    for name in _methods(rows):
        own = rows[rows["method"] == name]
        warped, rigid_level = own[own["level"] != "rigid"], own[own["level"] == "rigid"]
        by_pair = warped.groupby("pair")[["median", "p95"]].mean()
        by_seed = warped.groupby("seed")[["median", "p95"]].agg(geometric_mean)
        lines.append(
            {
                "method": name,
                "pairs": len(by_pair),
                "seeds": own["seed"].nunique(),
                "median": mean_and_spread(by_seed["median"]),
                "p95": mean_and_spread(by_seed["p95"]),
                "rigid level": summarised(rigid_level["median"], "worst {:.2f}", np.max),
                "pose right": f"{int(own['pose_right'].sum())}/{own['pose_right'].notna().sum()}",
                "folds": summarised(own["folds"].fillna(own["flipped"]), "{:.2%}", np.max),
                "inverse p99": summarised(own["inverse_p99"], "{:.1e}", np.max),
                "symmetry": summarised(own["symmetry_median"], "{:.2f}", np.median),
                "NN at its ceiling": _at_ceiling(own),
                "seconds": summarised(own["seconds"], "{:.1f}", np.median),
                **against_peers(by_pair, best),
            }
        )
    return [markdown(pd.DataFrame(lines)), ""]


def _at_ceiling(rows: pd.DataFrame) -> str:
    """In how many runs NN accuracy falls short of its ceiling by no more than is allowed, or two standard errors."""
    gap = rows["nn_src_ceiling"] - rows["nn_src"]
    allowed = np.where(rows["level"] == "partial", PARTIAL_GAP, CEILING_GAP)
    return f"{int((gap <= np.maximum(allowed, 2 * rows['nn_src_gap_se'])).sum())}/{gap.notna().sum()}"


def _against(rows: pd.DataFrame, baseline: str, columns: dict[str, str]) -> list[str]:
    ratio = columns is KNOWN_COLUMNS
    lines = against_baseline(rows[rows["level"] != "rigid"], baseline, columns, ratio=ratio)
    if lines.empty:
        return []
    what = f"divided by those of `{baseline}` (less is better)" if ratio else f"less those of `{baseline}`"
    return [
        f"Each method's numbers {what}, paired, mean over the pairs with its 95 % interval; in how many pairs "
        f"`{baseline}` is better; Wilcoxon's signed-rank test.",
        "",
        markdown(lines),
        "",
    ]


def _by_group(rows: pd.DataFrame, group: str) -> list[str]:
    """Geometric means of the median and the p95 over the pairs of a level, or of a tissue without its rigid level."""
    if group == "tissue":
        rows = rows[rows["level"] != "rigid"]
        rows = rows.assign(tissue=rows["pair"].str.rsplit("_", n=1).str[0].str.removesuffix("i"))
    methods = [name for name in _methods(rows) if name not in ABLATIONS]
    lines = []
    for value, of_value in rows.groupby(group, sort=False):
        line = {group: value, "pairs": of_value["pair"].nunique()}
        for name in methods:
            by_pair = of_value[of_value["method"] == name].groupby("pair")[["median", "p95"]].mean()
            means = [geometric_mean(by_pair[column].clip(lower=1e-3)) for column in ("median", "p95")]
            line[name] = f"{means[0]:.2f} / {means[1]:.2f}" if len(by_pair) else ""
        lines.append(line)
    return [
        f"By {group}: geometric mean of the median / of the 95th percentile.",
        "",
        markdown(pd.DataFrame(lines)),
        "",
    ]


def _by_pair(rows: pd.DataFrame, best: pd.DataFrame | None) -> list[str]:
    """Median / p95 of each pair by method: mean over the seeds, with the median's standard deviation over them."""
    lines = []
    for pair, of_pair in rows.groupby("pair"):
        line = {"pair": pair, "best rigid": f"{of_pair['pose_best'].mean():.2f}"}
        for name in _methods(rows):
            own = of_pair[of_pair["method"] == name]
            line[name] = f"{mean_and_spread(own['median'])} / {own['p95'].mean():.2f}" if len(own) else ""
        if best is not None and len(best):
            peer = best.loc[pair] if pair in best.index else None
            line[BEST_PEER] = "" if peer is None else f"{peer['median']:.2f} / {peer['p95']:.2f} ({peer['tool']})"
        lines.append(line)
    return [
        "Median / 95th percentile of the true error, in neighbour distances.",
        "",
        markdown(pd.DataFrame(lines)),
        "",
    ]


def _real(rows: pd.DataFrame, stored: pd.DataFrame | None) -> list[str]:
    parts = []
    for column, title in REAL.items():
        if rows[column].isna().all():
            continue
        form = "{:.2f}" if column in TWO_PLACES else "{:.3f}"
        known = rows[rows[column].notna()]
        lines = []
        for pair, of_pair in known.groupby("pair"):
            line = {"pair": pair}
            for name in _methods(known):
                line[name] = mean_and_spread(of_pair.loc[of_pair["method"] == name, column], form)
            ceiling = f"{column}_ceiling"
            if ceiling in known:
                at_truth = of_pair.loc[of_pair["seed"] == of_pair["seed"].min(), ceiling].head(1)
                line["ceiling"] = mean_and_spread(at_truth, form)
            if stored is not None and column in ("ot", "nn_src"):
                line[f"{BEST_PEER}, stored"] = _best_real(
                    stored, str(pair), {"ot": "ot_acc", "nn_src": "nn_acc"}[column]
                )
            lines.append(line)
        parts += [f"### {title[0].upper()}{title[1:]}", "", markdown(pd.DataFrame(lines)), ""]
    return parts


def _best_real(stored: pd.DataFrame, pair: str, column: str) -> str:
    rows = stored[(stored["kind"] == "real") & (stored["pair"] == pair) & ~stored["tool"].isin(NOT_A_PEER)]
    rows = rows.dropna(subset=[column])
    if rows.empty:
        return ""
    at = rows.loc[rows[column].idxmax()]
    return f"{at[column]:.3f} ({at['tool']} {at['variant']})"
