"""From the long table to Markdown and a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmarks.accuracy.results import OK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ORDER = ["raw", "icp", "rigid", "cpd-posed", "paper", "default-nofield", "default"]
NOT_A_PEER = ["RAW", "ORACLE"]
WORSE_BY = 0.1
BEST_PEER = "best peer"
REAL = {
    "ot": "OT accuracy",
    "nn_src": "NN accuracy, source to reference",
    "nn_ref": "NN accuracy, reference to source",
    "chamfer": "Chamfer distance over its floor",
    "held_out": "correlation of genes held out of the fit",
    "median": "median true error, where the stored frame is the truth",
    "seconds": "seconds",
}


def write_report(table: pd.DataFrame, out: Path, *, peers: Path | None) -> None:
    """Write ``accuracy.md`` and, where there are pairs with known truth, ``accuracy.png``.

    Parameters
    ----------
    table
        As :class:`benchmarks.accuracy.results.Results` holds it.
    out
        Folder.
    peers
        CSV with columns kind, pair, tool, tre_med and tre_p95, and ot_acc and nn_acc for real pairs; or None.
    """
    rows = table[table["status"] == OK]
    stored = None if peers is None else pd.read_csv(peers)
    parts = ["# Accuracy", ""]
    parts += [f"{len(rows)} runs. What each number means stands in `benchmarks/README.md`.", ""]
    for kind, title in (("truth", "Stored pairs with known truth"), ("made", "Made pairs with known truth")):
        known = rows[rows["kind"] == kind]
        if len(known):
            best = best_peers(stored) if stored is not None and kind == "truth" else None
            parts += [f"## {title}", "", *_summary(known, best), *_by_pair(known, best)]
    if len(still := rows[rows["kind"] == "stay"]):
        parts += ["## Pairs that lie right already: how far they are moved", "", *_by_pair(still, None)]
    if len(real := rows[rows["kind"] == "real"]):
        parts += ["## Real pairs", "", *_real(real, stored)]
    if len(bad := table[table["status"] != OK]):
        by_reason = bad.groupby(["method", "status"])["pair"].agg(["count", "first"]).reset_index()
        by_reason.columns = pd.Index(["method", "why", "runs", "first pair"])
        parts += ["## Not run", "", _markdown(by_reason), ""]
    (out / "accuracy.md").write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    plot(rows, out / "accuracy.png", None if stored is None else best_peers(stored))


def best_peers(stored: pd.DataFrame) -> pd.DataFrame:
    """Return for each pair the smallest median and, separately, the smallest p95 that any peer reached.

    Returns
    -------
    Columns median, p95 and tool (that of the median); indexed by pair.
    """
    rows = stored[(stored["kind"] == "truth") & ~stored["tool"].isin(NOT_A_PEER)].dropna(subset=["tre_med"])
    at = rows.loc[rows.groupby("pair")["tre_med"].idxmin()].set_index("pair")
    p95 = rows.groupby("pair")["tre_p95"].min()
    return pd.DataFrame({"median": at["tre_med"], "p95": p95, "tool": at["tool"]})


def _methods(rows: pd.DataFrame) -> list[str]:
    present = set(rows["method"])
    return [name for name in ORDER if name in present] + sorted(present - set(ORDER))


def _summary(rows: pd.DataFrame, best: pd.DataFrame | None) -> list[str]:
    """One line per method, over all pairs but those of the rigid level, for which there is a line of their own."""
    lines = []
    for name in _methods(rows):
        own = rows[rows["method"] == name]
        by_pair = own[own["level"] != "rigid"].groupby("pair")[["median", "p95"]].mean()
        rigid_level = own[own["level"] == "rigid"]
        gap = own["nn_src_ceiling"] - own["nn_src"]
        allowed = np.maximum(np.where(own["level"] == "partial", 0.08, 0.03), 2 * own["nn_src_gap_se"])
        line = {
            "method": name,
            "pairs": len(by_pair),
            "seeds": own["seed"].nunique(),
            "median": f"{geometric_mean(by_pair['median']):.2f}",
            "p95": f"{geometric_mean(by_pair['p95']):.2f}",
            "rigid level": _spread(rigid_level["median"], "worst {:.2f}", np.max),
            "pose right": f"{int(own['pose_right'].sum())}/{own['pose_right'].notna().sum()}",
            "folds": _spread(own["folds"], "{:.2%}", np.max),
            "inverse p99": _spread(own["inverse_p99"], "{:.1e}", np.max),
            "NN at its ceiling": f"{int((gap <= allowed).sum())}/{gap.notna().sum()}",
            "seconds": _spread(own["seconds"], "{:.1f}", np.median),
        }
        if best is not None:
            line |= _against_peers(by_pair, best)
        lines.append(line)
    return [_markdown(pd.DataFrame(lines)), ""]


def _against_peers(by_pair: pd.DataFrame, best: pd.DataFrame) -> dict[str, str]:
    """Compare with the best peer of each pair; the test is Wilcoxon's, paired, on the logarithms."""
    from scipy.stats import wilcoxon

    both = by_pair.join(best, rsuffix="_peer", how="inner").dropna()
    if both.empty:
        return {}
    ratio = both["median"] / both["median_peer"]
    return {
        "median / best peer": f"{geometric_mean(ratio):.2f}",
        "p95 / best peer": f"{geometric_mean(both['p95'] / both['p95_peer']):.2f}",
        f"peer better by > {WORSE_BY}": f"{int((both['median'] - both['median_peer'] > WORSE_BY).sum())}/{len(both)}",
        "p (Wilcoxon)": f"{wilcoxon(np.log(ratio)).pvalue:.1e}",
    }


