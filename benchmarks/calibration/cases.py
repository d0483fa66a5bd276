"""Pairs of which it is known what ought to be said of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData

from benchmarks.accuracy.pairs import Made, Stored, pair_generator, recipes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.accuracy.pairs import Pair

SECTIONS = {
    "cortex": "dlpfc/151673",
    "hypothalamus": "merfish_hypothalamus/bregma+0.26",
    "bulb": "st2k_mob/MOB1",
    "mouse cortex": "starmap_mpfc/BZ5",
    "embryo": "seqfish_embryo/embryo1_z2",
    "fly": "stereoseq_drosophila/E14-16h_a_S01",
    "tumour": "her2st/A1",
    "another tumour": "her2st/C2",
}
"""One section of each tissue."""
TUNED_ON = ("cortex", "hypothalamus", "bulb")
"""Tissues whose pairs the thresholds were chosen on; the others were looked at afterwards."""
TISSUE_OF = {
    "dlpfc": "cortex",
    "merfish": "hypothalamus",
    "starmap": "mouse cortex",
    "embryo1": "embryo",
    "droso": "fly",
}
"""Tissues of the stored pairs, by the beginning of their names."""
LITTLE_IN_COMMON = ("crop30", "mutual", "torn", "thin20", "shared30")
HARDLY_ANYTHING = ("mutual50", "crop20few", "crop30thin")
"""Levels of made pairs; at the latter poses go wrong."""
SECTIONS_MADE_OF = {
    "cortex": "dlpfc/151674",
    "hypothalamus": "merfish_hypothalamus/bregma+0.21",
    "bulb": "st2k_mob/MOB1",
    "mouse cortex": "starmap_mpfc/BZ9",
    "embryo": "seqfish_embryo/embryo1_z2",
    "fly": "stereoseq_drosophila/E14-16h_a_S02",
    "tumour": "her2st/A3",
}
RELATED = ({"cortex", "mouse cortex"}, {"tumour", "another tumour"})
"""Tissues that are of one kind: nobody can say what is to be said of those."""
FEWEST_GENES = 30
POOR, AMBIGUOUS, RIGID, NON_RIGID = "poor", "ambiguous pose", "rigid sufficient", "non-rigid"


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Two sections, and what is known of them.

    Parameters
    ----------
    kind, name
        Which case it is.
    tissues
        Of the reference and the source.
    right
        Verdicts that are right.
    ref, src
        The sections, as methods get them.
    allow_reflection
        What the user says.
    xy_true, matched
        As :class:`benchmarks.accuracy.pairs.Pair` has them; None where there is no truth.
    """

    kind: str
    name: str
    tissues: tuple[str, str]
    right: tuple[str, ...]
    ref: AnnData
    src: AnnData
    allow_reflection: bool = False
    xy_true: np.ndarray | None = None
    matched: np.ndarray | None = None

    @property
    def tuned_on(self) -> bool:
        """Whether thresholds were chosen with such pairs at hand."""
        return set(self.tissues) <= set(TUNED_ON)


Maker = tuple[str, str, "Callable[[], Case]"]
"""Kind, name, and how to make the case."""


def cases(data: Path) -> Iterator[Maker]:
    """Yield all cases of which the data are there; they are read when they are made."""
    yield from _stored(data)
    yield from _made(data)
    there = {tissue: path for tissue, path in SECTIONS.items() if (data / f"{path}.h5ad").exists()}
    yield from _unrelated(data, list(there))
    for tissue, section in there.items():
        if tissue != "another tumour":
            yield "symmetric", tissue, lambda t=tissue, s=section: _symmetric(data, t, s)


def _stored(data: Path) -> Iterator[Maker]:
    for recipe in recipes(data, ["truth/*"]):
        assert isinstance(recipe, Stored)
        level = recipe.name.rpartition("_")[2]
        kind = {"rigid": "not warped", "partial": "cropped"}.get(level, "warped")
        yield kind, recipe.name, lambda r=recipe, k=kind: _as_it_is(k, r.load(0))
        if level == "mirror":
            kind = "mirrored, not allowed"
            yield kind, recipe.name, lambda r=recipe, k=kind: _as_it_is(k, r.load(0), allowed=False)
        if level in ("medium", "partial"):
            yield "shuffled", recipe.name, lambda r=recipe: _shuffled(r.load(0))


def _tissue(name: str) -> str:
    return next((tissue for start, tissue in TISSUE_OF.items() if name.startswith(start)), name)


def _as_it_is(kind: str, pair: Pair, *, allowed: bool = True) -> Case:
    ref, src = pair.blind()
    return Case(
        kind=kind,
        name=pair.name,
        tissues=(_tissue(pair.name),) * 2,
        right={"not warped": (RIGID,), "mirrored, not allowed": (AMBIGUOUS, POOR)}.get(kind, (NON_RIGID,)),
        ref=ref,
        src=src,
        allow_reflection=pair.allow_reflection and allowed,
        xy_true=pair.xy_true,
    )


