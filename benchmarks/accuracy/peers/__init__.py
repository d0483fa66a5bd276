"""Other tools, each run in an environment of its own by a small script; one that is not there leaves a blank."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.accuracy.methods import METHODS, Method, Options, Outcome, Unavailable, rigid
from benchmarks.accuracy.peers.exchange import pack

if TYPE_CHECKING:
    from anndata import AnnData

ENVIRONMENTS = "INST_ALIGN_PEERS"
"""Variable with the folder that holds a virtual environment per peer, under the peer's name."""
TIMEOUT = "INST_ALIGN_PEER_TIMEOUT"
"""Variable with the seconds after which a peer is given up."""
DEFAULT_TIMEOUT = 3600.0


@dataclass(frozen=True)
class Peer:
    """A tool and the script ``align_<name>.py`` that runs it.

    Parameters
    ----------
    name
        Of the tool: that of its environment.
    package
        What the environment must have installed.
    posed
        Whether it is handed the source in the pose that ours finds, because it searches for none.
    """

    name: str
    package: str
    posed: bool = False

    @property
    def python(self) -> str:
        """The interpreter to run it with: of its own environment, or else this one if it has the package."""
        folder = os.environ.get(ENVIRONMENTS)
        if folder and (own := Path(folder) / self.name / "bin" / "python").exists():
            return str(own)
        if find_spec(self.package) is not None:
            return sys.executable
        raise Unavailable(f"no package {self.package} here, and no environment {self.name!r} under {ENVIRONMENTS}")

    def __call__(self, ref: AnnData, src: AnnData, options: Options) -> Outcome:
        """Run the script and read what it found."""
        python = self.python
        if self.posed:
            src = src.copy()
            src.obsm["spatial"] = rigid(ref, src.copy(), options).xy
        with tempfile.TemporaryDirectory() as folder:
            given, found = Path(folder) / "given.npz", Path(folder) / "found.npz"
            told = {"logged": options.logged, "allow_reflection": options.allow_reflection, "seed": options.seed}
            np.savez(given, **pack("ref", ref), **pack("src", src), **told)
            script = Path(__file__).with_name(f"align_{self.name}.py")
            self._run([python, str(script), str(given), str(found)])
            with np.load(found) as arrays:
                results = dict(arrays)
        return Outcome(
            xy=results.pop("xy"),
            xy_posed=results.pop("posed", None),
            seconds=float(results.pop("seconds")),
            also=results,
        )

    def _run(self, command: list[str]) -> None:
        limit = float(os.environ.get(TIMEOUT, DEFAULT_TIMEOUT))
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{self.name} was given up after {limit:g} s") from error
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode} and said nothing"]
            raise RuntimeError(f"{self.name}: {said[-1]}")


PEERS: dict[str, Method] = {
    "paste": Peer("paste", "paste"),
    "spateo": Peer("spateo", "spateo"),
    "moscot": Peer("moscot", "moscot"),
    "cpd-posed": Peer("cpd", "pycpd", posed=True),
}
METHODS |= PEERS
