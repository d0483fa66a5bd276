"""The global pose from many random starts: a table of its own, ``pose_starts.csv``, and one line per pair."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import inst_align as ia
from benchmarks.accuracy.generator import rigid_matrix
from benchmarks.accuracy.measures import true_error
from benchmarks.accuracy.methods import METHODS, run_method
from benchmarks.accuracy.pairs import pair_generator
from benchmarks.accuracy.runs import mapper
from benchmarks.accuracy.tables import markdown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.accuracy.pairs import Pair, Recipe

KEY = ["kind", "pair", "start"]
SAME_TURN, SAME_SHIFT = 5.0, 3.0
"""Degrees and neighbour distances within which two poses are the same one."""


@dataclass(frozen=True)
class Starts:
    """A pair and the starts that are still to be run."""

    recipe: Recipe
    numbers: tuple[int, ...]

    def run(self) -> list[dict[str, Any]]:
        """Return a row per start."""
        pair = self.recipe.load(0)
        return [_row(pair, number) for number in self.numbers]


def run(recipes: Sequence[Recipe], n_starts: int, out: Path, *, jobs: int = 1, redo: bool = False) -> None:
    """Run what ``pose_starts.csv`` lacks, saving after each pair, and write ``pose_starts.md``."""
    path = out / "pose_starts.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=KEY)
    done = set() if redo else set(table[KEY].itertuples(index=False, name=None))
    tasks = [
        Starts(recipe, numbers)
        for recipe in recipes
        if (numbers := tuple(k for k in range(n_starts) if (recipe.kind, recipe.name, k) not in done))
    ]
    print(f"{len(recipes)} pairs, {sum(len(task.numbers) for task in tasks)} starts to run")
    out.mkdir(parents=True, exist_ok=True)
    if tasks:
        with mapper(jobs) as mapped:
            for rows in mapped(Starts.run, tasks):
                new = pd.DataFrame(rows)
                table = new if table.empty else pd.concat([table, new]).drop_duplicates(KEY, keep="last")
                table.sort_values(KEY).to_csv(path, index=False, float_format="%.6g")
                print(summary(new).to_string(index=False, header=False), flush=True)
    if len(table):
        text = ["# The pose from random starts", "", markdown(summary(table)), ""]
        (out / "pose_starts.md").write_text("\n".join(text), encoding="utf-8")


def _row(pair: Pair, number: int) -> dict[str, Any]:
    """Find the pose of a pair whose source was turned at random and shifted by up to an extent."""
    xy = np.asarray(pair.src.obsm["spatial"])
    rng = pair_generator(f"{pair.name} from a start", number)
    shift = np.ptp(xy, axis=0).max() * rng.uniform(-1, 1, 2)
    start = np.vstack([rigid_matrix(xy, rng.uniform(0, 360), shift, mirrored=False), [0, 0, 1]])
    src = pair.src.copy()
    src.obsm["spatial"] = xy @ start[:2, :2].T + start[:2, 2]
    outcome = run_method(METHODS["rigid"], replace(pair, src=src, seed=number))
    assert isinstance(outcome.transform, ia.transforms.Affine)
    pose = outcome.transform.matrix @ start  # from the source as it lay before it was turned
    centre = (outcome.xy.mean(axis=0) - pair.ref.obsm["spatial"].mean(axis=0)) / _unit(pair)
    row = {
        "kind": pair.kind,
        "pair": pair.name,
        "start": number,
        "level": pair.level,
        "angle": np.degrees(np.arctan2(pose[1, 0], pose[0, 0])),
        "mirrored": np.linalg.det(pose[:2, :2]) < 0,
        "x": centre[0],
        "y": centre[1],
        "ambiguous": bool(outcome.report["pose_ambiguous"]),
        "seconds": outcome.seconds,
    }
    if pair.xy_true is not None:
        error = true_error(replace(pair, src=src), outcome)
        row |= {name: error[name] for name in ("pose_median", "pose_best", "pose_right")}
    return row


def _unit(pair: Pair) -> float:
    return float(ia.metrics.spacing(pair.ref.obsm["spatial"]))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return one line per pair: how many starts end in the right pose, and how many in the most frequent one."""
    table = table.reindex(columns=[*table.columns.union(["pose_right", "pose_median"])])
    lines = []
    for (kind, pair), of_pair in table.groupby(["kind", "pair"]):
        known = of_pair["pose_right"].notna().any()
        error = f"{of_pair['pose_median'].median():.2f} (worst {of_pair['pose_median'].max():.2f})" if known else ""
        line = {"pair": f"{kind}/{pair}", "starts": len(of_pair)}
        line["right"] = f"{int(of_pair['pose_right'].sum())}/{len(of_pair)}" if known else ""
        line["same pose"] = f"{most_in_one_pose(of_pair)}/{len(of_pair)}"
        line["said to be ambiguous"] = f"{int(of_pair['ambiguous'].sum())}/{len(of_pair)}"
        lines.append(line | {"median error": error, "seconds": f"{of_pair['seconds'].median():.1f}"})
    return pd.DataFrame(lines)


def most_in_one_pose(poses: pd.DataFrame) -> int:
    """Return the largest number of poses that are the same as one of them."""
    angle, place = poses["angle"].to_numpy(float), poses[["x", "y"]].to_numpy(float)
    mirrored = poses["mirrored"].to_numpy(bool)
    turn = np.abs((angle[:, None] - angle + 180) % 360 - 180)
    shift = np.linalg.norm(place[:, None] - place, axis=2)
    same = (turn <= SAME_TURN) & (shift <= SAME_SHIFT) & (mirrored[:, None] == mirrored)
    return int(same.sum(axis=1).max())
