"""Large sections that are on disk or lazy: the same bits as in memory, a block of rows at a time, few times over the file."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from anndata import AnnData

import inst_align as ia
from inst_align._anndata import Pair, read_pair
from inst_align.core.checkpoint import section_fingerprints
from inst_align.core.rows import Streamed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inst_align.core.prepared import PairConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*zarr v[23]:UserWarning")

BLOCK = 100
N_CELLS = 330, 300
N_GENES = 80


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make sections of a few hundred cells large ones, in memory, too."""
    monkeypatch.setattr("inst_align._reading.ROWS_AT_ONCE", BLOCK)
    for name in ("_matrices", "core.section"):
        monkeypatch.setattr(f"inst_align.{name}.HELD_CELLS", 50)
    monkeypatch.setattr("inst_align._expression.HVG_CELLS", 150)
    monkeypatch.setattr("inst_align.core.standardized.TYPICAL_CELLS", 150)


class Reads:
    """Counts rows of expression that are read, and refuses to give more than a block of them at once."""

    def __init__(self) -> None:
        self.n_rows = 0.0

    def add(self, n_rows: int, share: float = 1.0) -> None:
        """Count rows, or that share of each."""
        assert n_rows <= BLOCK, "more than a block is read at once"
        self.n_rows += n_rows * share

    def passes(self) -> int:
        """How often all rows were read, or nearly all, since a block that no cell is wanted of is left out; counts anew."""
        n_rows, self.n_rows = self.n_rows, 0.0
        return math.ceil(n_rows / sum(N_CELLS))

    def watch(self, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count what containers of a type give that are as wide as the expression is."""
        original = kind.__getitem__  # type: ignore[attr-defined]

        def counting(container: Any, index: Any) -> Any:
            found = original(container, index)
            if len(container.shape) == 2 and container.shape[1] >= N_GENES:
                self.add(found.shape[0])
            return found

        monkeypatch.setattr(kind, "__getitem__", counting)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    group = zarr.open_group(store={}, mode="w")
    ad.io.write_elem(group, "X", sp.csr_matrix((2, 2)))
    sparse_kind = type(ad.io.sparse_dataset(group["X"]))
    found = Reads()
    for kind in (sparse_kind, h5py.Dataset, zarr.Array):
        found.watch(kind, monkeypatch)
    monkeypatch.setattr(sparse_kind, "to_memory", lambda _: pytest.fail("everything is read"))
    return found


def like(adata: AnnData, x: Any) -> AnnData:
    return AnnData(x, obs=adata.obs.copy(), var=adata.var, obsm=dict(adata.obsm), uns=dict(adata.uns))


def backed(adata: AnnData, folder: Path, _: Reads) -> AnnData:
    path = folder / f"{adata.n_obs}.h5ad"
    adata.write_h5ad(path)
    return ad.read_h5ad(path, backed="r")


def in_zarr(adata: AnnData, folder: Path, _: Reads) -> AnnData:
    path = folder / f"{adata.n_obs}.zarr"
    adata.write_zarr(path)
    x = zarr.open_group(str(path), mode="r")["X"]
    return like(adata, ad.io.sparse_dataset(x) if isinstance(x, zarr.Group) else x)


def lazy(adata: AnnData, _: Path, reads: Reads) -> AnnData:
    """A dask array with chunks of rows and of genes, dense or sparse as the expression is."""
    import dask.array as da

    sparse = sp.issparse(adata.X)

    def computed(part: np.ndarray) -> Any:
        reads.add(len(part), part.shape[1] / values.shape[1])
        return sp.csr_matrix(part) if sparse else part

    values = adata.X.toarray() if sparse else adata.X
    x = da.from_array(values, chunks=(BLOCK - 14, -1 if sparse else N_GENES // 2))
    return like(adata, x.map_blocks(computed, dtype=x.dtype, meta=sp.csr_matrix((0, 0)) if sparse else None))


def dense(adata: AnnData) -> AnnData:
    return like(adata, adata.X.toarray())


FORMS: dict[str, Callable[[AnnData, Path, Reads], AnnData]] = {
    "backed csr": backed,
    "backed dense": lambda adata, *others: backed(dense(adata), *others),
    "zarr csr": in_zarr,
    "zarr dense": lambda adata, *others: in_zarr(dense(adata), *others),
    "dask of csr": lazy,
    "dask of dense": lambda adata, *others: lazy(dense(adata), *others),
}


def align(ref: AnnData, src: AnnData, **arguments: Any) -> dict[str, Any]:
    """Return all arrays and numbers that an alignment gives, by name."""
    ia.tl.align_pair(ref, src, rng=0, progress=False, **arguments)
    record = src.uns["inst_align"]["spatial_aligned"]
    overlap = {role: adata.obs["inst_overlap"].to_numpy() for role, adata in (("ref", ref), ("src", src))}
    return {
        "aligned": src.obsm["spatial_aligned"],
        "sd": src.obs["inst_sd"].to_numpy(),
        **overlap,
        **record["report"],
        **record["transform"],
        **record.get("field", {}),
    }


def assert_same_bits(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.fixture
def pair(toy: tuple[AnnData, AnnData]) -> tuple[AnnData, AnnData]:
    """Parts of the toy pair."""
    ref, src = (adata[:n].copy() for adata, n in zip(toy, N_CELLS, strict=True))
    return ref, src


@pytest.mark.parametrize("form", ["backed csr", "dask of dense"])
def test_an_alignment_has_the_bits_that_it_has_in_memory_and_reads_blocks_only(
    form: str,
    pair: tuple[AnnData, AnnData],
    true_pose: np.ndarray,
    tiny: PairConfig,
    tmp_path: Path,
    reads: Reads,
) -> None:
    """To check the values, for the typical cells, for the features, for the trial, and for the field."""
    stored = [FORMS[form](adata, tmp_path, reads) for adata in pair]
    reads.passes()
    found = align(*stored, config=tiny, init=true_pose)
    assert reads.passes() == 5
    assert "to_genes" in found
    assert_same_bits(found, align(*pair, config=tiny, init=true_pose))


@pytest.mark.usefixtures("coarse_search")
def test_a_pose_alone_takes_three_passes(pair: tuple[AnnData, AnnData], tmp_path: Path, reads: Reads) -> None:
    stored = [backed(adata, tmp_path, reads) for adata in pair]
    ia.pp.rigid_align(*stored, rng=0)
    assert reads.passes() == 3
    ia.pp.rigid_align(*pair, rng=0)
    np.testing.assert_array_equal(stored[1].obsm["spatial_rigid"], pair[1].obsm["spatial_rigid"])


def test_a_section_that_is_not_large_is_read_once(
    pair: tuple[AnnData, AnnData], tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inst_align._matrices.HELD_CELLS", N_CELLS[1])
    stored = [backed(adata, tmp_path, reads) for adata in pair]
    found = read_pair(*stored)
    assert isinstance(found.ref.expression, Streamed)
    assert sp.issparse(found.src.expression)
    assert reads.passes() == 1


@pytest.mark.parametrize(("level", "passes"), [(0, 1), (4, 2)])
def test_totals_are_counted_again_only_if_genes_with_counts_are_left_out(
    level: int, passes: int, pair: tuple[AnnData, AnnData], tmp_path: Path, reads: Reads
) -> None:
    both = [dense(adata) for adata in pair]
    for adata in both:
        adata.X[:, 5] = level
    found = read_pair(*(in_zarr(adata, tmp_path, reads) for adata in both))
    assert len(found.genes or ()) == N_GENES - 1
    assert reads.passes() == passes


def awkward(adata: AnnData, seed: int) -> AnnData:
    """Cells without a place or without counts, a debris cell, genes that say nothing, and cells on one spot."""
    rng = np.random.default_rng(seed)
    counts = adata.X.toarray()
    counts[rng.choice(len(counts), 9, replace=False)] = 0
    counts[:BLOCK, :3] = 0  # a block without some genes
    counts[:, 5], counts[:, 6] = 0, 4
    result = like(adata, sp.csr_matrix(counts))
    result.obsm["spatial"] = np.round(result.obsm["spatial"], -2)
    result.obsm["spatial"][rng.choice(len(counts), 7, replace=False)] = np.nan
    return result[:, rng.permutation(N_GENES)].copy()


def assert_same_pair(found: Pair, wanted: Pair) -> None:
    assert found.genes == wanted.genes
    assert found.normalized == wanted.normalized
    for one, other in ((found.ref, wanted.ref), (found.src, wanted.src)):
        assert isinstance(one.expression, Streamed)
        np.testing.assert_array_equal(one.xy, other.xy)
        np.testing.assert_array_equal(one.canonical_order(), other.canonical_order())
        held = one.held().expression
        for part in ("indptr", "indices", "data"):
            np.testing.assert_array_equal(getattr(held, part), getattr(other.expression, part))


@pytest.mark.parametrize("arguments", [{"n_top_genes": 25}, {"normalize": False}], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_odd_sections_are_read_as_in_memory(
    form: str, arguments: dict[str, Any], pair: tuple[AnnData, AnnData], tmp_path: Path, reads: Reads
) -> None:
    both = [awkward(adata, seed) for seed, adata in enumerate(pair)]
    arguments = arguments | {"nan_policy": "drop-from-fit"}
    stored = [FORMS[form](adata, tmp_path, reads) for adata in both]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert_same_pair(read_pair(*stored, **arguments), read_pair(*both, **arguments))


def said(*adatas: AnnData, **arguments: Any) -> str:
    """What reading a pair says that is wrong or odd with it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            read_pair(*adatas, **arguments)
        except ValueError as error:
            return str(error)
    return "; ".join(str(warning.message) for warning in caught)


def spoiled(adata: AnnData, how: str) -> AnnData:
    values = adata.X.toarray().astype(np.float32)
    if how == "logarithms":
        values = np.log1p(values)
    elif how == "marked":
        return AnnData(sp.csr_matrix(values), obs=adata.obs, var=adata.var, obsm=dict(adata.obsm), uns={"log1p": {}})
    else:
        at = ([1, 100, BLOCK, -1], [2, 2, 7, 9])
        values[at] = {"nan": [np.nan, np.inf, -np.inf, np.nan], "negative": -1.0}[how]
    return like(adata, sp.csr_matrix(values))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nan", "NaN or infinite in 4 values, in 3 of 80"),
        ("negative", "has 4 negative values"),
        ("logarithms", "numbers that are not whole and at most"),
        ("marked", "says that the reference and the source hold logarithms"),
    ],
)
def test_what_is_wrong_with_the_values_is_told_as_in_memory(
    how: str, words: str, pair: tuple[AnnData, AnnData], tmp_path: Path, reads: Reads
) -> None:
    both = [spoiled(adata, how) for adata in pair]
    message = said(*(backed(adata, tmp_path, reads) for adata in both))
    assert words in message
    assert message == said(*both)


