"""Run what the paper's tables need: ``python -m benchmarks.reproduction --data PATH --out DIR``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import anndata as ad

from benchmarks.accuracy.__main__ import fill, names_of_methods, numbers
from benchmarks.accuracy.methods import ABLATIONS
from benchmarks.accuracy.pairs import Pair
from benchmarks.accuracy.results import Results
from benchmarks.accuracy.runs import Extras
from benchmarks.reproduction.tables import write_tables

ABLATED = "D3"
METHODS = "raw,icp,rigid,default"


@dataclass(frozen=True)
class Published:
    """Two sections as they lie; with ``on_grid`` at the rows and columns of their array."""

    name: str
    ref: Path
    src: Path
    on_grid: bool = False
    kind: str = "paper"

    def load(self, seed: int) -> Pair:
        """Read the sections."""
        ref, src = ad.read_h5ad(self.ref), ad.read_h5ad(self.src)
        if self.on_grid:
            for adata in (ref, src):
                adata.obsm["spatial"] = adata.obs[["array_row", "array_col"]].to_numpy(float)
        labels = (adata.obs["label"].to_numpy(dtype=object) for adata in (ref, src))
        labels_ref, labels_src = labels
        return Pair(
            kind=self.kind,
            name=self.name,
            level="real",
            seed=seed,
            ref=ref,
            src=src,
            labels_ref=labels_ref,
            labels_src=labels_src,
        )


def published_pairs(data: Path) -> list[Published]:
    """Return the pairs of the paper's first table whose files are there."""
    dlpfc, starmap, merfish = data / "dlpfc", data / "starmap_mpfc", data / "merfish_hypothalamus"
    pairs = [
        Published("D3", dlpfc / "151675.h5ad", dlpfc / "151676.h5ad", on_grid=True),
        Published("D3 (151673 and 151674)", dlpfc / "151673.h5ad", dlpfc / "151674.h5ad", on_grid=True),
        Published("ST", starmap / "BZ5.h5ad", starmap / "BZ9.h5ad"),
        Published("MH", merfish / "bregma+0.21.h5ad", merfish / "bregma+0.26.h5ad"),
    ]
    return [pair for pair in pairs if pair.ref.exists() and pair.src.exists()]


def main(arguments: list[str] | None = None) -> int:
    """Run what is not in the table yet, the quick first, then write the tables."""
    options = _parser().parse_args(arguments)
    results = Results(options.out / "reproduction.csv")
    if not options.report_only:
        pairs = [pair for pair in published_pairs(options.data) if fnmatch(pair.name, options.pairs)]
        if not pairs:
            sys.exit(f"None of the paper's pairs that fit --pairs {options.pairs} is below {options.data}.")
        ablated = [pair for pair in pairs if pair.name == ABLATED]
        extras = Extras(embedding=True)
        of_default, of_paper = (
            [name for name in ABLATIONS if name.startswith(prefixes)] for prefixes in (("default", "nofield"), "paper")
        )
        again = {"redo": options.redo}
        fill(results, pairs, options.methods, options.seeds, extras, **again)
        if options.ablations:
            fill(results, ablated, ["default-nofield", *of_default], options.seeds, extras, **again)
        fill(results, pairs, ["paper"], options.paper_seeds, extras, **again)
        if options.ablations:
            fill(results, ablated, of_paper, options.paper_seeds, extras, **again)
    write_tables(results.table, options.out, ablated=ABLATED)
    print(f"wrote {options.out}/reproduction.csv and reproduction.md")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduction", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sections")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--pairs", default="*", help="pattern of names of pairs: D3, D3 (151673 and 151674), ST, MH")
    methods = "other methods than the paper's preset, of those of benchmarks.accuracy"
    parser.add_argument("--methods", type=names_of_methods, default=METHODS, help=methods)
    parser.add_argument("--seeds", type=numbers, default="0,1,2", help="of these, as 0,1,2 or 0-9")
    parser.add_argument("--paper-seeds", type=numbers, default="0", help="of the paper's preset, which takes minutes")
    parser.add_argument("--ablations", action="store_true", help="leave parts out of both presets as well (table 3)")
    parser.add_argument("--redo", action="store_true", help="run again what is in the table already")
    parser.add_argument("--report-only", action="store_true", help="run nothing, only write the tables")
    return parser


if __name__ == "__main__":
    sys.exit(main())
