"""``inst-align align``: two files in, the aligned source out."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from inst_align._keys import SPATIAL_ALIGNED, SPATIAL_RIGID, UNS
from inst_align._replace import replacing
from inst_align.cli import _figures, _files

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    from anndata import AnnData


def align(options: Namespace) -> None:
    """Run the command.

    Raises
    ------
    KeyError, OSError, TypeError, ValueError
        Something that was given cannot be used; no file has changed then.
    """
    inputs = {"reference": options.reference, "source": options.source}
    outputs = _outputs(options)
    _check_options(options)
    _files.check_inputs(inputs)
    _files.check_outputs(outputs, inputs, overwrite=options.overwrite)
    landmarks = {} if options.landmarks is None else _files.read_landmarks(options.landmarks)
    ref, src = (_files.read_section(path, name) for name, path in inputs.items())
    if options.color is not None:
        _check_color(ref, src, options.color)
    key = options.key_added or (SPATIAL_RIGID if options.rigid_only else SPATIAL_ALIGNED)
    _fit(ref, src, options, key, landmarks)
    _write(ref, src, outputs, options, key)
    if not options.quiet:
        print("\n".join(_summary(ref, src, outputs, options, key)))


def _outputs(options: Namespace) -> dict[str, Path]:
    given = {"out": options.out, "out_ref": options.out_ref, "plot": options.plot, "report": options.report}
    return {name: path for name, path in given.items() if path is not None}


def _check_options(options: Namespace) -> None:
    if options.color is not None and options.plot is None and options.report is None:
        raise ValueError(
            f"`color={options.color!r}` is for the plot and the report, and neither was asked for; pass --plot or --report."
        )
    if options.rigid_only and options.preset != "default":
        raise ValueError(f'`preset="{options.preset}"` is a non-rigid method; leave out --preset or --rigid-only.')
    if options.rigid_only and options.checkpoint is not None:
        raise ValueError(
            "`checkpoint` is for a non-rigid fit, which takes time; leave out --checkpoint or --rigid-only."
        )
    if options.rigid_only and options.init is not None:
        raise ValueError(f"`init={options.init!r}` is where a non-rigid fit starts; leave out --init or --rigid-only.")


def _check_color(ref: AnnData, src: AnnData, color: str) -> None:
    """Raise KeyError before the work starts, and not after it, if the plot cannot be coloured."""
    from inst_align.pl._colors import color_cells

    color_cells(ref, src, color, palette=None, cmap="viridis")


def _fit(ref: AnnData, src: AnnData, options: Namespace, key: str, landmarks: dict[str, Any]) -> None:
    import inst_align as ia

    common: dict[str, Any] = {
        "spatial_key": options.spatial_key,
        "use_rep": options.use_rep,
        "layer": options.layer,
        "normalize": False if options.no_normalize else "auto",
        "nan_policy": options.nan_policy,
        "scale": options.scale,
        "allow_reflection": options.allow_reflection,
        "key_added": key,
        "rng": options.rng,
        "device": options.device,
        "deterministic": options.deterministic,
        **landmarks,
        "landmark_weight": options.landmark_weight,
    }
    if options.rigid_only:
        ia.pp.rigid_align(ref, src, **common)
        return
    show = sys.stderr.isatty() and not options.quiet
    more = {name: value for name in ("init", "checkpoint") if (value := getattr(options, name)) is not None}
    ia.tl.align_pair(ref, src, preset=options.preset, field=not options.no_field, progress=show, **common, **more)


def _write(ref: AnnData, src: AnnData, outputs: dict[str, Path], options: Namespace, key: str) -> None:
    """Write all outputs, and only then put them in place."""
    with ExitStack() as stack:
        fresh = {name: stack.enter_context(replacing(path)) for name, path in outputs.items()}
        _files.write_section(src, fresh["out"])
        if "out_ref" in fresh:
            _files.write_section(ref, fresh["out_ref"])
        if "plot" in fresh:
            _draw(ref, src, fresh["plot"], options, key)
        if "report" in fresh:
            import inst_align as ia

            ia.pl.report(ref, src, fresh["report"], key=key, color=options.color)


def _draw(ref: AnnData, src: AnnData, path: Path, options: Namespace, key: str) -> None:
    import inst_align as ia

    _figures.draw_without_screen()
    ax = ia.pl.alignment(ref, src, color=options.color, basis=key, before=options.spatial_key)
    _figures.save(ax, path)


def _summary(ref: AnnData, src: AnnData, outputs: dict[str, Path], options: Namespace, key: str) -> list[str]:
    import inst_align as ia

    params = ia.get.params(src, key)
    features = f"{params['n_genes']} genes" if "n_genes" in params else f"obsm[{options.use_rep!r}]"
    return [
        f"Aligned {options.source} ({src.n_obs} cells) to {options.reference} ({ref.n_obs} cells) by {features}.",
        *(f"  {line}" for line in ia.get.report(src, key).lines()),
        f"Written: {', '.join(map(str, outputs.values()))}",
        f"  obsm[{key!r}] has the new coordinates, uns[{UNS!r}][{key!r}] the map and the report.",
    ]
