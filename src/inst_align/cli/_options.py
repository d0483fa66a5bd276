"""What can be said to ``inst-align``."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING

from inst_align import __version__
from inst_align._keys import SPATIAL, SPATIAL_ALIGNED, SPATIAL_RIGID

if TYPE_CHECKING:
    from argparse import _ArgumentGroup

DEMO = """
Align two sections of one made-up tissue, whose true alignment is known, and write pictures, the aligned data and a
table of errors into a folder. It takes less than a minute on two CPU cores.
"""
ALIGN = """
Align the source to the reference, guided by the expression measured on both, and write the source with its new
coordinates, the map and a report. Sections are AnnData in .h5ad or .zarr; the output is replaced only when all went
well.
"""
REPORT = """
Write what a run has found out about its own result as one HTML file for a browser, verdict first. The sections are the
reference as it went into the run, or as it came out, and the source as it came out.
"""
NAMES = "Messages name options as in Python: `spatial_key` there is --spatial-key here."


def parser() -> ArgumentParser:
    """Return the parser of all arguments; the name of the command comes as ``command``, None if none was given."""
    top = ArgumentParser(
        prog="inst-align",
        description="Align spatial transcriptomics sections, non-rigidly and guided by expression.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"inst-align {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    demo = commands.add_parser("demo", help="try it on made-up data", description=DEMO, allow_abbrev=False)
    _add_demo_options(demo)
    align = commands.add_parser(
        "align", help="align a section of yours to another", description=ALIGN, epilog=NAMES, allow_abbrev=False
    )
    _add_align_options(align)
    align.add_argument_group("reproducibility").add_argument(
        "--deterministic", action="store_true", help="the same bits in every run on CUDA, more slowly"
    )
    report = commands.add_parser("report", help="show how good an alignment is", description=REPORT, allow_abbrev=False)
    _add_report_options(report)
    for command in (demo, align):
        _add_common_options(command)
    _add_talk_options(report.add_argument_group("run"))
    return top


def _add_demo_options(command: ArgumentParser) -> None:
    command.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("inst_align_demo"),
        metavar="FOLDER",
        help="where to write; files of an earlier demo are replaced (default: %(default)s)",
    )
    command.add_argument(
        "--cells", type=int, default=1500, metavar="N", help="cells in each section (default: %(default)s)"
    )


def _add_align_options(command: ArgumentParser) -> None:
    command.add_argument("reference", type=Path, metavar="REF", help="the section that stays: .h5ad or .zarr")
    command.add_argument("source", type=Path, metavar="SRC", help="the section that moves: .h5ad or .zarr")
    files = command.add_argument_group("files")
    files.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE", help="where the aligned source goes: .h5ad or .zarr"
    )
    files.add_argument("--out-ref", type=Path, metavar="FILE", help="write the reference too, with its own record")
    files.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw both sections before and after: .png, .pdf, .svg"
    )
    files.add_argument("--report", type=Path, metavar="FILE", help="write how good the result is, as a page: .html")
    files.add_argument(
        "--color", metavar="KEY", help="column of obs, or gene, to colour the plot and the report by (default: section)"
    )
    files.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="keep the state of the fit in this folder: the same command goes on from there if it was stopped",
    )
    files.add_argument("--overwrite", action="store_true", help="allow the outputs to take the place of the inputs")
    method = command.add_argument_group("method")
    method.add_argument(
        "--preset", choices=("default", "paper"), default="default", help="INST-Align as published: paper"
    )
    method.add_argument("--rigid-only", action="store_true", help="find the rotation and the shift only")
    method.add_argument("--allow-reflection", action="store_true", help="allow the source to be a mirror image")
    method.add_argument(
        "--init",
        metavar="KEY",
        help="obsm key of the source that holds a rough alignment to start from (default: search)",
    )
    method.add_argument(
        "--landmarks",
        type=Path,
        metavar="FILE",
        help="points that belong together: a .csv with the columns x_ref, y_ref, x_src, y_src",
    )
    method.add_argument(
        "--landmark-weight", type=float, default=1.0, metavar="W", help="how much they count (default: %(default)s)"
    )
    data = command.add_argument_group("what to read and write")
    data.add_argument("--spatial-key", default=SPATIAL, metavar="KEY", help="obsm key of (x, y) (default: %(default)s)")
    data.add_argument("--layer", metavar="KEY", help="layer with the expression (default: X)")
    data.add_argument("--use-rep", metavar="KEY", help="obsm key of features to use instead of the expression")
    data.add_argument(
        "--scale",
        type=factor,
        metavar="FACTOR",
        help="multiply the source's coordinates by this, or 'estimate' it (default: both are in one unit)",
    )
    data.add_argument(
        "--nan-policy",
        choices=("error", "drop-from-fit"),
        default="error",
        help="what to do about cells without finite coordinates (default: %(default)s)",
    )
    data.add_argument("--no-normalize", action="store_true", help="the expression is normalised already")
    data.add_argument(
        "--key-added",
        metavar="KEY",
        help=f"obsm key of the result (default: {SPATIAL_ALIGNED}, or {SPATIAL_RIGID} with --rigid-only)",
    )


def _add_report_options(command: ArgumentParser) -> None:
    command.add_argument("reference", type=Path, metavar="REF", help="the section that stayed: .h5ad or .zarr")
    command.add_argument("source", type=Path, metavar="SRC", help="the section that moved: .h5ad or .zarr")
    command.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="where the page goes: .html")
    command.add_argument(
        "--key",
        metavar="KEY",
        help=f"name under which the run is recorded (default: {SPATIAL_ALIGNED}, or {SPATIAL_RIGID} where that is all)",
    )
    command.add_argument("--color", metavar="KEY", help="column of obs, or gene, to colour the cells by as well")
    command.add_argument("--title", metavar="TEXT", help="heading of the page")
    command.add_argument("--invert-y", action="store_true", help="let y grow downwards, as in images")


def factor(text: str) -> float | str:
    return text if text == "estimate" else float(text)


def _add_common_options(command: ArgumentParser) -> None:
    run = command.add_argument_group("run")
    run.add_argument(
        "--rng", type=int, default=0, metavar="SEED", help="seed; the same one gives the same result (default: 0)"
    )
    run.add_argument("--no-field", action="store_true", help="leave out the canonical field: faster")
    run.add_argument("--device", metavar="NAME", help="cpu, cuda or cuda:0 (default: cuda where there is any)")
    _add_talk_options(run)


def _add_talk_options(run: _ArgumentGroup) -> None:
    run.add_argument("--quiet", action="store_true", help="print warnings and errors only")
    run.add_argument("--debug", action="store_true", help="show where in the program an error arose")
