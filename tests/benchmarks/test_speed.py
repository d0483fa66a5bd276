"""Only a method that says so gets sections whose expression is left in the file; memory is told with and without them."""

from __future__ import annotations

import json

import pytest
from benchmarks.speed import child

import inst_align as ia


@pytest.mark.parametrize(("method", "backed"), [("default-nofield", False), ("default-nofield-backed", True)])
def test_a_child_reads_the_expression_or_leaves_it_in_the_file(method, backed, tmp_path, monkeypatch, capsys):
    paths = []
    for name, section in zip(("ref", "src"), ia.datasets.toy_pair(n_cells=60, n_genes=20, rng=0), strict=True):
        paths.append(str(tmp_path / f"{name}.h5ad"))
        section.write_h5ad(paths[-1])
    seen = []

    def stub(ref, src, device, seed):
        seen.append(ref.isbacked and src.isbacked)
        return {"read": 0.5}

    monkeypatch.setitem(child.METHODS, method, stub)
    monkeypatch.setattr("sys.argv", ["child", *paths, method, "cpu", "0"])
    child.main()
    found = json.loads(capsys.readouterr().out)
    assert seen == [False, backed]  # the small pair before is in memory
    assert found["stages"] == {"read": 0.5}
    assert found["mebibytes"] <= found["mebibytes_with_sections"] + 1


def test_energy_is_counted_over_all_processors_if_they_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "COUNTERS", tmp_path)
    assert child.joules() is None
    for number, micro in enumerate((2_000_000, 3_500_000)):
        (tmp_path / f"intel-rapl:{number}").mkdir()
        (tmp_path / f"intel-rapl:{number}" / "energy_uj").write_text(f"{micro}\n")
    assert child.joules() == 5.5