def _shuffled(pair: Pair) -> Case:
    ref, src = pair.blind()
    src.X = src.X[pair_generator(pair.name, 1).permutation(src.n_obs)]
    return Case(
        kind="shuffled", name=pair.name, tissues=(_tissue(pair.name),) * 2, right=(POOR,), ref=ref, src=src,
        allow_reflection=pair.allow_reflection,
    )  # fmt: skip


def _made(data: Path) -> Iterator[Maker]:
    for tissue, section in SECTIONS_MADE_OF.items():
        path = data / f"{section}.h5ad"
        if not path.exists():
            continue
        for level in LITTLE_IN_COMMON:
            recipe = Made(path, level, inverted=True)
            yield "hard", f"{tissue} {level}", lambda r=recipe, t=tissue: _of_little(r.load(1), t, "hard")
        for level, seed in product(HARDLY_ANYTHING, (1, 2)):
            recipe = Made(path, level, inverted=True)
            name = f"{tissue} {level} {seed}"
            yield "harder", name, lambda r=recipe, t=tissue, s=seed: _of_little(r.load(s), t, "harder")


def _of_little(pair: Pair, tissue: str, kind: str) -> Case:
    ref, src = pair.blind()
    return Case(
        kind=kind,
        name=f"{tissue} {pair.level}" + (f" {pair.seed}" if kind == "harder" else ""),
        tissues=(tissue, tissue),
        right=(NON_RIGID,) if kind == "hard" else (NON_RIGID, RIGID),
        ref=ref,
        src=src,
        xy_true=pair.xy_true,
        matched=pair.matched,
    )


def _unrelated(data: Path, tissues: list[str]) -> Iterator[Maker]:
    for one, other in product(tissues, repeat=2):
        name = f"{one} and {other}"
        if one != other and {one, other} not in RELATED:
            yield "other tissue", name, lambda a=one, b=other: _other(data, a, b)
        if "another tumour" not in (one, other):
            yield "other genes", name, lambda a=one, b=other: _other_genes(data, a, b)


def _read(data: Path, tissue: str) -> AnnData:
    """Read a section; genes go by their names in capitals, as orthologs mostly share them."""
    section = ad.read_h5ad(data / f"{SECTIONS[tissue]}.h5ad")
    names = section.var_names.str.upper()
    keep = ~names.duplicated()
    return AnnData(
        X=section.X[:, keep],
        obs=pd.DataFrame(index=section.obs_names),
        var=pd.DataFrame(index=names[keep]),
        obsm={"spatial": np.array(section.obsm["spatial"], dtype=np.float64)},
    )


def _of_one_size(ref: AnnData, src: AnnData) -> None:
    """Bring the source to the reference's extent, in place: units must not give the answer away."""
    extents = (np.ptp(section.obsm["spatial"], axis=0).max() for section in (ref, src))
    src.obsm["spatial"] = src.obsm["spatial"] * (next(extents) / next(extents))


def _other(data: Path, one: str, other: str) -> Case | None:
    """Two tissues that share genes; None if they share too few."""
    ref, src = _read(data, one), _read(data, other)
    if len(ref.var_names.intersection(src.var_names)) < FEWEST_GENES:
        return None
    _of_one_size(ref, src)
    return Case(kind="other tissue", name=f"{one} and {other}", tissues=(one, other), right=(POOR,), ref=ref, src=src)


def _other_genes(data: Path, one: str, other: str) -> Case:
    """Two sections, also of one tissue, whose genes were given common names at random."""
    ref, src = _read(data, one), _read(data, other)
    rng = pair_generator(f"{one}, {other}", 2)
    n_genes = min(ref.n_vars, src.n_vars, 1000)
    ref, src = (section[:, np.sort(rng.permutation(section.n_vars)[:n_genes])].copy() for section in (ref, src))
    src = src[:, rng.permutation(n_genes)].copy()
    ref.var_names = src.var_names = [f"gene{i}" for i in range(n_genes)]
    _of_one_size(ref, src)
    return Case(kind="other genes", name=f"{one} and {other}", tissues=(one, other), right=(POOR,), ref=ref, src=src)


def _symmetric(data: Path, tissue: str, path: str) -> Case:
    """One half of a section, and the same half turned by 180 degrees; no cell is in two places, nor in both sections."""
    section = _read(data, tissue)
    xy = section.obsm["spatial"] - np.median(section.obsm["spatial"], axis=0)
    section.obsm["spatial"] = xy
    half = section[xy[:, 0] > 0].copy()
    rng = pair_generator(path, 3)
    quarter = rng.integers(4, size=half.n_obs)
    half.obsm["spatial"] *= np.where(quarter % 2, 1.0, -1.0)[:, None]
    ref, src = half[quarter < 2].copy(), half[quarter >= 2].copy()
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    src.obsm["spatial"] = src.obsm["spatial"] @ turn.T
    return Case(kind="symmetric", name=tissue, tissues=(tissue, tissue), right=(AMBIGUOUS,), ref=ref, src=src)