def geometric_mean(values: pd.Series) -> float:
    """Return the geometric mean; NaN of nothing."""
    return float(np.exp(np.log(values).mean()))


def _spread(values: pd.Series, form: str, summary: Callable[[pd.Series], float]) -> str:
    known = values.dropna()
    return form.format(summary(known)) if len(known) else ""


def _by_pair(rows: pd.DataFrame, best: pd.DataFrame | None) -> list[str]:
    """Median / p95 of each pair by method: mean over the seeds, with the median's standard deviation over them."""
    lines = []
    for pair, of_pair in rows.groupby("pair"):
        line = {"pair": pair, "best rigid": f"{of_pair['pose_best'].mean():.2f}"}
        for name in _methods(rows):
            own = of_pair[of_pair["method"] == name]
            line[name] = f"{_mean(own['median'])} / {own['p95'].mean():.2f}" if len(own) else ""
        if best is not None:
            peer = best.loc[pair] if pair in best.index else None
            line[BEST_PEER] = "" if peer is None else f"{peer['median']:.2f} / {peer['p95']:.2f} ({peer['tool']})"
        lines.append(line)
    return [
        "Median / 95th percentile of the true error, in neighbour distances.",
        "",
        _markdown(pd.DataFrame(lines)),
        "",
    ]


def _mean(values: pd.Series, form: str = "{:.2f}") -> str:
    known = values.dropna()
    if known.empty:
        return ""
    text = form.format(known.mean())
    return text if len(known) == 1 else f"{text} ± {form.format(known.std())}"


def _real(rows: pd.DataFrame, stored: pd.DataFrame | None) -> list[str]:
    parts = []
    for column, title in REAL.items():
        if rows[column].isna().all():
            continue
        form = "{:.2f}" if column in ("seconds", "chamfer", "median") else "{:.3f}"
        known = rows[rows[column].notna()]
        lines = []
        for pair, of_pair in known.groupby("pair"):
            line = {"pair": pair}
            for name in _methods(rows):
                line[name] = _mean(of_pair.loc[of_pair["method"] == name, column], form)
            ceiling = f"{column}_ceiling"
            if ceiling in known:
                line["ceiling"] = _mean(of_pair.loc[of_pair["seed"] == of_pair["seed"].min(), ceiling].head(1), form)
            if stored is not None and column in ("ot", "nn_src"):
                line[BEST_PEER] = _best_real(stored, str(pair), {"ot": "ot_acc", "nn_src": "nn_acc"}[column])
            lines.append(line)
        parts += [f"### {title[0].upper()}{title[1:]}", "", _markdown(pd.DataFrame(lines)), ""]
    return parts


def _best_real(stored: pd.DataFrame, pair: str, column: str) -> str:
    rows = stored[(stored["kind"] == "real") & (stored["pair"] == pair) & ~stored["tool"].isin(NOT_A_PEER)]
    rows = rows.dropna(subset=[column])
    if rows.empty:
        return ""
    at = rows.loc[rows[column].idxmax()]
    return f"{at[column]:.3f} ({at['tool']} {at['variant']})"


def _markdown(table: pd.DataFrame) -> str:
    header = [str(column) for column in table.columns]
    body = [["" if pd.isna(value) else str(value).replace("|", "/") for value in row] for row in table.to_numpy()]
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(rows: pd.DataFrame, path: Path, best: pd.DataFrame | None) -> None:
    """Draw the median error of each pair with known truth on a log axis: the pose alone, ours, the best peer."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    known = rows[rows["kind"].isin(["truth", "made"])]
    mean = known.groupby(["pair", "method"])["median"].mean().unstack()
    ours = next((name for name in ("default", "default-nofield", "rigid") if name in mean), None)
    if ours is None:
        return
    mean = mean.dropna(subset=[ours]).sort_values(ours, ascending=False)
    series = {"pose alone": (mean.get("rigid"), "0.6", "o"), f"inst-align, {ours}": (mean[ours], "C0", "o")}
    if best is not None:
        series[BEST_PEER] = (best["median"].reindex(mean.index), "C1", "D")
    figure = Figure(figsize=(6.5, 1.2 + 0.2 * len(mean)), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="median error (neighbour distances)")
    height = np.arange(len(mean))
    for label, (values, color, marker) in series.items():
        if values is not None:
            axes.plot(values, height, marker, color=color, label=label, markersize=5, linestyle="none")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(height, mean.index, fontsize=8)
    axes.set_ylim(-0.7, len(mean) - 0.3)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)
