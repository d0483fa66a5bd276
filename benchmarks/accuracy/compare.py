"""Methods against each other, pair by pair."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.accuracy.tables import geometric_mean

NOT_A_PEER = ["RAW", "ORACLE"]
PEERS = ["paste", "spateo", "spateo-rigid", "moscot", "moscot-affine", "cpd-posed"]
WORSE_BY = 0.1
RESAMPLES = 10_000


def against_baseline(rows: pd.DataFrame, baseline: str, columns: dict[str, str], *, ratio: bool) -> pd.DataFrame:
    """Compare each method with one of them on the pairs that both were run on, after a mean over the seeds.

    Parameters
    ----------
    rows
        Of the table.
    baseline
        The method to compare with.
    columns
        Measures, and what to call them.
    ratio
        Whether to take the ratio to the baseline (its geometric mean over the pairs; for errors, of which less is
        better), or the difference (of which more is better).

    Returns
    -------
    A line per method: for each measure the mean with its 95 % interval, from resampled pairs; in how many pairs the
    baseline is better; and the p-value of Wilcoxon's signed-rank test, two-sided, on the (logarithms of the) values.
    """
    lines = []
    for method in sorted(set(rows["method"]) - {baseline}):
        line: dict[str, object] = {"method": method}
        for column, title in columns.items():
            values = rows.groupby(["pair", "method"])[column].mean().unstack()
            if not {method, baseline} <= set(values.columns):
                continue
            both = values[[method, baseline]].replace([np.inf, -np.inf], np.nan).dropna()
            if ratio:
                both = np.log(both[(both > 0).all(axis=1)])
            line |= _compared((both[method] - both[baseline]).to_numpy(), title, ratio=ratio)
        if len(line) > 1:
            lines.append(line)
    return pd.DataFrame(lines)


def _compared(difference: np.ndarray, title: str, *, ratio: bool) -> dict[str, str]:
    if not len(difference):
        return {}
    low, high = interval(difference)
    numbers = [float(np.exp(x)) if ratio else float(x) for x in (difference.mean(), low, high)]
    form = "{:.2f}" if ratio else "{:+.3f}"
    words = [form.format(number) for number in numbers]
    better = int(((difference > 0) if ratio else (difference < 0)).sum())
    return {
        title: f"{words[0]} ({words[1]} to {words[2]})",
        f"{title}: baseline better": f"{better}/{len(difference)}",
        f"{title}: p": f"{signed_rank(difference):.1e}",
    }


def signed_rank(difference: np.ndarray) -> float:
    """Return the p-value of Wilcoxon's signed-rank test; 1 where nothing differs."""
    from scipy.stats import wilcoxon

    return float(wilcoxon(difference).pvalue) if (difference != 0).any() else 1.0


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the mean from resampled values, the same ones whenever it is asked for."""
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def best_peers(rows: pd.DataFrame, stored: pd.DataFrame | None, kind: str) -> pd.DataFrame:
    """Return for each pair the smallest median and, separately, the smallest p95 that any peer reached.

    Parameters
    ----------
    rows
        Of the table.
    stored
        What tools reached elsewhere, or None.
    kind
        Of the pairs.

    Returns
    -------
    Columns median, p95 and tool (that of the median); indexed by pair.
    """
    own = rows[(rows["kind"] == kind) & rows["method"].isin(PEERS)]
    own = own.groupby(["pair", "method"])[["median", "p95"]].mean().reset_index().rename(columns={"method": "tool"})
    if stored is not None:
        other = stored[(stored["kind"] == kind) & ~stored["tool"].isin(NOT_A_PEER)]
        other = other.rename(columns={"tre_med": "median", "tre_p95": "p95"})[["pair", "tool", "median", "p95"]]
        own = other if own.empty else pd.concat([own, other])
    own = own.dropna(subset=["median"]).reset_index(drop=True)
    at = own.loc[own.groupby("pair")["median"].idxmin()].set_index("pair")
    return pd.DataFrame({"median": at["median"], "p95": own.groupby("pair")["p95"].min(), "tool": at["tool"]})


def against_peers(by_pair: pd.DataFrame, best: pd.DataFrame) -> dict[str, str]:
    """Compare with the best peer of each pair; the test is Wilcoxon's, paired, on the logarithms."""
    both = by_pair.join(best, rsuffix="_peer", how="inner").dropna()
    if both.empty:
        return {}
    ratio = both["median"] / both["median_peer"]
    return {
        "median / best peer": f"{geometric_mean(ratio):.2f}",
        "p95 / best peer": f"{geometric_mean(both['p95'] / both['p95_peer']):.2f}",
        f"peer better by > {WORSE_BY}": f"{int((both['median'] - both['median_peer'] > WORSE_BY).sum())}/{len(both)}",
        "p (Wilcoxon)": f"{signed_rank(np.log(ratio).to_numpy()):.1e}",
    }
