"""One adapter per method. Each sees blind copies of two sections and says where the source's cells belong.

:class:`Unavailable` leaves a blank in the table. All run with their own defaults, the same for every pair.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import inst_align as ia

if TYPE_CHECKING:
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
    logged
        Whether X is log-normalised: the reference's, and the source's.
    allow_reflection
        Whether the source may have to be turned over.
    seed
        For whatever is random in the method.
    embed
        Whether its embedding is asked for, if it has one.
    """

    logged: tuple[bool, bool]
    allow_reflection: bool
    seed: int
    embed: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a method found.

    Parameters
    ----------
    xy
        The moved source, shape ``(m, 2)``.
    xy_posed
        The source under the global pose that the method started from, shape ``(m, 2)``, if it can be told.
    also
        Other results of the same run, each shape ``(m, 2)``, by name.
    transform
        The map, if there is one.
    embedding
        Of the reference and the source, shapes ``(n, d)`` and ``(m, d)``, if there is one.
    report
        What the method says of its result.
    seconds
        What it took, without reading data and imports; NaN to have it measured from outside.
    """

    xy: np.ndarray
    xy_posed: np.ndarray | None = None
    also: dict[str, np.ndarray] = field(default_factory=dict)
    transform: Transform | None = None
    embedding: tuple[np.ndarray, np.ndarray] | None = None
    report: dict[str, Any] = field(default_factory=dict)
    seconds: float = float("nan")


Method = Callable[["AnnData", "AnnData", Options], Outcome]


def raw(ref: AnnData, src: AnnData, options: Options) -> Outcome:
    """Leave the source where it is."""
    transform = ia.transforms.Affine(np.eye(3))
    xy = transform(src.obsm["spatial"])
    return Outcome(xy=xy, xy_posed=xy, transform=transform)


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
    if not options.embed or arguments.get("field") is False:
        return _read(src)
    ia.tl.canonical_embed(ref, src, alignment_key="found", key_added="X_found", progress=False)
    return replace(_read(src), embedding=(ref.obsm["X_found"], src.obsm["X_found"]))


def _common(options: Options) -> dict[str, Any]:
    return {"allow_reflection": options.allow_reflection, "rng": options.seed}


def _read(src: AnnData) -> Outcome:
    transform = ia.get.transform(src, "found")
    first = transform.parts[0] if isinstance(transform, ia.transforms.Compose) else transform
    return Outcome(
        xy=src.obsm["found"],
        xy_posed=first(src.obsm["spatial"]) if isinstance(first, ia.transforms.Affine) else None,
        transform=transform,
        report=dict(ia.get.report(src, key="found")),
    )


def ablation(preset: str, changes: dict[str, Any], **arguments: Any) -> Method:
    """Return a preset with some constants changed.

    Parameters
    ----------
    preset
        "default" or "paper".
    changes
        What constants are set to, by name, with dots where one lies within another; a function is given what it was.
    arguments
        Of :func:`inst_align.tl.align_pair`.
    """

    def method(ref: AnnData, src: AnnData, options: Options) -> Outcome:
        from inst_align.core.paper_config import PaperConfig
        from inst_align.core.prepared import PairConfig

        config = PairConfig() if preset == "default" else PaperConfig()
        for setting, value in changes.items():
            config = changed(config, setting.split("."), value)
        return _align(ref, src, options, preset=preset, config=config, **arguments)

    return method


def registration(name: str, value: Any) -> Method:
    """Return the default up to and without the field, with one constant of its registration changed."""
    return ablation("default", {f"registration.{name}": value}, field=False)


def smoothness(factor: float) -> Method:
    """Return the default up to and without the field, with both terms that keep the map smooth scaled."""
    scaled = {f"registration.{name}": lambda weight: factor * weight for name in ("strain", "bending")}
    return ablation("default", scaled, field=False)


def changed(config: Any, path: list[str], value: Any) -> Any:
    """Return a configuration with one entry changed; one that has no such entry cannot be asked for it."""
    name, *rest = path
    if not hasattr(config, name):
        raise Unavailable(f"{type(config).__name__} has no {name!r}")
    old = getattr(config, name)
    return replace(config, **{name: changed(old, rest, value) if rest else value(old) if callable(value) else value})


ABLATIONS: dict[str, Method] = {
    # the paper's own (its table 3)
    "paper-no-phase1": ablation("paper", {"phase1_epochs": 0}),
    "paper-no-phase2": ablation("paper", {"phase2_epochs": 0}),
    "paper-no-jacobian": ablation("paper", {"lambda_jacobian": 0.0}),
    # the default with one part left out or changed; to be compared with default-nofield
    "nofield-no-averaging": ablation("default", {"n_neighbors": 1}, field=False),
    "nofield-no-trial": ablation("default", {}, field=False, accept="nonrigid"),
    "nofield-no-strain": registration("strain", 0.0),
    "nofield-no-bending": registration("bending", 0.0),
    "nofield-no-escape": registration("escape_cost", 0.0),
    "nofield-no-coarse": registration("levels", lambda levels: levels[-1:]),
    "nofield-no-fine": registration("levels", lambda levels: levels[:-1]),
    "nofield-rougher": smoothness(0.3),
    "nofield-smoother": smoothness(4.0),
}
METHODS: dict[str, Method] = {
    "raw": raw,
    "rigid": rigid,
    "icp": icp,
    "default": default,
    "default-nofield": default_nofield,
    "paper": paper,
} | ABLATIONS


def run_method(method: Method, pair: Pair, genes: np.ndarray | None = None, *, embed: bool = False) -> Outcome:
    """Run a method on blind copies of a pair, and time it.

    Parameters
    ----------
    method
        One of :data:`METHODS`.
    pair
        The pair.
    genes
        Names of the genes that the method may see; None for all.
    embed
        Whether its embedding is asked for.
    """
    ref, src = pair.blind(genes)
    options = Options(logged=pair.logged, allow_reflection=pair.allow_reflection, seed=pair.seed, embed=embed)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a method warns of is in its report
        found = method(ref, src, options)
    seconds = time.perf_counter() - start
    return found if np.isfinite(found.seconds) else replace(found, seconds=seconds)


def warm_up() -> None:
    """Import and compile all that the first call of this package would, so that no pair's seconds include it."""
    from inst_align.core.prepared import PairConfig
    from inst_align.core.registration import Level, RegistrationConfig

    brief = PairConfig(registration=RegistrationConfig(levels=(Level(sigma=0.5, control_spacing=1.5, steps=1),)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ref, src = ia.datasets.toy_pair(n_cells=200, n_genes=60, rng=0)
        ia.tl.align_pair(ref, src, field=False, config=brief, rng=0, progress=False)
