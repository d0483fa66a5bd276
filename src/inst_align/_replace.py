"""Outputs that appear whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to, in the same file system, whose contents take the place of ``path`` at the end.

    When the block fails or is interrupted, ``path`` is as it was, and what was written is removed.
    """
    path = path.resolve()  # a link is to stay a link
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    old = scratch / "old"
    try:
        (scratch / "new").mkdir()
        new = scratch / "new" / path.name
        yield new
        if path.is_dir():  # only files can be replaced in one go
            path.replace(old)
        new.replace(path)
    finally:
        if old.exists() and not path.exists():
            old.replace(path)
        shutil.rmtree(scratch, ignore_errors=True)
