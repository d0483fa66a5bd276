"""Public data, downloaded by pooch and checked. Only archives whose checksum is known are offered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

_ISTBENCH_URL = "https://zenodo.org/records/14906156/files/Data.zip?download=1"
_ISTBENCH_HASH = "md5:ad37e0fac9691d23f9f91eaee28842ed"
_ISTBENCH_ARCHIVE = "istbench.zip"


def istbench(*, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Download and unpack the data of a published benchmark of multi-slice integration.

    The archive is ``Data.zip`` of the Zenodo record 14906156, deposited under CC-BY-4.0 by the authors of the benchmark
    [1]_: cite them when you use it. What it holds, and how its files are named, is up to the archive. It is large; the
    first call downloads it, checks its MD5 sum and unpacks it, later calls only check that everything is there.

    Parameters
    ----------
    cache_dir
        Folder that keeps the archive and the unpacked files. ``None``: the user's cache folder for ``inst-align``.

    Returns
    -------
    Folder of the unpacked archive.

    Raises
    ------
    ConnectionError
        If the archive can not be downloaded, for example without a network.
    OSError
        If what was downloaded is not the archive that is expected.

    References
    ----------
    .. [1] Dong et al. (2025), Genome Biology 26, 318.
    """
    import pooch

    folder = Path(pooch.os_cache("inst-align") if cache_dir is None else cache_dir).expanduser().resolve()
    archive = folder / _ISTBENCH_ARCHIVE
    by_hand = f"download it by hand, save it as {archive} and call again"
    unzip = pooch.Unzip(extract_dir=archive.stem)
    try:
        pooch.retrieve(_ISTBENCH_URL, _ISTBENCH_HASH, fname=archive.name, path=folder, processor=unzip)
    except OSError as error:
        if error.errno is not None:  # the file system's trouble, not the network's
            raise
        msg = f"`istbench` could not download {_ISTBENCH_URL} ({type(error).__name__}: {error}): {by_hand}."
        raise ConnectionError(msg) from error
    except ValueError as error:  # how pooch reports a wrong checksum
        msg = f"`istbench` downloaded {_ISTBENCH_URL}, but the file's checksum is not {_ISTBENCH_HASH}: {by_hand}."
        raise OSError(msg) from error
    return folder / archive.stem
