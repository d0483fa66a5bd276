"""Where pairs of sections come from: stored ones, made ones, and real ones; and the blind copies that methods see."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Protocol

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData

from benchmarks.accuracy.generator import make_pair, rigid_matrix
from benchmarks.accuracy.levels import LEVELS

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """A pair with all that is known of it. Methods are given only what :meth:`blind` returns.

    Parameters
    ----------
    kind, name, level, seed
        Which pair it is.
    ref, src
        The sections: expression in X, ``obsm["spatial"]``.
    labels_ref, labels_src
        Shapes ``(n,)`` and ``(m,)``, or None; for reports only.
    xy_true
        Where the source's cells belong in the reference's frame, shape ``(m, 2)``, or None; for reports only.
    matched
        Which of the source's cells have a counterpart, shape ``(m,)``, or None if all; for reports only.
    logged
        Whether X is log-normalised already: the reference's, and the source's.
    allow_reflection
        Whether the source may have to be turned over.
    """

    kind: str
    name: str
    level: str
    seed: int
    ref: AnnData
    src: AnnData
    labels_ref: np.ndarray | None = None
    labels_src: np.ndarray | None = None
    xy_true: np.ndarray | None = None
    matched: np.ndarray | None = None
    logged: tuple[bool, bool] = (False, False)
    allow_reflection: bool = False

    def blind(self, genes: np.ndarray | None = None) -> tuple[AnnData, AnnData]:
        """Return copies that hold expression, gene names and coordinates, and nothing else.

        As is the custom, ``uns["log1p"]`` is there where the expression is log-normalised.

        Parameters
        ----------
        genes
            Names of the genes to hand out; None for all.
        """
        return _blind(self.ref, "ref", genes, self.logged[0]), _blind(self.src, "src", genes, self.logged[1])


def _blind(adata: AnnData, prefix: str, genes: np.ndarray | None, logged: bool) -> AnnData:  # noqa: FBT001
    columns = np.arange(adata.n_vars) if genes is None else np.flatnonzero(adata.var_names.isin(genes))
    cells = [f"{prefix}_{i}" for i in range(adata.n_obs)]  # names could tell which cells belong together
    return AnnData(
        X=adata.X[:, columns].copy(),
        obs=pd.DataFrame(index=cells),
        var=pd.DataFrame(index=adata.var_names[columns].to_numpy().copy()),
        obsm={"spatial": np.array(adata.obsm["spatial"], dtype=np.float64)},
        uns={"log1p": {"base": None}} if logged else {},
    )


class Recipe(Protocol):
    """How to come by a pair: its kind and name, and a function of the seed."""

    @property
    def kind(self) -> str:
        """Which of the groups in :func:`recipes` the pair belongs to."""
        ...

    @property
    def name(self) -> str:
        """The pair's name, unique within its kind."""
        ...

    def load(self, seed: int) -> Pair:
        """Read or make the pair."""
        ...


@dataclass(frozen=True)
class Stored:
    """A folder with ``ref.h5ad`` and ``src.h5ad``. Seed 0 takes the source as it lies; others turn it once more.

    With ``kind="stay"`` the source is laid where it belongs at first, and a method must not move it.
    """

    folder: Path
    kind: str = "truth"

    @property
    def name(self) -> str:
        """The folder's."""
        return self.folder.name

    def load(self, seed: int) -> Pair:
        """Read the pair."""
        ref, src = ad.read_h5ad(self.folder / "ref.h5ad"), ad.read_h5ad(self.folder / "src.h5ad")
        truth = json.loads(src.uns["truth"])
        true = np.array(src.obsm["spatial_true"], dtype=np.float64)
        if self.kind == "stay":
            src.obsm["spatial"] = true.copy()
        elif seed:
            _turn(src, self.name, seed)
        return Pair(
            kind=self.kind,
            name=self.name,
            level=truth["level"],
            seed=seed,
            ref=ref,
            src=src,
            labels_ref=_labels(ref, "label"),
            labels_src=_labels(src, "label"),
            xy_true=true,
            logged=(bool(src.uns["logged"]),) * 2,
            allow_reflection=bool(truth["mirrored"]),
        )


@dataclass(frozen=True)
class Made:
    """A pair made from one section by :func:`benchmarks.accuracy.generator.make_pair`; every seed makes another."""

    section: Path
    level: str
    inverted: bool
    kind: str = "made"

    @property
    def name(self) -> str:
        """Section, an "i" where the warp is inverted, and level."""
        return f"{self.section.stem}{'i' if self.inverted else ''}_{self.level}"

    def load(self, seed: int) -> Pair:
        """Make the pair."""
        section = ad.read_h5ad(self.section)
        label_key = "label" if "label" in section.obs else None
        ref, src = make_pair(
            section, self.level, inverted=self.inverted, label_key=label_key, rng=pair_generator(self.name, seed)
        )
        labels, matched = _labels(src, label_key), src.obs["matched"].to_numpy()
        if labels is not None:
            labels[~matched] = np.nan  # whom should they agree with?
        return Pair(
            kind=self.kind,
            name=self.name,
            level=self.level,
            seed=seed,
            ref=ref,
            src=src,
            labels_ref=_labels(ref, label_key),
            labels_src=labels,
            xy_true=src.obsm["spatial_true"],
            matched=matched,
            logged=(False, LEVELS[self.level].logged),
            allow_reflection=LEVELS[self.level].mirrored,
        )


