"""One adapter per method. Each sees blind copies of two sections and says where the source's cells belong.

An adapter imports what it needs itself; :class:`Unavailable` leaves a blank in the table. All run with their own
defaults, the same for every pair.
"""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import inst_align as ia

if TYPE_CHECKING:
    from types import ModuleType

    from anndata import AnnData

    from benchmarks.accuracy.pairs import Pair
    from inst_align.core.transforms import Transform


class Unavailable(Exception):
    """A method cannot run here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """All that a method is told besides the data.

    Parameters
    ----------
    normalize
        Whether X holds counts.
    allow_reflection
        Whether the source may have to be turned over.
    seed
        For whatever is random in the method.
    """

    normalize: bool
    allow_reflection: bool
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a method found: the moved source, the map if there is one, its own report, and the seconds it took."""

    xy: np.ndarray
    transform: Transform | None = None
    report: dict[str, Any] = field(default_factory=dict)
    seconds: float = float("nan")


Method = Callable[["AnnData", "AnnData", Options], Outcome]


def raw(ref: AnnData, src: AnnData, options: Options) -> Outcome:
    """Leave the source where it is."""
    transform = ia.transforms.Affine(np.eye(3))
    return Outcome(xy=transform(src.obsm["spatial"]), transform=transform)


def rigid(ref: AnnData, src: AnnData, options: Options) -> Outcome:
    """Global pose by FFT."""
    return _rigid(ref, src, options, method="fft")


def icp(ref: AnnData, src: AnnData, options: Options) -> Outcome:
    """Global pose by the paper's adaptive ICP."""
    return _rigid(ref, src, options, method="icp")


def default(ref: AnnData, src: AnnData, options: Options) -> Outcome:
    """The default preset."""
    return _align(ref, src, options)


def default_nofield(ref: AnnData, src: AnnData, options: Options) -> Outcome:
    """The default preset up to and without the canonical field."""
    return _align(ref, src, options, field=False)


def paper(ref: AnnData, src: AnnData, options: Options) -> Outcome:
    """The method as published."""
    return _align(ref, src, options, preset="paper")


def _rigid(ref: AnnData, src: AnnData, options: Options, **arguments: Any) -> Outcome:
    ia.pp.rigid_align(ref, src, key_added="found", **_common(options), **arguments)
    return _read(src)


def _align(ref: AnnData, src: AnnData, options: Options, **arguments: Any) -> Outcome:
    ia.tl.align_pair(ref, src, key_added="found", progress=False, **_common(options), **arguments)
    return _read(src)


def _common(options: Options) -> dict[str, Any]:
    return {"normalize": options.normalize, "allow_reflection": options.allow_reflection, "rng": options.seed}


def _read(src: AnnData) -> Outcome:
    return Outcome(
        xy=src.obsm["found"], transform=ia.get.transform(src, "found"), report=ia.get.report(src, key="found")
    )


def cpd_posed(ref: AnnData, src: AnnData, options: Options) -> Outcome:
    """Deformable coherent point drift on coordinates alone (pycpd), from the pose that :func:`rigid` finds."""
    pycpd = _needs("pycpd")
    posed = rigid(ref, src, options).xy
    middle, scale = ref.obsm["spatial"].mean(axis=0), ref.obsm["spatial"].std()
    registration = pycpd.DeformableRegistration(X=(ref.obsm["spatial"] - middle) / scale, Y=(posed - middle) / scale)
    moved, _ = registration.register()
    return Outcome(xy=moved * scale + middle)


def _needs(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise Unavailable(f"{package} cannot be imported: {error}") from error


METHODS: dict[str, Method] = {
    "raw": raw,
    "rigid": rigid,
    "icp": icp,
    "default": default,
    "default-nofield": default_nofield,
    "paper": paper,
    "cpd-posed": cpd_posed,
}


def run_method(method: Method, pair: Pair, genes: np.ndarray | None = None) -> Outcome:
    """Run a method on blind copies of a pair, and time it.

    Parameters
    ----------
    method
        One of :data:`METHODS`.
    pair
        The pair.
    genes
        Names of the genes that the method may see; None for all.
    """
    ref, src = pair.blind(genes)
    options = Options(normalize=not pair.logged, allow_reflection=pair.allow_reflection, seed=pair.seed)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a method warns of is in its report
        found = method(ref, src, options)
    seconds = time.perf_counter() - start
    return Outcome(xy=found.xy, transform=found.transform, report=found.report, seconds=seconds)


def warm_up() -> None:
    """Import and compile all that the first call of this package would, so that no pair's seconds include it."""
    from inst_align.core.fit import PairConfig
    from inst_align.core.registration import Level, RegistrationConfig

    brief = PairConfig(registration=RegistrationConfig(levels=(Level(sigma=0.5, control_spacing=1.5, steps=1),)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ref, src = ia.datasets.toy_pair(n_cells=200, n_genes=60, rng=0)
        ia.tl.align_pair(ref, src, field=False, config=brief, rng=0, progress=False)
