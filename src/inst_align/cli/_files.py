"""Sections and pictures on disk: what is to be read, and where outputs may go."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

from inst_align.pl._report import is_report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from anndata import AnnData

SECTION_SUFFIXES = (".h5ad", ".zarr")
PLOT_SUFFIXES = (".pdf", ".png", ".svg")
REPORT_SUFFIXES = (".html",)
OTHERS = {"plot": PLOT_SUFFIXES, "report": REPORT_SUFFIXES}
"""Suffixes of outputs that are no sections, by the name of their argument."""


def check_inputs(inputs: Mapping[str, Path]) -> None:
    """Raise unless every input, by the name of its argument, is there and has a known suffix."""
    for name, path in inputs.items():
        _check_suffix(name, path, SECTION_SUFFIXES)
        if not path.exists():
            raise FileNotFoundError(f"`{name}`: there is no {str(path)!r}; check the path.")


def check_outputs(
    outputs: Mapping[str, Path],
    inputs: Mapping[str, Path],
    *,
    overwrite: bool,
    others: Mapping[str, tuple[str, ...]] = OTHERS,
) -> None:
    """Raise unless every output can be written and is a file of its own, so that no work is done in vain.

    Parameters
    ----------
    outputs, inputs
        Paths by the name of their argument.
    overwrite
        Whether an output may be an input.
    others
        Suffixes of outputs that are no sections.
    """
    seen: dict[str, Path] = {}
    for name, path in outputs.items():
        _check_suffix(name, path, others.get(name, SECTION_SUFFIXES))
        _check_place(name, path)
        for other, input_path in inputs.items():
            if _same(path, input_path) and not overwrite:
                raise ValueError(
                    f"`{name}`: {str(path)!r} is the {other}; choose another name, or pass --overwrite to replace it."
                )
        for other, earlier in seen.items():
            if _same(path, earlier):
                raise ValueError(f"`{name}`: {str(path)!r} is also `{other}`; choose another name.")
        seen[name] = path


def _check_suffix(name: str, path: Path, suffixes: tuple[str, ...]) -> None:
    if path.suffix not in suffixes:
        raise ValueError(f"`{name}`: {str(path)!r} does not end in {' or '.join(suffixes)}; give a path that does.")


def _check_place(name: str, path: Path) -> None:
    """Check that a new entry can be made in the folder, and that what it would replace is of its own kind."""
    path = path.resolve()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"`{name}`: there is no folder {str(path.parent)!r}; make it first.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"`{name}`: nothing can be written into {str(path.parent)!r}; choose another folder.")
    if path.suffix == ".zarr" and path.exists() and not _is_store(path):
        raise ValueError(f"`{name}`: {str(path)!r} is there and is no AnnData; choose another name.")
    if path.suffix != ".zarr" and path.is_dir():
        raise IsADirectoryError(f"`{name}`: {str(path)!r} is a folder; choose another name.")
    if path.suffix in REPORT_SUFFIXES and path.exists() and not is_report(path):
        raise FileExistsError(f"`{name}`: {str(path)!r} is there and is no report; choose another name.")


def _is_store(path: Path) -> bool:
    """Return whether a folder is an AnnData in zarr's format, and not, say, a SpatialData or somebody's pictures."""
    import zarr

    try:
        return bool(zarr.open_group(path, mode="r").attrs.get("encoding-type") == "anndata")
    except (OSError, ValueError):
        return False


def _same(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()


def read_section(path: Path, name: str) -> AnnData:
    """Read an AnnData from ``.h5ad`` or ``.zarr``.

    Raises
    ------
    ValueError
        The file holds something else.
    """
    from anndata.io import read_h5ad, read_zarr

    try:
        return read_zarr(path) if path.suffix == ".zarr" else read_h5ad(path)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"`{name}`: {str(path)!r} cannot be read as AnnData ({error}).") from error


def read_landmarks(path: Path) -> dict[str, np.ndarray]:
    """Read pairs of points, arrays of shape ``(k, 2)`` by the name of the argument that they are for.

    Raises
    ------
    KeyError, OSError, ValueError
        The file is not there, is no table, or lacks a column.
    """
    import pandas as pd

    _check_suffix("landmarks", path, (".csv",))
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"`landmarks`: there is no {str(path)!r}; check the path.") from None
    except ValueError as error:
        raise ValueError(f"`landmarks`: {str(path)!r} cannot be read as a table ({error}).") from error
    columns = {f"landmarks_{section}": [f"x_{section}", f"y_{section}"] for section in ("ref", "src")}
    missing = [name for names in columns.values() for name in names if name not in table]
    if missing:
        raise KeyError(
            f"`landmarks`: {str(path)!r} has no column {', '.join(missing)}; its columns are {', '.join(table)}."
        )
    return {argument: table[names].to_numpy() for argument, names in columns.items()}


def write_section(adata: AnnData, path: Path) -> None:
    """Write an AnnData by the suffix of the path."""
    if path.suffix == ".h5ad":
        adata.write_h5ad(path, compression="gzip")
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions of the format, which nobody at a shell can choose
        adata.write_zarr(path)
