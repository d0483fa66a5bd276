"""How the losses of a fit went down."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from inst_align import _keys
from inst_align._history import by_stage
from inst_align._record import read_record
from inst_align.pl import _axes
from inst_align.pl._colors import CATEGORY_COLORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from matplotlib.axes import Axes

LINE_STYLES = ("-", "--", ":", "-.")


def convergence(adata_src: AnnData, *, key: str = _keys.SPATIAL_ALIGNED, ax: Axes | None = None) -> Axes:
    """Draw the loss terms of a fit against its steps.

    Terms that were recorded as ``"stage.term"`` (or ``"stage/term"``) are grouped by stage: one line style and one
    block of the legend each. Every stage starts at step 0. The vertical axis is logarithmic when all values are
    positive.

    Parameters
    ----------
    adata_src
        The section that was moved; it holds the record.
    key
        Name under which the alignment was recorded (its ``key_added``).
    ax
        Where to draw; ``None`` makes a figure.

    Returns
    -------
    The Axes drawn into.

    Raises
    ------
    KeyError
        When no losses are recorded under ``key``.

    Examples
    --------
    >>> import inst_align as ia
    >>> import numpy as np
    >>> from anndata import AnnData
    >>> from matplotlib.figure import Figure
    >>> record = {"version": 1, "role": "source", "history": {"field.total": np.array([3.0, 2.0, 1.5])}}
    >>> src = AnnData(np.zeros((2, 1)), uns={"inst_align": {"spatial_aligned": record}})
    >>> ia.pl.convergence(src, ax=Figure().subplots()).get_yscale()
    'log'
    """
    from matplotlib.lines import Line2D

    stages = by_stage(_history(adata_src, key))
    if ax is None:
        ax = _axes.new_panels([1.4])[0]
    colors = _term_colors(stages)
    entries = []
    for (stage, terms), style in zip(stages.items(), cycle(LINE_STYLES)):
        if stage:
            entries.append(Line2D([], [], linestyle="none", label=stage))
        for term, values in terms.items():
            entries += ax.plot(values, label=term, color=colors[term], linestyle=style, linewidth=1.2)
    values = np.concatenate([values for terms in stages.values() for values in terms.values()])
    if (values[np.isfinite(values)] > 0).all():
        ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    _axes.mute(ax)
    legend = _axes.outside_legend(ax, entries)
    for text in legend.get_texts():
        if text.get_text() in stages:
            text.set_fontweight("bold")
    return ax


def _history(adata: AnnData, key: str) -> dict[str, Any]:
    record = read_record(adata, key)
    history: dict[str, Any] = record.get("history", {})
    if not history:
        reason = "it is on the source" if record.get("role") == _keys.ROLE_REFERENCE else "nothing was fitted in steps"
        raise KeyError(f"`key={key!r}`: the record of this run holds no history ({reason}); pass the source of a fit.")
    return history


def _term_colors(stages: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, str]:
    """Return a colour per term, the same in all stages."""
    terms = dict.fromkeys(term for stage in stages.values() for term in stage)
    return dict(zip(terms, cycle(CATEGORY_COLORS)))
