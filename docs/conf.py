"""Sphinx configuration. The build reads nothing from the network."""

from __future__ import annotations

import shutil
import tomllib
import warnings
from pathlib import Path
from typing import Any, get_args

from numpy.typing import ArrayLike

# raised inside other people's extensions for every docstring, about Sphinx versions to come
warnings.filterwarnings("ignore", category=DeprecationWarning, module="sphinx_autodoc_typehints")

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent


def copy_tutorials(source: Path, target: Path) -> None:
    """Make the notebooks of ``source`` the only ones in ``target``: Sphinx reads below docs/ only, Windows has no links."""
    for stale in target.glob("*.ipynb"):
        stale.unlink()
    for notebook in source.glob("*.ipynb"):
        shutil.copyfile(notebook, target / notebook.name)


copy_tutorials(ROOT / "tutorials", DOCS / "tutorials")


def typehints_formatter(annotation: Any, _config: object) -> str | None:
    """Write ``ArrayLike`` by its name: spelled out, it fills three lines and tells nobody anything."""
    spelled_out, members = get_args(ArrayLike), get_args(annotation)
    if not spelled_out or not all(part in members for part in spelled_out):  # members need not be hashable
        return None
    others = [member for member in members if member not in spelled_out]
    names = ["None" if other is type(None) else getattr(other, "__name__", str(other)) for other in others]
    return " | ".join(["ArrayLike", *names])


_project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = _project["name"]
author = _project["authors"][0]["name"]
project_copyright = f"2026, {author}"
version = release = _project["version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
suppress_warnings = [
    "config.cache",  # typehints_formatter is a function, which Sphinx cannot store between builds
    "sphinx_autodoc_typehints.forward_reference",  # names that are imported for type checkers only
    "sphinx_autodoc_typehints.guarded_import",
]

autosummary_generate = True
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False  # types stand in the signature
typehints_defaults = "comma"
typehints_document_rtype_none = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the outputs that a notebook was stored with are shown
nb_merge_streams = True

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
bibtex_default_style = "unsrt"

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_theme_options = {"home_page_in_toc": True, "show_toc_level": 2}
