"""From a column, a gene or nothing at all to one colour per cell, the same in both sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.cm import ScalarMappable

    Palette = str | Sequence[str] | Mapping[str, str]

SECTION_COLORS = ("#0072B2", "#E69F00")
"""Blue and orange, which every common form of colour vision tells apart."""

CATEGORY_COLORS = (
    "#332288",
    "#88CCEE",
    "#CC6677",
    "#DDCC77",
    "#117733",
    "#AA4499",
    "#44AA99",
    "#882255",
    "#999933",
)
"""Paul Tol's muted scheme, safe for colour-blind readers."""

MISSING_COLOR = "#D0D0D0"


@dataclass(frozen=True, kw_only=True, eq=False)
class Coloring:
    """One colour per cell and what a reader needs to understand it.

    Parameters
    ----------
    rgba
        Shape ``(n_ref + n_src, 4)``, the reference's cells first.
    name
        What the colours stand for; ``None`` when they stand for the sections themselves.
    legend
        Colour by label, in the order to be shown; empty for numbers.
    scale
        Colour scale of numbers.
    extend
        Ends at which values lie beyond the scale, as for ``Figure.colorbar``.
    missing
        Whether some cells have no value.
    """

    rgba: np.ndarray
    name: str | None = None
    legend: dict[str, str] = field(default_factory=dict)
    scale: ScalarMappable | None = None
    extend: str = "neither"
    missing: bool = False


def color_cells(
    adata_ref: AnnData, adata_src: AnnData, color: str | None, *, palette: Palette | None, cmap: str
) -> Coloring:
    """Return the colours of all cells: by section (``None``), by a column of obs, or by a gene."""
    if color is None:
        return _by_section(adata_ref.n_obs, adata_src.n_obs, palette)
    both = (adata_ref, adata_src)
    if all(color in adata.obs for adata in both):
        columns = [adata.obs[color] for adata in both]
        if all(_is_numeric(column) for column in columns):
            values = np.concatenate([column.to_numpy(dtype=np.float64, na_value=np.nan) for column in columns])
            return _by_value(values, color, cmap=cmap)
        stored = [_stored_colors(adata, color) for adata in both]
        return _by_category(columns, color, palette=palette, stored=stored)
    if all(color in adata.var_names for adata in both):
        return _by_value(np.concatenate([_gene(adata, color) for adata in both]), color, cmap=cmap, top=99.0)
    raise KeyError(_not_found(adata_ref, adata_src, color))


def _by_section(n_ref: int, n_src: int, palette: Palette | None) -> Coloring:
    from matplotlib.colors import to_rgba_array

    legend = _assign(["reference", "source"], palette, fallback=SECTION_COLORS)
    return Coloring(rgba=np.repeat(to_rgba_array(list(legend.values())), [n_ref, n_src], axis=0), legend=legend)


def _by_category(
    columns: Sequence[pd.Series], name: str, *, palette: Palette | None, stored: Sequence[Sequence[str]]
) -> Coloring:
    from matplotlib.colors import to_rgba_array

    factors = [pd.Categorical(column) for column in columns]
    labels = [[str(category) for category in factor.categories] for factor in factors]
    known: dict[str, str] = {}
    if palette is None:
        for names, colors in zip(reversed(labels), reversed(stored)):  # where both have a say, the reference has it
            known |= dict(zip(names, colors)) if len(colors) >= len(names) else {}
    legend = _assign(list(dict.fromkeys([*labels[0], *labels[1]])), known if palette is None else palette)
    place = {label: i for i, label in enumerate(legend)}
    # a missing value has code -1, and so takes the last entry of both look-up tables
    codes = np.concatenate([np.array([*(place[n] for n in names), -1])[f.codes] for names, f in zip(labels, factors)])
    rgba = to_rgba_array([*legend.values(), MISSING_COLOR])[codes]
    shown = {label: color for label, color in legend.items() if (codes == place[label]).any()}
    return Coloring(rgba=rgba, name=name, legend=shown, missing=bool((codes == -1).any()))


def _by_value(values: np.ndarray, name: str, *, cmap: str, top: float | None = None) -> Coloring:
    """Colour numbers on one scale, from the lowest to the highest or, if given, a percentile of them."""
    import matplotlib as mpl
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    finite = values[np.isfinite(values)]
    low, highest = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    high = highest if top is None or not len(finite) else np.percentile(finite, top)
    if high <= low:  # a gene that fewer than one cell in a hundred expresses, or all of them equally
        high = highest if highest > low else low + 1.0
    scale = ScalarMappable(Normalize(low, high), mpl.colormaps[cmap].with_extremes(bad=MISSING_COLOR))
    rgba = scale.to_rgba(np.ma.masked_invalid(values))
    extend = "max" if highest > high else "neither"
    return Coloring(rgba=rgba, name=name, scale=scale, extend=extend, missing=len(finite) < len(values))


def _is_numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _stored_colors(adata: AnnData, name: str) -> list[str]:
    return [str(color) for color in adata.uns.get(f"{name}_colors", [])]


def _gene(adata: AnnData, gene: str) -> np.ndarray:
    """Return one gene's values, shape ``(n,)``; only its own column is made dense."""
    column = adata[:, gene].X
    return np.asarray(column.toarray() if hasattr(column, "toarray") else column, dtype=np.float64).ravel()


def _assign(names: list[str], palette: Palette | None, *, fallback: Sequence[str] = ()) -> dict[str, str]:
    """Return a colour per name; a mapping that lacks some names is filled up with colours that it does not use."""
    from matplotlib.colors import to_hex

    given = palette if isinstance(palette, Mapping) else {}
    if palette is None or isinstance(palette, Mapping):
        colors = fallback or _distinct_colors(len(names))
    else:
        colors = _sample(palette, len(names)) if isinstance(palette, str) else palette
    chosen = {name: to_hex(given[name]) for name in names if name in given}
    free = [color for color in map(to_hex, colors) if color not in chosen.values()] or [to_hex(c) for c in colors]
    rest = dict(zip((name for name in names if name not in chosen), cycle(free)))
    return {name: chosen.get(name) or rest[name] for name in names}


def _distinct_colors(n: int) -> Sequence[str]:
    if n <= len(CATEGORY_COLORS):
        return CATEGORY_COLORS
    if n <= 20:
        return _sample("tab20", n)
    return _sample("turbo", n)


def _sample(cmap: str, n: int) -> list[str]:
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    colormap = mpl.colormaps[cmap]
    qualitative = colormap.N <= 20
    return [to_hex(c) for c in colormap(np.arange(n) % colormap.N if qualitative else np.linspace(0, 1, n))]


def _not_found(adata_ref: AnnData, adata_src: AnnData, color: str) -> str:
    places = []
    for section, adata in (("reference", adata_ref), ("source", adata_src)):
        columns = ", ".join(map(repr, sorted(map(str, adata.obs.columns)))) or "none"
        found = (
            "obs" if color in adata.obs else "var_names" if color in adata.var_names else "neither obs nor var_names"
        )
        genes = ", ".join(map(repr, adata.var_names[:3]))
        places.append(
            f"the {section} has it in {found} (obs columns: {columns}; {adata.n_vars} genes, such as {genes})"
        )
    return (
        f"`color={color!r}`: {' and '.join(places)}; give a column of obs, or a gene, that both sections have, "
        "or None to colour by section."
    )
