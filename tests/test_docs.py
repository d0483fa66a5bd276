"""The code in the docs runs, and gives what it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inst_align as ia

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str) -> list[str]:
    """Return the Python code of a page, block by block."""
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def run(code: str, names: dict[str, Any]) -> int:
    """Run a block; each line that says that it is true has to be. Return how many did."""
    claims = 0
    for node in ast.parse(code).body:
        source = ast.get_source_segment(code, node)
        assert source is not None
        line = code.splitlines()[(node.end_lineno or 0) - 1]
        if "# True" in line:
            assert eval(source, names), source
            claims += 1
        else:
            exec(source, names)
    return claims


def test_the_page_on_maps(pair: Any, tiny: Any, true_pose: np.ndarray, tmp_path: Path, monkeypatch: Any) -> None:
    sitk = pytest.importorskip("SimpleITK")
    ref, src = pair
    reference_image = sitk.Image(100, 80, sitk.sitkFloat64)
    reference_image.SetOrigin(ref.obsm["spatial"].mean(axis=0).tolist())
    names: dict[str, Any] = {
        "ia": ia,
        "adata_ref": ref,
        "adata_src": src[10:].copy(),
        "all_cells": src.copy(),
        "picture": np.ones((800, 1000)),
        "first_pixel": src.obsm["spatial"].min(axis=0).tolist(),
        "pixel_size": 2.0,
        "reference_image": reference_image,
    }
    ia.tl.align_pair(
        ref, names["adata_src"], init=true_pose, config=tiny, field=False, rng=0, device="cpu", progress=False
    )
    monkeypatch.chdir(tmp_path)
    align, *rest = blocks("transforms.md")
    assert "align_pair" in align
    assert sum(run(code, names) for code in rest) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"map.zarr", "back.zarr", "points.nrrd", "images.nii.gz"}
    assert names["inside"].tolist() == [True, False]
    assert sitk.GetArrayFromImage(names["warped"]).mean() > 0.9


def test_the_page_on_the_report(pair: Any, tiny: Any, true_pose: np.ndarray, tmp_path: Path, monkeypatch: Any) -> None:
    ref, src = pair
    ia.tl.align_pair(ref, src, init=true_pose, config=tiny, field=False, rng=0, device="cpu", progress=False)
    names: dict[str, Any] = {"ia": ia, "adata_ref": ref, "adata_src": src}
    monkeypatch.chdir(tmp_path)
    assert sum(run(code, names) for code in blocks("report.md")) == 2
    assert names["numbers"]["verdict"] == names["report"].verdict
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
