"""Ctrl-C at any moment leaves data, files and torch as they were; so does a kill, as far as files go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import inst_align as ia
from inst_align._anndata import _assign
from inst_align.core.threads import flushes_denormals

if TYPE_CHECKING:
    from anndata import AnnData

    from inst_align.core.prepared import PairConfig

    Pair = tuple[AnnData, AnnData]

KEY = "spatial_aligned"


def torch_state() -> tuple[Any, ...]:
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        flushes_denormals(),
        torch.get_rng_state().tolist(),
    )


def snapshot(adata: AnnData) -> dict[str, Any]:
    return {
        "X": adata.X.copy(),
        "obs": adata.obs.copy(),
        "var": adata.var.copy(),
        "obsm": {key: np.array(value) for key, value in adata.obsm.items()},
        "uns": repr(dict(adata.uns)),
    }


def assert_unchanged(adata: AnnData, before: dict[str, Any]) -> None:
    assert (before["X"] != adata.X).nnz == 0
    assert adata.obs.equals(before["obs"])
    assert adata.var.equals(before["var"])
    assert adata.obsm.keys() == before["obsm"].keys()
    for key, value in before["obsm"].items():
        np.testing.assert_array_equal(adata.obsm[key], value)
    assert repr(dict(adata.uns)) == before["uns"]


@pytest.mark.parametrize("step", [1, 2, 5, 6, 10])
def test_ctrl_c_at_any_step_leaves_data_and_torch_as_they_were(
    pair: Pair, tiny: PairConfig, true_pose: np.ndarray, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    def interrupt(bar: Any, n: float = 1) -> None:
        steps.append(n)
        if len(steps) == step:
            raise KeyboardInterrupt

    steps: list[float] = []
    before = [snapshot(section) for section in pair]
    monkeypatch.setattr("tqdm.auto.tqdm.update", interrupt)
    torch.set_num_threads(2)
    try:
        state = torch_state()
        with pytest.raises(KeyboardInterrupt):
            ia.tl.align_pair(
                *pair, config=tiny, init=true_pose, accept="nonrigid", rng=0, deterministic=True, progress=False
            )
        assert torch_state() == state
    finally:
        torch.set_num_threads(1)
    assert len(steps) == step
    for section, old in zip(pair, before, strict=True):
        assert_unchanged(section, old)


@pytest.mark.parametrize("earlier", [False, True])
def test_an_interruption_between_two_writes_takes_the_first_one_back(pair: Pair, earlier: bool) -> None:
    class Interrupting(dict[str, Any]):
        def keys(self) -> Any:
            raise KeyboardInterrupt

        __iter__ = keys

    ref, src = pair
    if earlier:
        for section in pair:
            _assign(KEY, (section, np.ones((section.n_obs, 2)), {"role": "earlier"}, {}))
    src.uns["inst_align"] = Interrupting(src.uns.get("inst_align", {}))  # read last, after both arrays are there
    before = [snapshot(section) for section in pair]
    with pytest.raises(KeyboardInterrupt):
        _assign(KEY, *((section, np.zeros((section.n_obs, 2)), {"role": "new"}, {}) for section in pair))
    for section, old in zip(pair, before, strict=True):
        assert_unchanged(section, old)


CHILD = """
import os, signal
from anndata import AnnData
from inst_align.cli import main
from inst_align.core import pose

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
pose.N_PIXELS = 33  # a quick search
command = ["align", "ref.h5ad", "src.h5ad", "-o", "out.h5ad", "--rigid-only"]
choose = pose._choose

def ctrl_c(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    return choose(*arguments)

pose._choose = ctrl_c
print(main(command), flush=True)

pose._choose = choose
write = AnnData.write_h5ad

def half(adata, path, **options):
    write(adata, path, **options)
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)
    os.kill(os.getpid(), signal.SIGKILL)

AnnData.write_h5ad = half
main(command)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_the_command_ends_with_one_line_on_ctrl_c_and_neither_that_nor_a_kill_while_writing_harms_files(
    tmp_path: Path,
) -> None:
    ref, src = ia.datasets.toy_pair(n_cells=300, n_genes=60, rng=3)
    ref.write_h5ad(tmp_path / "ref.h5ad")
    src.write_h5ad(tmp_path / "src.h5ad")
    (tmp_path / "out.h5ad").write_bytes(b"an earlier result")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    places = os.pathsep.join(str(Path(each).resolve()) for each in sys.path if each)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == "130\n"
    assert done.stderr == "inst-align: interrupted\n"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