def test_a_section_is_known_to_be_itself(pair: tuple[AnnData, AnnData], tmp_path: Path, reads: Reads) -> None:
    ref, _ = pair
    stored = backed(ref, tmp_path, reads)
    assert read_pair(stored, stored).identical
    assert read_pair(ref, stored).identical
    other = ref.copy()
    other.X[-1, other.X[-1].indices[0]] += 1
    assert not read_pair(other, stored).identical


def test_a_checkpoint_is_that_of_the_values_wherever_they_are(
    pair: tuple[AnnData, AnnData], tmp_path: Path, reads: Reads
) -> None:
    ref, src = pair
    stored = [form(src, tmp_path, reads) for form in (backed, lazy)]
    digests = [section_fingerprints(read_pair(ref, each).src) for each in (src, *stored)]
    assert digests[0] == digests[1] == digests[2]
    src.X.data[-1] += 1
    changed = section_fingerprints(read_pair(ref, lazy(src, tmp_path, reads)).src)
    assert {name for name in changed if changed[name] != digests[0][name]} == {"expression of the source"}


def test_the_embedding_has_the_bits_that_it_has_in_memory(
    pair: tuple[AnnData, AnnData], true_pose: np.ndarray, tmp_path: Path, reads: Reads
) -> None:
    stored = [backed(adata, tmp_path, reads) for adata in pair]
    for sections in (stored, pair):
        align(*sections, init=true_pose, accept="rigid", field=False)
        ia.tl.canonical_embed(*sections)
    for one, other in zip(stored, pair, strict=True):
        np.testing.assert_array_equal(one.obsm["X_inst"], other.obsm["X_inst"])
