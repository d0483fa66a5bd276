"""The numerical core knows arrays and tensors only, and the package's import is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import inst_align as ia

CORE = Path(ia.__file__).parent / "core"
FORBIDDEN = {"anndata", "pandas", "matplotlib", "spatialdata", "scanpy", "squidpy", "tqdm", "logging"}
THIRD_PARTY = {"numpy", "scipy", "numba", "ot", "torch"}
HEAVY = ["torch", "scanpy", "squidpy", "spatialdata", "matplotlib.pyplot"]
FOR_MAPS = [*HEAVY, "zarr", "SimpleITK"]
ARROWS_OUT = {"transforms/base.py": ["inst_align._transform_file.save"]}
"""The one way out of core, imported when it is called: a map can be saved, and files are no business of core."""
PARTS = ["datasets", "get", "metrics", "pl", "pp", "tl", "transforms"]


def imported_names(tree: ast.AST) -> list[str]:
    """Full names of everything imported anywhere in a module, functions and type-checking blocks included."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names


def violations(source: str) -> list[str]:
    found = []
    for name in imported_names(ast.parse(source)):
        root = name.split(".")[0]
        if root == "inst_align":
            allowed = name.startswith("inst_align.core.")
        else:
            allowed = root not in FORBIDDEN and (root in THIRD_PARTY or root in sys.stdlib_module_names)
        if not allowed:
            found.append(name)
    return found


@pytest.mark.parametrize(
    "line",
    [
        *(f"import {name}" for name in sorted(FORBIDDEN)),
        "from matplotlib import pyplot",
        "from inst_align import _anndata",
        "from inst_align._keys import UNS",
        "from ..tl import align_pair",
        "import sklearn.decomposition",
        "def f():\n    import pandas as pd",
    ],
)
def test_a_forbidden_import_is_noticed(line: str) -> None:
    assert violations(line)


def test_an_allowed_import_passes() -> None:
    assert (
        violations(
            "import math\nimport numpy as np\nfrom scipy.spatial import cKDTree\nimport torch.nn\n"
            "from inst_align.core.section import Section\nfrom inst_align.core import section"
        )
        == []
    )


def test_core_imports_nothing_but_arrays_tensors_and_itself() -> None:
    files = sorted(CORE.rglob("*.py"))
    assert files
    found = {path.relative_to(CORE).as_posix(): bad for path in files if (bad := violations(path.read_text("utf-8")))}
    assert found == ARROWS_OUT


def test_the_way_out_of_core_is_not_taken_on_import() -> None:
    done = run("import inst_align.core.transforms, sys; print('inst_align._transform_file' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_the_package_loads_nothing_heavy() -> None:
    done = run(f"import inst_align, sys; print([name for name in {HEAVY} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_a_saved_map_can_be_used_without_torch() -> None:
    done = run(f"import inst_align as ia, sys; ia.transforms; print([m for m in {FOR_MAPS} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", PARTS)
def test_each_part_is_an_attribute_that_loads_when_it_is_asked_for(name: str) -> None:
    assert name in dir(ia)
    assert getattr(ia, name).__name__ == f"inst_align.{name}"


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ia.nothing  # noqa: B018


def test_the_version_is_a_string_with_a_number() -> None:
    assert ia.__version__[0].isdigit()