@dataclass(frozen=True)
class Real:
    """Two sections. The source is turned at random and shifted by half its extent first, unless it is to stay.

    With ``in_register`` the stored frame is the truth.
    """

    name: str
    ref: Path
    src: Path
    label_key: str = "label"
    allow_reflection: bool = False
    in_register: bool = False
    kind: str = "real"

    def load(self, seed: int) -> Pair:
        """Read the sections."""
        ref, src = ad.read_h5ad(self.ref), ad.read_h5ad(self.src)
        true = np.array(src.obsm["spatial"], dtype=np.float64) if self.in_register else None
        if self.kind != "stay":
            _turn(src, self.name, seed)
        return Pair(
            kind=self.kind,
            name=self.name,
            level="real",
            seed=seed,
            ref=ref,
            src=src,
            labels_ref=_labels(ref, self.label_key),
            labels_src=_labels(src, self.label_key),
            xy_true=true,
            allow_reflection=self.allow_reflection,
        )


def _labels(adata: AnnData, key: str | None) -> np.ndarray | None:
    return None if key is None or key not in adata.obs else adata.obs[key].to_numpy(dtype=object).copy()


def pair_generator(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _turn(src: AnnData, name: str, seed: int) -> None:
    """Turn a section's coordinates at random, and shift them by half the extent, in place."""
    rng = pair_generator(name, seed)
    xy = np.array(src.obsm["spatial"], dtype=np.float64)
    angle = rng.uniform(0, 2 * np.pi)
    shift = 0.5 * np.ptp(xy, axis=0).max() * np.array([np.cos(angle), np.sin(angle)])
    matrix = rigid_matrix(xy, rng.uniform(0, 360), shift, mirrored=False)
    src.obsm["spatial"] = xy @ matrix[:, :2].T + matrix[:, 2]


def real_pairs(data: Path) -> list[Real]:
    """Return the real pairs, whether or not their files are there."""
    dlpfc, her2, embryo = data / "dlpfc", data / "her2st", data / "seqfish_embryo"
    starmap, merfish, droso = data / "starmap_mpfc", data / "merfish_hypothalamus", data / "stereoseq_drosophila"
    return [
        Real("dlpfc_73_74", dlpfc / "151673.h5ad", dlpfc / "151674.h5ad"),
        Real("dlpfc_75_76", dlpfc / "151675.h5ad", dlpfc / "151676.h5ad"),
        Real("starmap_BZ5_BZ9", starmap / "BZ5.h5ad", starmap / "BZ9.h5ad"),
        Real("merfish_21_26", merfish / "bregma+0.21.h5ad", merfish / "bregma+0.26.h5ad"),
        Real("droso_S01_S02", droso / "E14-16h_a_S01.h5ad", droso / "E14-16h_a_S02.h5ad", allow_reflection=True),
        Real("embryo1_z2_z5", embryo / "embryo1_z2.h5ad", embryo / "embryo1_z5.h5ad", in_register=True),
        Real("her2_A1_A2", her2 / "A1.h5ad", her2 / "A2.h5ad", label_key="expression_cluster"),
    ]


def recipes(data: Path, patterns: list[str]) -> list[Recipe]:
    """Return the pairs below a folder whose ``kind/name`` fits one of the patterns.

    Parameters
    ----------
    data
        ``truth/<pair>/{ref,src}.h5ad`` are stored pairs, ``<study>/<section>.h5ad`` sections to make pairs of, and the
        files of :func:`real_pairs` real ones. What is not there is left out.
    patterns
        As ``truth/*``, ``real/dlpfc*``, ``stay/*``, ``made/151674_*``.
    """
    stored = sorted(folder.parent for folder in data.glob("truth/*/src.h5ad"))
    real = [pair for pair in real_pairs(data) if pair.ref.exists() and pair.src.exists()]
    made = [
        Made(section, level, inverted)
        for section in sorted(data.glob("*/*.h5ad"))
        for inverted in (False, True)
        for level in LEVELS
    ]
    found: list[Recipe] = [
        *(Stored(folder) for folder in stored),
        *(Stored(folder, kind="stay") for folder in stored if folder.name.endswith("_rigid")),
        *real,
        *(Real(p.name, p.ref, p.src, p.label_key, in_register=True, kind="stay") for p in real if p.in_register),
        *made,
    ]
    return [pair for pair in found if any(fnmatch(f"{pair.kind}/{pair.name}", pattern) for pattern in patterns)]
