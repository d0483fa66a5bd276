"""What is said of results is set against what is true of them, and told apart by what it was tuned on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from benchmarks.calibration import __main__ as program
from benchmarks.calibration.cases import Case, cases
from benchmarks.calibration.cells import binned
from benchmarks.calibration.report import markdown

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tissue(tmp_path: Path) -> Path:
    """Two sections at the places where those of two tissues are looked for."""
    rng = np.random.default_rng(0)
    for name, n_genes in (("dlpfc/151673", 50), ("st2k_mob/MOB1", 40)):
        adata = ad.AnnData(rng.poisson(3, (300, n_genes)).astype(np.float32))
        adata.var_names = [f"{'Gene' if n_genes == 40 else 'GENE'}{i}" for i in range(n_genes)]
        adata.obsm["spatial"] = rng.uniform(0, n_genes, (300, 2))
        (tmp_path / name).parent.mkdir()
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    return tmp_path


def made(data: Path) -> dict[tuple[str, str], Any]:
    return {(kind, name): make for kind, name, make in cases(data)}


def test_sections_of_two_tissues_share_orthologs_and_size_but_nothing_else(tissue: Path) -> None:
    case = made(tissue)["other tissue", "cortex and bulb"]()
    assert case.right == ("poor",)
    assert case.tuned_on
    assert len(case.ref.var_names.intersection(case.src.var_names)) == 40
    extents = [np.ptp(section.obsm["spatial"], axis=0).max() for section in (case.ref, case.src)]
    assert extents[0] == pytest.approx(extents[1])


def test_genes_named_at_random_are_other_genes(tissue: Path) -> None:
    case = made(tissue)["other genes", "cortex and cortex"]()
    assert list(case.ref.var_names) == list(case.src.var_names)
    same = [np.array_equal(case.ref.X[:, i], case.src.X[:, i]) for i in range(case.ref.n_vars)]
    assert np.mean(same) < 0.2


def test_a_symmetric_tissue_has_each_cell_once_and_both_halves_in_both_sections(tissue: Path) -> None:
    case = made(tissue)["symmetric", "cortex"]()
    names = [*case.ref.obs_names, *case.src.obs_names]
    assert len(names) == len(set(names)) <= 300
    side = case.ref.obsm["spatial"][:, 0] > 0
    assert 0.3 < side.mean() < 0.7


def case_of(n: int = 400) -> Case:
    rng = np.random.default_rng(0)
    sections = []
    for _ in range(2):
        section = ad.AnnData(np.ones((n, 1)), obsm={"spatial": rng.uniform(0, 100, (n, 2))})
        section.obs["inst_overlap"] = 1.0
        sections.append(section)
    ref, src = sections
    src.obsm["spatial_aligned"] = src.obsm["spatial"] + [3.0, 4.0]
    src.obs["inst_sd"] = np.where(np.arange(n) % 2, 5.0, np.sqrt(25 + 1e-6))
    src.uns["inst_align"] = {
        "spatial_aligned": {"version": 1, "role": "source", "report": {"displacement_max": 1.0, "verdict": "non-rigid"}}
    }
    src.uns["reference"] = ref
    return Case(
        kind="warped", name="x", tissues=("cortex", "cortex"), right=("non-rigid",), ref=ref, src=src,
        xy_true=src.obsm["spatial"],
    )  # fmt: skip


def test_what_was_said_of_cells_is_counted_beside_what_is_true() -> None:
    case = case_of()
    rows = pd.DataFrame(binned(case, case.src)).set_index("what")
    assert rows.loc["overlap", "n"] == 800
    assert rows.loc["overlap", "true"] > 0.95
    assert rows.loc["sd", "n"] == 400
    assert rows.loc["sd", "said"] == pytest.approx(rows.loc["sd", "true"])


def test_nothing_is_counted_where_nothing_was_said() -> None:
    case = case_of()
    case.src.obs["inst_sd"] = np.nan
    assert binned(case, case.src) == []


def test_a_run_adds_what_is_missing_and_the_report_counts_it(data: Path, tmp_path: Path, capsys: Any) -> None:
    arguments = ["--data", str(data), "--out", str(tmp_path), "--cases", "not warped/toy_rigid"]
    assert program.main(arguments) == 0
    said = capsys.readouterr().out
    kept = "not warped/toy_rigid: rigid sufficient" in said
    assert kept or "not warped/toy_rigid: non-rigid" in said  # so few cells hardly tell which
    assert program.main(arguments) == 0
    assert capsys.readouterr().out == ""
    report = (tmp_path / "calibration.md").read_text(encoding="utf-8")
    [row] = [line for line in report.splitlines() if line.startswith("| stored pairs, not warped |")]
    assert row.endswith(f"| {kept:d} of 1 |")
    assert f"### Sections that were {'not ' if kept else ''}bent, other tissues" in report
    assert (tmp_path / "calibration.png").exists()


def test_a_verdict_that_is_wrong_is_not_counted_as_right() -> None:
    pairs = pd.DataFrame(
        [
            {
                "kind": "shuffled",
                "name": str(i),
                "tuned_on": False,
                "right": "poor",
                "verdict": verdict,
                "warned": i != 1,
            }
            for i, verdict in enumerate(["poor", "poor", "non-rigid"])
        ]
    )
    numbers = ["pose_median", "pose_best", "error_median", "heldout_z", "heldout_gain"]
    pairs = pairs.reindex(columns=[*pairs, *numbers, *(set(program_numbers()) - set(numbers))])
    cells = pd.DataFrame(columns=["kind", "name", "tuned_on", "what", "from", "to", "n", "said", "true", "score"])
    assert "| expression shuffled over the cells | poor | 1 |  |  | 2 (1) | 2 of 3 |" in markdown(pairs, cells)


def program_numbers() -> list[str]:
    from benchmarks.calibration.report import NUMBERS

    return NUMBERS
