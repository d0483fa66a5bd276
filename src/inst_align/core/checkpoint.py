"""State of a fit on disk, from which it can be resumed: written whole or not at all, taken back by the same fit only.

A folder holds ``inst-align-checkpoint.json``, which says what is fitted and whether that has ended, and a ``.npz`` of arrays and one JSON
tree for each stage. There is no pickle, so that reading a folder runs no code. Every file is written beside its place,
forced to the disk and then renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from inst_align.core.rows import Streamed
from inst_align.core.state import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import IO

    import torch

    from inst_align.core.rows import Held
    from inst_align.core.section import Section

FORMAT = 2
"""Of the folder; raised when the files of an older one mean something else."""
CHUNKS = 10
"""Parts of a long stage after which its state is kept."""
MANIFEST = "inst-align-checkpoint.json"
STAGES = ("pose", "trial", "registration", "phase1", "phase2")
PARTIAL = ".partial"
BROKEN = (EOFError, IndexError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)

T = TypeVar("T")


class Checkpoint:
    """What stages are given to keep their state in. This one keeps nothing and costs nothing.

    Examples
    --------
    >>> Checkpoint().once("pose", lambda: 42, generator=None, stops=[])
    42
    """

    def load(self, stage: str) -> Any:
        """Return the state that was kept for a stage, or ``None``."""
        return None

    def save(self, stage: str, state: Callable[[], Any]) -> None:
        """Keep the state of a stage: what :func:`inst_align.core.state.encode` takes; made only if it is kept."""

    def due(self, step: int, n_steps: int) -> bool:
        """Whether state is to be kept after a step, counted from zero: ten times in a stage, and at its end."""
        return False

    def once(self, stage: str, compute: Callable[[], T], *, generator: torch.Generator | None, stops: list[str]) -> T:
        """Return what a whole stage found: computed now, or as it was kept.

        With it are kept the state of the ``generator`` after the stage, and the ``stops`` that the fit has told of.
        """
        return compute()


NOTHING = Checkpoint()
"""Keeps nothing."""


class FolderCheckpoint(Checkpoint):
    """Keeps state in a folder.

    Parameters
    ----------
    folder
        Is made if it is not there.
    version
        Of the package: another one's state is refused.
    data, parameters
        What decides the result, as plain JSON values by name: state that was kept with others is refused.
    seed
        Kept beside them, for :func:`kept_seed`.

    Raises
    ------
    ValueError
        The folder holds the state of another fit that has not ended, or something else, or is damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        version: str,
        data: Mapping[str, Any],
        parameters: Mapping[str, Any],
        seed: int | None = None,
    ) -> None:
        self._folder = folder
        wanted = {"format": FORMAT, "version": version, "data": dict(data), "parameters": dict(parameters)}
        self._run: dict[str, Any] = json.loads(json.dumps(wanted))  # as it comes back from the file
        self._digest = hashlib.sha256(json.dumps(self._run, sort_keys=True).encode()).hexdigest()
        self._seed = None if seed is None else str(seed)
        found = read_manifest(folder)
        if found is not None and not found["done"]:
            _check_same(folder, found["run"], self._run)
        folder.mkdir(parents=True, exist_ok=True)
        same = found is not None and found["run"] == self._run
        for path in folder.glob(f".*{PARTIAL}"):  # of a process that was killed while it wrote
            path.unlink(missing_ok=True)
        if not same:
            for stage in STAGES:  # of a fit that has ended
                self._path(stage).unlink(missing_ok=True)
            self._write_manifest(done=False)

    def load(self, stage: str) -> Any:  # noqa: D102 - see Checkpoint
        path = self._path(stage)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                kept = json.loads(bytes(file["tree"]).decode())
                state = decode(kept["state"], [file[f"array_{i}"] for i in range(kept["n_arrays"])])
        except BROKEN as error:
            raise ValueError(_damaged(self._folder, path.name)) from error
        if kept["run"] != self._digest:
            raise ValueError(
                f"`checkpoint={str(self._folder)!r}`: {path.name!r} belongs to another fit than {MANIFEST!r}; delete "
                f"the folder to start anew."
            )
        return state

    def save(self, stage: str, state: Callable[[], Any]) -> None:  # noqa: D102
        tree, arrays = encode(state())
        text = json.dumps({"run": self._digest, "state": tree, "n_arrays": len(arrays)})
        named: dict[str, Any] = {f"array_{i}": array for i, array in enumerate(arrays)}
        with _replacing(self._path(stage)) as file:
            np.savez(file, allow_pickle=False, tree=np.frombuffer(text.encode(), dtype=np.uint8), **named)

    def due(self, step: int, n_steps: int) -> bool:  # noqa: D102
        return (step + 1) % -(-n_steps // CHUNKS) == 0 or step + 1 == n_steps

    def once(  # noqa: D102
        self, stage: str, compute: Callable[[], T], *, generator: torch.Generator | None, stops: list[str]
    ) -> T:
        kept = self.load(stage)
        if kept is None:
            result = compute()
            after = None if generator is None else generator.get_state()
            self.save(stage, lambda: {"result": result, "generator": after, "stops": list(stops)})
            return result
        if generator is not None:
            generator.set_state(kept["generator"])
        stops[:] = kept["stops"]
        found: T = kept["result"]
        return found

    def finish(self) -> None:
        """Mark the fit as ended: the same fit finds its outcome again, and any other may take the folder."""
        self._write_manifest(done=True)

    def _path(self, stage: str) -> Path:
        return self._folder / f"{stage}.npz"

    def _write_manifest(self, *, done: bool) -> None:
        with _replacing(self._folder / MANIFEST) as file:
            file.write(json.dumps({"run": self._run, "seed": self._seed, "done": done}, indent=1).encode())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return what a folder says of its fit; ``None`` if there is no folder, or nothing in it.

    Raises
    ------
    ValueError
        The folder is a file, holds something else, or is damaged.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise ValueError(f"`checkpoint={str(folder)!r}` is a file; give the name of a folder.")
    path = folder / MANIFEST
    if not path.exists():
        others = sorted(each.name for each in folder.iterdir() if each.suffix != PARTIAL)
        if others:
            raise ValueError(
                f"`checkpoint={str(folder)!r}` has {len(others)} files and folders in it, {others[0]!r} for one, and no "
                f"{MANIFEST!r}; give the name of a folder that is empty or not there."
            )
        return None
    try:
        found = json.loads(path.read_bytes())
        known = isinstance(found["run"], dict) and isinstance(found["done"], bool) and "seed" in found
    except BROKEN as error:
        raise ValueError(_damaged(folder, MANIFEST)) from error
    if not known:
        raise ValueError(_damaged(folder, MANIFEST))
    return dict(found)


def kept_seed(folder: Path) -> int | None:
    """Return the seed that was drawn for the fit in a folder, if there is one."""
    found = read_manifest(folder)
    return None if found is None or found["seed"] is None else int(found["seed"])


def fingerprint(*arrays: np.ndarray) -> str:
    """Return a digest of the values, shapes and types of arrays.

    Examples
    --------
    >>> fingerprint(np.zeros(2)) == fingerprint(np.zeros((1, 2)))
    False
    """
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def section_fingerprints(section: Section) -> dict[str, str]:
    """Return digests of a section's coordinates and expression, by name."""
    return {
        f"coordinates of the {section.name}": fingerprint(section.xy),
        f"expression of the {section.name}": _of_expression(cast("Held | Streamed", section.expression)),
    }


def _of_expression(x: Held | Streamed) -> str:
    """Return a digest of expression that is the same in memory and on disk, and in blocks of any size."""
    if isinstance(x, np.ndarray):
        return fingerprint(x)
    parts = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    blocks = (block for _, block in x.blocks()) if isinstance(x, Streamed) else [x]
    for block in blocks:
        arrays = np.diff(block.indptr).astype(np.int64), block.indices.astype(np.int64), block.data
        for part, array in zip(parts, arrays, strict=True):
            part.update(np.ascontiguousarray(array).data)
    return fingerprint(np.array(x.shape), *(np.frombuffer(part.digest(), dtype=np.uint8) for part in parts))


def _check_same(folder: Path, kept: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise if a fit that has not ended is not the one that is wanted, with what differs."""
    start = f"`checkpoint={str(folder)!r}` is that of a fit "
    end = "; pass another folder, or delete this one to start anew."
    if kept.get("format") != wanted["format"] or kept.get("version") != wanted["version"]:
        raise ValueError(
            f"{start}by inst-align {kept.get('version')} (format {kept.get('format')}), and this is "
            f"{wanted['version']} (format {wanted['format']}){end}"
        )
    for part, words in (("data", "of other data"), ("parameters", "with other parameters")):
        old, new = kept.get(part, {}), wanted[part]
        differ = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        if differ:
            raise ValueError(f"{start}{words} ({', '.join(differ)}){end}")


def _damaged(folder: Path, name: str) -> str:
    return f"`checkpoint={str(folder)!r}`: {name!r} is damaged and cannot be read; delete the folder to start anew."


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file to write to that takes the place of ``path`` when all of it is on the disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
