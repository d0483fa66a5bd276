"""The door to resumable state: what a fit depends on, as a folder remembers it, and the seed that is drawn once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from inst_align._random import RNGLike, SeedLike
    from inst_align.core.checkpoint import Checkpoint
    from inst_align.core.landmarks import Landmarks
    from inst_align.core.section import Section


def as_folder(checkpoint: str | os.PathLike[str] | None) -> Path | None:
    """Return the folder of a checkpoint, or ``None``.

    Raises
    ------
    TypeError
        It is no path.
    """
    try:
        return None if checkpoint is None else Path(checkpoint)
    except TypeError as error:
        raise TypeError(
            f"`checkpoint` is a {type(checkpoint).__name__}; pass the name of a folder, or None."
        ) from error


def drawn_seed(rng: SeedLike | RNGLike | None, folder: Path | None) -> int | None:
    """Return a seed in place of ``rng=None``, drawn once for a folder, since what is resumed has to go on alike."""
    if rng is not None or folder is None:
        return None
    from inst_align.core.checkpoint import kept_seed

    seed = kept_seed(folder)
    return int(np.random.SeedSequence().generate_state(1, np.uint64)[0]) if seed is None else seed


def state_digest(generator: np.random.Generator) -> str:
    """Return a digest of what a generator will draw."""
    state = json.dumps(generator.bit_generator.state, default=_plain, sort_keys=True)
    return hashlib.sha256(state.encode()).hexdigest()


@contextmanager
def keeping(
    folder: Path | None,
    sections: tuple[Section, Section],
    *,
    landmarks: Landmarks | None,
    rng: str,
    seed: int | None,
    parameters: Mapping[str, Any],
) -> Iterator[Checkpoint]:
    """Yield where the state of a fit is kept, which is marked as done when the block ends well.

    Parameters
    ----------
    folder
        ``None`` keeps nothing.
    sections
        Reference and source as the fit sees them.
    landmarks
        As the fit sees them.
    rng
        From :func:`state_digest`, before anything was drawn.
    seed
        If it was drawn by :func:`drawn_seed`.
    parameters
        All else that decides the result: numbers, words, arrays, dataclasses, maps with a ``matrix``.

    Raises
    ------
    ValueError
        The folder holds the state of another fit, or cannot be used.
    """
    from inst_align import __version__
    from inst_align.core.checkpoint import NOTHING, FolderCheckpoint, fingerprint, section_fingerprints

    if folder is None:
        yield NOTHING
        return
    data = section_fingerprints(sections[0]) | section_fingerprints(sections[1])
    decisive = {**parameters, "rng": rng}
    if landmarks is not None:
        data["landmarks"] = fingerprint(landmarks.ref, landmarks.src)
        decisive["landmark_weight"] = landmarks.weight
    plain = json.loads(json.dumps(decisive, default=_plain))
    checkpoint = FolderCheckpoint(folder, version=__version__, data=data, parameters=plain, seed=seed)
    yield checkpoint
    checkpoint.finish()


def _plain(value: Any) -> Any:
    """Return what JSON can hold in place of a value that it cannot."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)
