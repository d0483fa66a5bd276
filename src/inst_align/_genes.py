"""Which genes two sections have in common, and why they might have none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

from inst_align._checks import listing, unique_var_names

if TYPE_CHECKING:
    from anndata import AnnData

_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}")
_VERSION = re.compile(r"\.\d+$")


def shared_genes(adata_ref: AnnData, adata_src: AnnData) -> tuple[str, ...]:
    """Return the gene names that both sections have, sorted.

    Raises
    ------
    ValueError
        Names are duplicated, or no name is shared.
    """
    unique_var_names(adata_ref, "reference")
    unique_var_names(adata_src, "source")
    shared = set(adata_ref.var_names) & set(adata_src.var_names)
    if not shared:
        raise ValueError(
            f"`adata_ref` and `adata_src` share no gene names: the reference has {adata_ref.n_vars} "
            f"({listing(adata_ref.var_names)}), the source {adata_src.n_vars} ({listing(adata_src.var_names)}); "
            f"{_way_out(adata_ref, adata_src)}."
        )
    return tuple(sorted(shared))


def _way_out(adata_ref: AnnData, adata_src: AnnData) -> str:
    """Say which renaming would make the names meet, if one does."""
    ref, src = set(adata_ref.var_names), set(adata_src.var_names)
    case = len({gene.upper() for gene in ref} & {gene.upper() for gene in src})
    if case:
        return f"{case} names match when case is ignored, so write both in the same case"
    version = len({_VERSION.sub("", gene) for gene in ref} & {_VERSION.sub("", gene) for gene in src})
    if version:
        return f"{version} names match without their version suffix (such as '.1'), so remove it from `var_names`"
    for adata, name, others in ((adata_ref, "reference", src), (adata_src, "source", ref)):
        for column in adata.var.columns:
            if not pd.api.types.is_numeric_dtype(adata.var[column]):
                found = len(set(adata.var[column].astype(str)) & others)
                if found:
                    return f"{found} names match `var[{column!r}]` of the {name}, so make that its `var_names`"
    if _mostly_ensembl(ref) != _mostly_ensembl(src):
        return "one has Ensembl identifiers and the other symbols, so make both the same"
    return "give both the same kind of gene names"


def _mostly_ensembl(names: set[str]) -> bool:
    return 2 * sum(_ENSEMBL.match(name) is not None for name in names) > len(names)
