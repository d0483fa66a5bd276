"""One file that shows a person whether to trust an alignment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inst_align import _keys, get
from inst_align._checks import warn_user
from inst_align._coordinates import coordinates_hash
from inst_align._record import read_record
from inst_align._replace import replacing
from inst_align.pl._report.page import GENERATOR, page
from inst_align.pl._report.sections import read_sections

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData

    from inst_align.pl._report.sections import Sections

__all__ = ["is_report", "report"]


def report(
    adata_ref: AnnData,
    adata_src: AnnData,
    path: str | PathLike[str],
    *,
    key: str = _keys.SPATIAL_ALIGNED,
    color: str | None = None,
    title: str | None = None,
    invert_y: bool = False,
    max_cells: int = 20_000,
    overwrite: bool = False,
) -> Path:
    """Write what a run found out about its result as one HTML file, to be opened in a browser and passed on.

    The verdict comes first, with what it means and what to do next. Then both sections over each other, with a slider
    that takes the source from where it was to where the map puts it; how the map bends the tissue; each cell's overlap
    and uncertainty where they are in ``obs``; all numbers, the losses and the parameters. The file needs no network:
    pictures and cells are in it.

    Parameters
    ----------
    adata_ref
        The section that stayed in place.
    adata_src
        The section that was moved, with the record of the run.
    path
        Where to write; ends in ``.html``.
    key
        The ``key_added`` of the run.
    color
        A column of ``obs``, or a gene, that both sections have, to colour the cells by as well.
    title
        Heading of the page.
    invert_y
        Let y grow downwards, as in images.
    max_cells
        Most cells of each section that the slider moves, chosen at random (the same on every call). The pictures show
        all.
    overwrite
        Whether to replace a report that is there. Anything else is never replaced.

    Returns
    -------
    The path. The file appears whole or not at all.

    Raises
    ------
    FileExistsError
        There is a file at ``path``, and ``overwrite`` is False or the file is no report.
    FileNotFoundError
        There is no folder to write into.
    KeyError
        Nothing is recorded under ``key``, or coordinates or ``color`` are missing.
    ValueError
        The sections were given the wrong way round, or the path does not end in ``.html``.

    Warns
    -----
    UserWarning
        If the cells of a section are not those that were aligned; the page says so too.

    Examples
    --------
    >>> import tempfile
    >>> import inst_align as ia
    >>> ref, src = ia.datasets.toy_pair(n_cells=300, n_genes=60, rng=0)
    >>> ia.pp.rigid_align(ref, src, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ia.pl.report(ref, src, f"{folder}/report.html", key="spatial_rigid").name
    'report.html'
    """
    path = Path(path)
    if max_cells < 1:
        raise ValueError(f"`max_cells={max_cells}` leaves no cell to show; give 1 or more.")
    found = get.report(adata_src, key)
    _check_place(path, overwrite=overwrite)
    sections = read_sections(adata_ref, adata_src, key)
    changed = _changes(adata_src, key, sections)
    for sentence in changed:
        warn_user(sentence)
    text = page(
        found,
        sections,
        adata_ref,
        adata_src,
        key=key,
        color=color,
        title=title,
        invert_y=invert_y,
        max_cells=max_cells,
        doubts=changed,
    )
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")
    return path


def _check_place(path: Path, *, overwrite: bool) -> None:
    """Raise unless a report may be written here."""
    if path.suffix != ".html":
        raise ValueError(f"`path`: {str(path)!r} does not end in .html; give a path that does.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"`path`: there is no folder {str(path.parent)!r}; make it first.")
    if not path.exists():
        return
    if not is_report(path):
        raise FileExistsError(
            f"`path`: {str(path)!r} is there and is no report, so it is not replaced; choose another name."
        )
    if not overwrite:
        raise FileExistsError(
            f"`path`: {str(path)!r} is there already; pass `overwrite=True` to replace it, or choose another name."
        )


def is_report(path: Path) -> bool:
    """Return whether a file says that this package has made it."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(2000)


def _changes(adata_src: AnnData, key: str, sections: Sections) -> list[str]:
    """Return a sentence for each section whose cells lie elsewhere than when they were aligned."""
    recorded = read_record(adata_src, key).get("coordinates", {})
    now = {_keys.ROLE_REFERENCE: sections.ref_stored, _keys.ROLE_SOURCE: sections.stored}
    return [
        f"The cells of the {role} are not those that were aligned (other places, or other cells): the numbers are of the "
        f"run, the pictures of what was passed now."
        for role, xy in now.items()
        if role in recorded and recorded[role] != coordinates_hash(xy)
    ]
