"""The page: words, tables, pictures and cells put into one template."""

from __future__ import annotations

import json
import math
import platform
from base64 import b64encode
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align import __version__, get
from inst_align._report_findings import findings
from inst_align._report_words import doubts_about, verdict_in_words
from inst_align.pl._report import figures
from inst_align.pl._report.overlay import scene

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData

    from inst_align._report import RunReport
    from inst_align.pl._report.figures import Picture
    from inst_align.pl._report.sections import Sections

GENERATOR = "inst-align report"
"""What a page says of who has made it."""
MARKS = {"good": "&#10003;", "check": "?", "bad": "&#10005;"}
LIBRARIES = ("anndata", "numpy", "scipy", "torch", "scanpy", "matplotlib")
SHORT = 8
"""Numbers of an array that are shown."""


def page(
    report: RunReport,
    sections: Sections,
    adata_ref: AnnData,
    adata_src: AnnData,
    *,
    key: str,
    color: str | None,
    title: str | None,
    invert_y: bool,
    max_cells: int,
    doubts: Sequence[str],
) -> str:
    """Return the page as text; for the arguments see :func:`inst_align.pl.report`.

    Parameters
    ----------
    doubts
        Reasons not to trust the result that the report does not know of.
    """
    reasons = [*doubts, *doubts_about(report)]
    said = verdict_in_words(report, reasons)
    n_ref, n_src = adata_ref.n_obs, adata_src.n_obs
    cells = scene(sections, adata_ref, adata_src, color=color, invert_y=invert_y, max_cells=max_cells)
    return _template("page.html").substitute(
        generator=GENERATOR,
        title=escape(title or "Alignment of two sections"),
        subtitle=f"{n_src:,} cells of the source in the frame of the {n_ref:,} cells of the reference: "
        f"<code>obsm[{escape(repr(key))}]</code>",
        style=_text("page.css"),
        tone=said.tone,
        mark=MARKS[said.tone],
        label=escape(said.label),
        name="" if report.verdict is None else f"<span class='name'>verdict: {escape(report.verdict)}</span>",
        verdict=escape(said.title),
        meaning=_prose(said.meaning),
        advice=_prose(said.advice),
        doubts=_listed(reasons),
        tiles=_tiles(report),
        starts=_starts(bent=sections.bent),
        end="After the map" if sections.bent else "After the pose",
        shown=escape(_shown(sections, max_cells)),
        fallback=_figure(figures.before_and_after(sections, adata_ref, adata_src, invert_y=invert_y)),
        pictures="\n".join(map(_section, _pictures(sections, adata_ref, adata_src, key=key, invert_y=invert_y))),
        findings=_table(findings(report), "findings"),
        stored=_table(_flat(report), "stored"),
        convergence=_section(figures.losses(adata_src, key=key)) if report.convergence else "",
        parameters=_table(_flat(get.params(adata_src, key)), "run"),
        versions=_table(_versions(), "run"),
        scene=_json(cells),
        script=_text("page.js"),
    )


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _template(name: str) -> Template:
    return Template(_text(name))


def _json(value: object) -> str:
    """Return JSON that cannot end the script element it stands in."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _prose(text: str) -> str:
    """Return escaped text in which what stands between backticks is code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def _listed(reasons: Iterable[str]) -> str:
    items = "".join(f"<li>{_prose(reason)}</li>" for reason in reasons)
    return f"<p><strong>Doubts.</strong></p><ul>{items}</ul>" if items else ""


