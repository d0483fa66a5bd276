"""Rows 38 to 60: several sections in one object, keys, sizes, devices and versions."""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import tempfile
import tracemalloc
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

import inst_align as ia
from benchmarks.inputs.case import Case
from benchmarks.inputs.sections import KEY, align, expected, must, off_by, pair, same_bits, unchanged

if TYPE_CHECKING:
    from anndata import AnnData

HANG = 120
"""Seconds after which a process has got stuck."""


def library(names: tuple[Any, ...] = ("B", "A"), *, dtype: Any = "category") -> AnnData:
    """The source, the reference and, if there are more names, more sources, in one object with mixed rows."""
    ref, src = pair()
    sections = [section.copy() for section in (src, ref, *[src] * (len(names) - 2))]
    for section, name in zip(sections, names, strict=True):
        section.obs["sample"] = pd.Series([name] * section.n_obs, index=section.obs_names, dtype=object)
    whole = ad.concat(sections, index_unique="-")
    whole.obs["sample"] = whole.obs["sample"].astype(dtype)
    return whole[np.random.default_rng(0).permutation(whole.n_obs)].copy()


def interleaved(names: tuple[Any, ...] = ("B", "A"), *, dtype: Any = "category", disk: str | None = None) -> str:
    """Align two sections of one object there and back, by way of a file if ``disk`` says so."""
    whole = library(names, dtype=dtype)
    rows = np.array([label == names[0] and type(label) is type(names[0]) for label in whole.obs["sample"].tolist()])
    ref, src = ia.pp.split_sections(whole, library_key="sample", reference=names[1], source=names[0])
    wanted = np.array(align(ref, src).obsm[KEY])
    before = list(whole.obs_names)
    ia.pp.join_sections(whole, ref, src, library_key="sample")
    if disk is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"whole.{disk}"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # zarr speaks of its formats
                getattr(whole, "write_h5ad" if disk == "h5ad" else "write_zarr")(path)
            whole = ad.read_h5ad(path) if disk == "h5ad" else ad.read_zarr(path)
    must(list(whole.obs_names) == before, "rows were moved")
    must(np.array_equal(whole.obsm[KEY][rows], wanted), "rows were mixed up")
    aligned = np.isin(np.arange(whole.n_obs), np.flatnonzero(np.isfinite(whole.obsm[KEY][:, 0])))
    must(aligned.sum() == ref.n_obs + src.n_obs, "rows of other sections are not NaN")
    _, again = ia.pp.split_sections(whole, library_key="sample", reference=names[1], source=names[0])
    must(ia.get.transform(again) == ia.get.transform(src), "the map is not there again")
    numbers = again.obs_names.str.extract(r"src_(\d+)")[0].astype(int).to_numpy()
    return same_bits(again, rows=numbers)


def split(column: Any, **arguments: Any) -> str:
    whole = library()
    whole.obs["sample"] = column(whole.obs["sample"])
    ia.pp.split_sections(whole, library_key="sample", **({"reference": "A"} | arguments))
    return "no error"


def with_nan_labels(column: pd.Series) -> pd.Series:
    column = column.copy()
    column.iloc[[4, 9, 16]] = np.nan
    return column


def no_such_color() -> str:
    ref, src = pair()
    align(ref, src)
    ia.pl.alignment(ref, src, color="cluster")
    return "no error"


def labels_with_nan() -> str:
    ref, src = pair()
    xy_ref, xy_src = ref.obsm["spatial"], src.obsm["spatial"]
    labels_ref, labels_src = (section.obs["layer"].astype(object).to_numpy() for section in (ref, src))
    labels_src[::3] = np.nan
    known = np.arange(len(labels_src)) % 3 != 0
    found = ia.metrics.nn_accuracy(xy_ref, xy_src, labels_ref, labels_src)
    wanted = ia.metrics.nn_accuracy(xy_ref, xy_src[known], labels_ref, labels_src[known])
    must(found == wanted, f"{found} instead of {wanted}")
    return "left out, and no class of their own"


def itself() -> str:
    ref, _ = pair()
    align(ref, ref, init="search")
    moved = off_by(ref.obsm[KEY], ref.obsm["spatial"])
    must(moved < 0.25, f"moved by up to {moved:.2f} neighbour distances")
    must(ia.get.report(ref)["pose_method"] == "identical", "the report does not say so")
    return "stays where it is, and the report says why"


def shared_memory() -> str:
    ref, src = pair()
    both = np.vstack([ref.obsm["spatial"], src.obsm["spatial"]])
    before = both.copy()
    ref.obsm["spatial"], src.obsm["spatial"] = both[: ref.n_obs], both[ref.n_obs :]
    ref.uns["inst_align"] = src.uns["inst_align"] = {}
    align(ref, src)
    must(np.array_equal(both, before), "the shared array was written to")
    must(ref.uns["inst_align"][KEY]["role"] == "reference", "one record replaced the other")
    return f"{same_bits(src)}; nothing shared is written to"


def own_key() -> str:
    ref, src = pair()
    align(ref, src, init=np.diag([1.0, 1.0, 1.0]) + np.array([[0, 0, 30.0], [0, 0, 0], [0, 0, 0]]))
    logger = logging.getLogger("inst_align")
    stream = io.StringIO()
    handler, level = logging.StreamHandler(stream), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        result = same_bits(align(ref, src))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    must("overwriting the results of an earlier run" in stream.getvalue(), "the log does not say so")
    return f"overwritten, with a line in the log: {result}"


