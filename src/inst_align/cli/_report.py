"""``inst-align report``: an aligned pair in, one page out that says how good the alignment is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inst_align._keys import SPATIAL_ALIGNED, SPATIAL_RIGID, UNS
from inst_align.cli import _files

if TYPE_CHECKING:
    from argparse import Namespace

    from anndata import AnnData


def report(options: Namespace) -> None:
    """Run the command.

    Raises
    ------
    KeyError, OSError, TypeError, ValueError
        Something that was given cannot be used; no file has changed then.
    """
    import inst_align as ia

    inputs = {"reference": options.reference, "source": options.source}
    _files.check_inputs(inputs)
    _files.check_outputs({"out": options.out}, inputs, overwrite=False, others={"out": _files.REPORT_SUFFIXES})
    ref, src = (_files.read_section(path, name) for name, path in inputs.items())
    key = options.key or _recorded(src)
    ia.pl.report(
        ref,
        src,
        options.out,
        key=key,
        color=options.color,
        title=options.title,
        invert_y=options.invert_y,
        overwrite=True,
    )
    if not options.quiet:
        print("\n".join([*ia.get.report(src, key).lines(), f"Written: {options.out}"]))


def _recorded(src: AnnData) -> str:
    """Return the name of the run to report: the non-rigid one, unless there is only a rigid one."""
    records = src.uns.get(UNS, {})
    return SPATIAL_RIGID if SPATIAL_RIGID in records and SPATIAL_ALIGNED not in records else SPATIAL_ALIGNED