def _tiles(report: RunReport) -> str:
    """Return the few numbers that matter most."""
    tiles: list[tuple[str, str, str]] = []
    rigid, bent, found = report.heldout_correlation_rigid, report.heldout_correlation_nonrigid, report.agreement
    if found is not None and math.isnan(found.correlation):
        found = None
    chance = "" if found is None else f"; {found.null:.2f} for unrelated sections"
    if rigid is not None and bent is not None:
        note = f"correlation of genes kept out of a trial fit, after the pose and after bending{chance}"
        tiles.append(("Agreement", f"{rigid:.2f} &rarr; {bent:.2f}", note))
    elif found is not None:
        tiles.append(("Agreement", f"{found.correlation:.2f}", f"correlation of {found.genes} at the pose{chance}"))
    elif report.pose_score is not None:
        rival = report.pose_runner_up
        note = "of at most 1" if rival is None or rival <= -1 else f"of at most 1; the best rival pose has {rival:.2f}"
        tiles.append(("Score of the pose", f"{report.pose_score:.2f}", note))
    if report.overlap is not None:
        tiles.append(("Overlap", f"{report.overlap:.1%}", "of the source's cells lie on the reference"))
    elif report.pose_overlap is not None:
        tiles.append(("Overlap", f"{report.pose_overlap:.1%}", "of the smaller section"))
    if report.displacement_max and report.displacement_median is not None:
        note = f"at the median, {report.displacement_max:.1f} nd at most, beyond the pose"
        tiles.append(("Bent by", f"{report.displacement_median:.1f} nd", note))
        if report.fold_fraction is not None:
            folds = "none" if report.fold_fraction == 0 else f"{report.fold_fraction:.2%}"
            tiles.append(("Folds", folds, "cells at which the map has no inverse"))
    elif report.angle is not None:
        tiles.append(("Turned by", f"{report.angle:.0f}&deg;", "mirrored" if report.mirrored else "not mirrored"))
    if report.position_sd_median is not None:
        tiles.append(
            ("Uncertainty", f"{report.position_sd_median:.2g} nd", "by which half of the cells may be off, or less")
        )
    if not tiles:
        return ""
    body = "".join(
        f"<div class='tile'><dt>{name}</dt><dd class='value'>{value}</dd><dd class='note'>{note}</dd></div>"
        for name, value, note in tiles
    )
    unit = "<p class='muted small'>nd: the median distance between neighbouring cells of the reference.</p>"
    return f"<dl class='tiles'>{body}</dl>{unit if ' nd' in body else ''}"


def _starts(*, bent: bool) -> str:
    starts = {"stored": "as stored"} | ({"posed": "after the pose"} if bent else {})
    return "".join(
        f"<label><input type='radio' name='start' value='{value}'{' checked' if value == 'stored' else ''}>{words}</label>"
        for value, words in starts.items()
    )


def _shown(sections: Sections, max_cells: int) -> str:
    """Return which cells the slider moves."""
    counts = {
        name: int(np.isfinite(xy[:, 0]).sum()) for name, xy in (("reference", sections.ref), ("source", sections.moved))
    }
    few = [f"{max_cells:,} of {n:,} cells of the {name}" for name, n in counts.items() if n > max_cells]
    words = "The bar is in the reference's unit. "
    return words + (f"Shown are {' and '.join(few)}, chosen at random." if few else "All cells with a place are shown.")


def _pictures(sections: Sections, adata_ref: AnnData, adata_src: AnnData, *, key: str, invert_y: bool) -> list[Picture]:
    found = [
        figures.bending(adata_src, sections, key=key, invert_y=invert_y) if sections.bent else None,
        figures.overlap(sections, adata_ref, adata_src, key=key, invert_y=invert_y),
        figures.uncertainty(sections, adata_src, key=key, invert_y=invert_y),
    ]
    return [picture for picture in found if picture is not None]


def _section(picture: Picture) -> str:
    return f"<section><h2>{escape(picture.title)}</h2>{_figure(picture)}</section>"


def _figure(picture: Picture) -> str:
    source = b64encode(picture.png).decode("ascii")
    return (
        f"<figure><img alt='{escape(picture.alt)}' src='data:image/png;base64,{source}'>"
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _table(rows: Iterable[tuple[str, str]], kind: str) -> str:
    body = "".join(f"<tr><th scope='row'>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<table class='{kind}'><tbody>{body}</tbody></table>"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return names, with dots for what is nested, and values as text."""
    rows: list[tuple[str, str]] = []
    for name, value in sorted(values.items()):  # files keep no order
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", _value(value))]
    return rows


def _value(value: Any) -> str:
    if isinstance(value, np.ndarray):
        shown = ", ".join(_value(item) for item in value.ravel()[:SHORT].tolist())
        more = "" if value.size <= SHORT else f" ... ({value.size} in all)"
        return f"{shown}{more}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _versions() -> list[tuple[str, str]]:
    rows = [("inst-align", __version__), ("Python", platform.python_version())]
    for name in LIBRARIES:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:  # it need not be there to show a result
            continue
    return rows