def foreign_key() -> str:
    ref, src = pair()
    src.obsm[KEY] = np.zeros((src.n_obs, 2))
    return unchanged(align, ref, src)


def large_file() -> str:
    """Read 20 genes of a dense file without ever holding most of it."""
    from inst_align._anndata import read_pair

    rng = np.random.default_rng(0)
    n_cells, n_genes = 40_000, 300
    with tempfile.TemporaryDirectory() as folder:
        whole = ad.AnnData(rng.integers(0, 5, (n_cells, n_genes)).astype(np.float32))
        whole.obsm["spatial"] = rng.random((n_cells, 2))
        whole.write_h5ad(Path(folder) / "large.h5ad")
        panel = whole[:500, :20].copy()
        large = ad.read_h5ad(Path(folder) / "large.h5ad", backed="r")
        size = whole.X.nbytes
        del whole
        tracemalloc.start()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # 20 genes are few
                read_pair(panel, large)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            large.file.close()
    must(peak < 0.5 * size, f"{peak / 1e6:.0f} MB in memory for a matrix of {size / 1e6:.0f} MB")
    return "read in blocks, and only the genes in common are kept"


def no_cuda() -> str:
    return unchanged(align, *pair(), device="cuda:99")


def mps() -> str:
    return unchanged(align, *pair(), device="mps")


def no_terminal() -> str:
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream):
        result = same_bits(align(*pair(), progress=True))
    must(not stream.getvalue(), f"printed {stream.getvalue()[:40]!r}")
    return f"{result}, and no progress bar fills the log"


def in_a_spawned_process() -> str:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(expected).result(timeout=HANG)
    must(np.array_equal(found, expected()), "the result differs")
    return "the same result, to the last bit"


def other_strings() -> str:
    ref, src = pair()
    for section in (ref, src):
        section.obs_names = section.obs_names.astype("string")
        section.var_names = section.var_names.astype("string")
    return same_bits(align(ref, src))


def copy_on_write() -> str:
    with pd.option_context("mode.copy_on_write", True):  # noqa: FBT003 - that is how pandas takes it
        return same_bits(align(*pair()))


CASES = [
    Case(row=38, given="two sections in one AnnData, their rows mixed", expect="handled", run=interleaved),
    Case(
        row=38,
        given="a third section in it that is not aligned",
        expect="handled",
        run=lambda: interleaved(("B", "A", "C")),
    ),
    Case(row=39, given="`library_key` with one label", expect="error", run=lambda: split(lambda c: ["A"] * len(c))),
    Case(
        row=39,
        given="`library_key` with more than two labels, and no `source`",
        expect="error",
        run=lambda: split(lambda c: [f"{i % 3}" for i in range(len(c))], reference="0"),
    ),
    Case(
        row=39,
        given="`library_key` is not in `obs`",
        expect="error",
        run=lambda: str(ia.pp.split_sections(pair()[0], library_key="slide", reference="A")),
    ),
    Case(
        row=40,
        given="categories that no cell has",
        expect="handled",
        run=lambda: split(lambda c: c.cat.add_categories(["Z"])),
    ),
    Case(row=40, given="NaN in `library_key`", expect="error", run=lambda: split(with_nan_labels)),
    Case(
        row=40,
        given='labels 1 and 2, asked for as "1"',
        expect="error",
        run=lambda: split(lambda c: (c == "A") + 1, reference="1"),
    ),
    Case(row=40, given="labels 1, 2 and 3", expect="handled", run=lambda: interleaved((2, 1, 3))),
    Case(row=40, given='labels 1 and "1"', expect="handled", run=lambda: interleaved(("1", 1), dtype=object)),
    Case(row=40, given="labels True and False", expect="handled", run=lambda: interleaved((True, False), dtype=bool)),
    Case(
        row=41,
        given='labels with "/" and spaces, written to h5ad',
        expect="handled",
        run=lambda: interleaved(("b 2/x", "a/1"), disk="h5ad"),
    ),
    Case(
        row=41,
        given="the same, written to zarr",
        expect="handled",
        run=lambda: interleaved(("b 2/x", "a/1"), disk="zarr"),
        slow=True,
    ),
    Case(row=42, given="a column to colour by that is not there", expect="error", run=no_such_color),
    Case(row=42, given="NaN among the labels of a metric", expect="handled", run=labels_with_nan),
    Case(row=43, given="a section and itself", expect="handled", run=itself),
    Case(row=44, given="sections that share memory", expect="handled", run=shared_memory),
    Case(row=45, given="a result is there already", expect="handled", run=own_key),
    Case(row=45, given="something else has the name of the result", expect="error", run=foreign_key),
    Case(row=50, given="a large backed matrix", expect="handled", run=large_file),
    Case(row=51, given="a CUDA device that is not there", expect="error", run=no_cuda),
    Case(row=53, given='`device="mps"`', expect="error", run=mps),
    Case(row=59, given="neither terminal nor notebook", expect="handled", run=no_terminal),
    Case(row=59, given="a spawned process", expect="handled", run=in_a_spawned_process, slow=True),
    Case(row=60, given="names in pandas' own type of string", expect="handled", run=other_strings),
    Case(row=60, given="pandas with copy-on-write", expect="handled", run=copy_on_write),
]
