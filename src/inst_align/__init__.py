"""Align spatial transcriptomics sections, non-rigidly and guided by expression, into one coordinate frame.

Import it as ``import inst_align as ia``. Its parts are loaded when they are first used, so that the import itself
costs little:

``ia.pp``
    Global, rigid alignment.
``ia.tl``
    Non-rigid alignment, embeddings, and moving anything else along a map.
``ia.pl``
    Plots; each returns its Axes.
``ia.get``
    What a run recorded: the map, the report, the parameters.
``ia.metrics``
    How good an alignment is: arrays in, numbers out.
``ia.datasets``
    Made-up sections whose true alignment is known, and public ones.
``ia.transforms``
    The map itself: call it, invert it, save it.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from inst_align import datasets, get, metrics, pl, pp, tl, transforms

__all__ = ["__version__", "datasets", "get", "metrics", "pl", "pp", "tl", "transforms"]

try:
    __version__ = version("inst-align")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"

_PARTS = set(__all__) - {"__version__"}


def __getattr__(name: str) -> ModuleType:
    """Load a part of the package when it is first asked for."""
    if name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """List the parts too, loaded or not, so that completion finds them."""
    return sorted({*globals(), *__all__})
