"""The objects themselves: their kind, their names, and whether results can be written to them."""

from __future__ import annotations

from collections.abc import Mapping

from anndata import AnnData

from inst_align._checks._words import ARGUMENTS, Role, listing, warn_user
from inst_align._keys import UNS, cell_columns


def check_anndata(adata: object, argument: str) -> None:
    """Raise TypeError unless ``adata`` is an AnnData."""
    if not isinstance(adata, AnnData):
        hint = " or call `ia.tl.align_spatialdata`" if type(adata).__name__ == "SpatialData" else ""
        raise TypeError(f"`{argument}` is a {type(adata).__module__}.{type(adata).__name__}; pass an AnnData{hint}.")


def unique_var_names(adata: AnnData, name: Role) -> None:
    """Raise ValueError when a gene name stands for more than one column."""
    if not adata.var_names.is_unique:
        twice = adata.var_names[adata.var_names.duplicated()].unique()
        raise ValueError(
            f"`var_names` of the {name}: {len(twice)} gene names occur more than once ({listing(twice)}); "
            f"call `adata.var_names_make_unique()` first."
        )


def warn_of_repeated_cells(adata: AnnData, name: Role) -> None:
    """Warn when cells share a name, which changes nothing here but may where results are joined by name."""
    if not adata.obs_names.is_unique:
        twice = adata.obs_names[adata.obs_names.duplicated()].unique()
        warn_user(
            f"`obs_names` of the {name}: {len(twice)} names stand for more than one cell ({listing(twice)}); results "
            f"are written by position, so none is mixed up, but call `adata.obs_names_make_unique()` before you join "
            f"anything by name."
        )


def check_copy(adata_ref: AnnData, adata_src: AnnData, *, copy: bool) -> None:
    """Raise ValueError when a copy is asked for of an object whose matrix is in a file."""
    sections: dict[Role, AnnData] = {"reference": adata_ref, "source": adata_src}
    for name, adata in sections.items():
        if copy and isinstance(adata, AnnData) and adata.isbacked:
            raise ValueError(
                f"`copy=True`: the {name} is backed by a file, which cannot be copied in memory; leave out `copy` (only "
                f"the object in memory changes, the file never does), or pass `{ARGUMENTS[name]}.to_memory()`."
            )


def check_key_added(adata: AnnData, key_added: str, name: str, *, spatial_key: str | None) -> None:
    """Raise ValueError when writing under ``key_added`` would be impossible or would destroy a user's own array."""
    where = f"`key_added={key_added!r}`"
    if not isinstance(key_added, str) or not key_added or "/" in key_added:
        raise ValueError(f"{where} cannot be a key on disk; pass a string without '/'.")
    if key_added == spatial_key:
        raise ValueError(f"{where} is also `spatial_key`, and input is never overwritten; pass another `key_added`.")
    if adata.is_view and adata.isbacked:
        raise ValueError(
            f"{where}: the {name} is a view of a file, which cannot be written to; pass `adata.to_memory()`."
        )
    ours = adata.uns.get(UNS, {})
    if not isinstance(ours, Mapping):
        raise ValueError(
            f"{where}: `uns[{UNS!r}]` of the {name} is a {type(ours).__name__} that this package did not write; rename it."
        )
    if key_added in adata.obsm and key_added not in ours:
        raise ValueError(
            f"{where}: `obsm[{key_added!r}]` is already there in the {name} and not this package's own; "
            f"pass another `key_added`."
        )
    columns = [column for column in cell_columns(key_added) if column in adata.obs]
    if columns and key_added not in ours:
        raise ValueError(
            f"{where}: `obs[{columns[0]!r}]` is already there in the {name} and not this package's own; rename it, or pass "
            f"another `key_added`."
        )
