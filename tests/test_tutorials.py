from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import inst_align as ia

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "tutorials").glob("*.ipynb"))
LARGEST = 2_000_000
"""Bytes: outputs are stored in the repository."""

nbformat = pytest.importorskip("nbformat")


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def test_there_are_tutorials():
    assert TUTORIALS


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_stored_tutorial_is_whole_clean_and_small(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert {output.output_type for output in outputs} <= {"display_data", "execute_result"}  # no errors, no warnings
    text = path.read_text(encoding="utf-8")
    assert not [
        place for place in ("/home/", "/root/", "/Users/", "/tmp/", "/site-packages/", "C:\\\\") if place in text
    ]
    assert path.stat().st_size < LARGEST


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs_without_errors(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    # The kernel is to import the package that is tested, and neither open a window nor take every core.
    monkeypatch.setenv("PYTHONPATH", str(Path(ia.__file__).parents[1]))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = read(path)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises CellExecutionError
    assert not list(tmp_path.iterdir())  # what it writes, it cleans up
