"""How a check speaks: the sections' names, short lists, and warnings at the line that can do something about them."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Role = Literal["reference", "source"]

ARGUMENTS: dict[Role, str] = {"reference": "adata_ref", "source": "adata_src"}


def warn_user(message: str) -> None:
    """Emit a ``UserWarning`` that points at the first line outside this package, which is where it can be acted on."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("inst_align."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def listing(names: Iterable[object], limit: int = 3) -> str:
    """Return the first few names as words, and how many more there are."""
    names = list(names)
    if not names:
        return "none"
    shown = ", ".join(repr(str(name)) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
