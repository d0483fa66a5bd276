from __future__ import annotations

import os
import subprocess
import sys
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from anndata.io import read_h5ad, read_zarr

import inst_align as ia
from inst_align._anndata import write_alignment
from inst_align._checks import warn_user
from inst_align._replace import replacing
from inst_align.cli import _demo, main
from inst_align.cli._figures import principal_colors
from inst_align.cli._words import table
from inst_align.core.alignment import Alignment
from inst_align.core.transforms import Affine

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def sections():
    return ia.datasets.toy_pair(n_cells=60, n_genes=60, rng=0)


@pytest.fixture
def folder(tmp_path, sections, monkeypatch):
    """A working folder with the two sections as files."""
    for name, adata in zip(("ref", "src"), sections):
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """Replaces both fits by a shift of 5 in x, which takes no time, and lists the arguments they were given."""
    calls = []

    def shift(ref, src, *, key_added, spatial_key, **arguments):
        calls.append(arguments | {"key_added": key_added, "spatial_key": spatial_key})
        pose = Affine(np.array([[1.0, 0.0, 5.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        write_alignment(
            ref,
            src,
            key_added=key_added,
            spatial_key=spatial_key,
            params={"spatial_key": spatial_key, "n_genes": ref.n_vars},
            alignment=Alignment(affine=pose, transform=pose, report={"angle": 0.0, "mirrored": False}),
            xy_aligned=pose(src.obsm[spatial_key]),
        )

    monkeypatch.setattr(ia.pp, "rigid_align", shift)
    monkeypatch.setattr(ia.tl, "align_pair", shift)
    return calls


def align(*options: str) -> int:
    return main(["align", "ref.h5ad", "src.h5ad", *options])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- the whole thing


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A finished demo: where it wrote, and what it said."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    with redirect_stdout(StringIO()) as said:
        assert main(["demo", "--cells", "200", "--out", str(out)]) == 0
    return out, said.getvalue()


@pytest.mark.slow
def test_the_demo_writes_what_it_says_it_writes(demo):
    out, said = demo
    assert names(out) == set(_demo.FILES)
    assert all(name in said for name in _demo.FILES)
    assert all(path.read_bytes().startswith(PNG) for path in out.glob("*.png"))


@pytest.mark.slow
def test_the_demo_shows_numbers_that_hold_for_its_files(demo):
    out, said = demo
    ref, src = read_h5ad(out / "reference.h5ad"), read_h5ad(out / "source.h5ad")
    numbers = pd.read_csv(out / "metrics.csv", index_col=0)
    assert list(numbers.index) == list(_demo.ALIGNMENTS)
    pd.testing.assert_frame_equal(numbers, _demo.measure(ref, src), rtol=0, atol=6e-5)
    assert "\n".join(table(numbers)) in said
    error = numbers["median_error"]
    assert error["non-rigid"] < error["rigid"] < error["before"]
    assert error["true places"] == 0


@pytest.mark.slow
def test_the_demo_leaves_sections_to_go_on_with(demo):
    out, _ = demo
    ref, src = read_h5ad(out / "reference.h5ad"), read_h5ad(out / "source.h5ad")
    assert len(ref.obsm["X_inst"]) == 200
    assert ref.obsm["X_inst"].shape[1] == src.obsm["X_inst"].shape[1]
    np.testing.assert_allclose(
        ia.get.transform(src)(src.obsm["spatial"]), src.obsm["spatial_aligned"], rtol=0, atol=1e-6
    )


def test_a_real_alignment_lands_near_the_truth_and_draws_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ref, src = ia.datasets.toy_pair(n_cells=300, n_genes=60, warp=0.0, rng=0)
    ref.write_h5ad("ref.h5ad")
    src.write_h5ad("src.h5ad")
    assert (
        align("-o", "out.h5ad", "--out-ref", "fixed.h5ad", "--rigid-only", "--plot", "out.png", "--color", "layer") == 0
    )
    moved, fixed = read_h5ad("out.h5ad"), read_h5ad("fixed.h5ad")
    spacing = ia.metrics.spacing(ref.obsm["spatial"])
    error = ia.metrics.registration_error(moved.obsm["spatial_rigid"], moved.obsm["spatial_true"], unit=spacing)
    assert np.median(error) < 1
    np.testing.assert_array_equal(fixed.obsm["spatial_rigid"], ref.obsm["spatial"])
    assert Path("out.png").read_bytes().startswith(PNG)
    angle = ia.get.report(moved, "spatial_rigid")["angle"]
    said = capsys.readouterr().out
    assert f"turned by {angle:.1f} degrees, not mirrored" in said
    assert "Written: out.h5ad, fixed.h5ad, out.png" in said


# ---- what is read, passed on and written


def test_the_output_is_the_source_with_new_keys_only(folder, calls):
    assert align("-o", "out.h5ad") == 0
    before, after = read_h5ad("src.h5ad"), read_h5ad("out.h5ad")
    assert set(after.obsm) - set(before.obsm) == {"spatial_aligned"}
    assert set(after.uns) - set(before.uns) == {"inst_align"}
    np.testing.assert_array_equal(after.obsm["spatial_aligned"], before.obsm["spatial"] + [5, 0])
    np.testing.assert_array_equal(after.X.toarray(), before.X.toarray())
    pd.testing.assert_frame_equal(after.obs, before.obs)
    assert names(folder) == {"ref.h5ad", "src.h5ad", "out.h5ad"}


DEFAULTS = ("preset", "field", "normalize", "nan_policy", "scale", "allow_reflection", "key_added")


def test_without_options_the_defaults_of_the_package_are_asked_for(folder, calls):
    assert align("-o", "out.h5ad") == 0
    (asked,) = calls
    assert {key: asked[key] for key in DEFAULTS} == {
        "preset": "default",
        "field": True,
        "normalize": "auto",
        "nan_policy": "error",
        "scale": None,
        "allow_reflection": False,
        "key_added": "spatial_aligned",
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--preset", "paper"], {"preset": "paper"}),
        (["--no-field"], {"field": False}),
        (["--no-normalize"], {"normalize": False}),
        (["--allow-reflection"], {"allow_reflection": True}),
        (["--layer", "counts"], {"layer": "counts"}),
        (["--use-rep", "X_pca"], {"use_rep": "X_pca"}),
        (["--spatial-key", "spatial_true"], {"spatial_key": "spatial_true"}),
        (["--key-added", "mine"], {"key_added": "mine"}),
        (["--rng", "7"], {"rng": 7}),
        (["--device", "cpu"], {"device": "cpu"}),
        (["--scale", "0.2125"], {"scale": 0.2125}),
        (["--rigid-only", "--scale", "estimate"], {"scale": "estimate"}),
        (["--nan-policy", "drop-from-fit"], {"nan_policy": "drop-from-fit"}),
        (["--rigid-only"], {"key_added": "spatial_rigid"}),
        (["--rigid-only", "--allow-reflection"], {"allow_reflection": True}),
        (["--init", "search"], {"init": "search"}),
        (["--landmark-weight", "3"], {"landmark_weight": 3.0}),
    ],
)
def test_an_option_reaches_the_function_that_it_is_for(folder, calls, options, expected):
    source = read_h5ad("src.h5ad")
    source.write_h5ad("ref.h5ad")  # has the key spatial_true, too
    assert align("-o", "out.h5ad", *options) == 0
    (asked,) = calls
    assert expected.items() <= asked.items()
    assert ("preset" in asked) == ("--rigid-only" not in options)


@pytest.mark.parametrize("options", [[], ["--rigid-only"]])
def test_landmarks_are_read_from_a_table(folder, calls, options):
    table = pd.DataFrame({"name": ["a", "b"], "x_src": [1, 2], "y_src": [3, 4], "x_ref": [5, 6], "y_ref": [7, 8]})
    table.to_csv("marks.csv", index=False)
    assert align("-o", "out.h5ad", "--landmarks", "marks.csv", *options) == 0
    (asked,) = calls
    np.testing.assert_array_equal(asked["landmarks_ref"], [[5, 7], [6, 8]])
    np.testing.assert_array_equal(asked["landmarks_src"], [[1, 3], [2, 4]])


def test_zarr_goes_in_and_comes_out(folder, calls, sections):
    sections[0].write_zarr("ref.zarr")
    sections[1].write_zarr("src.zarr")
    for _ in range(2):  # the second time there is something to replace
        assert main(["align", "ref.zarr", "src.zarr", "-o", "out.zarr", "--out-ref", "fixed.h5ad"]) == 0
    np.testing.assert_array_equal(read_zarr("out.zarr").obsm["spatial_aligned"], sections[1].obsm["spatial"] + [5, 0])
    assert "spatial_aligned" in read_h5ad("fixed.h5ad").obsm
    assert names(folder) == {"ref.h5ad", "src.h5ad", "ref.zarr", "src.zarr", "out.zarr", "fixed.h5ad"}


def test_an_input_is_replaced_when_that_is_asked_for(folder, calls):
    assert align("-o", "src.h5ad", "--overwrite") == 0
    assert "spatial_aligned" in read_h5ad("src.h5ad").obsm


def test_a_link_stays_a_link(folder, calls):
    (folder / "elsewhere").mkdir()
    Path("out.h5ad").symlink_to(folder / "elsewhere" / "real.h5ad")
    assert align("-o", "out.h5ad") == 0
    assert Path("out.h5ad").is_symlink()
    assert "spatial_aligned" in read_h5ad(folder / "elsewhere" / "real.h5ad").obsm


def test_quiet_says_nothing(folder, calls, capsys):
    assert align("-o", "out.h5ad", "--quiet") == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


# ---- the report


def report(*options: str) -> int:
    return main(["report", "ref.h5ad", "out.h5ad", *options])


@pytest.mark.parametrize("options", [[], ["--rigid-only"], ["--key-added", "spatial_mine"]])
def test_a_report_can_be_written_along_with_the_result_or_later(folder, calls, capsys, options):
    assert align("-o", "out.h5ad", "--report", "first.html", "--color", "layer", *options) == 0
    said = capsys.readouterr().out
    assert "Written: out.h5ad, first.html" in said
    assert "  Verdict   A rotation and a shift (not judged)" in said
    key = ["--key", "spatial_mine"] if "--key-added" in options else []
    for _ in range(2):  # the second time there is something to replace
        assert report("-o", "later.html", "--color", "layer", *key) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Verdict   A rotation and a shift (not judged)\n")
    assert said.out.endswith("Written: later.html\n")
    assert said.err == ""
    assert Path("first.html").read_text("utf-8") == Path("later.html").read_text("utf-8")


def test_a_report_shows_what_it_is_asked_to(folder, calls, capsys):
    assert align("-o", "out.h5ad", "--quiet") == 0
    assert report("-o", "a.html", "--title", "Mine & yours", "--invert-y", "--quiet") == 0
    assert capsys.readouterr().out == ""
    page = Path("a.html").read_text("utf-8")
    assert "<h1>Mine &amp; yours</h1>" in page
    assert '"invertY":true' in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "a.pdf"], "`out`: 'a.pdf' does not end in .html"),
        (["-o", "mine.html"], "`out`: '{}' is there and is no report"),
        (["-o", "nowhere/a.html"], "`out`: there is no folder"),
        (["-o", "a.html", "--key", "nope"], "`key='nope'`: no record of a run"),
        (["-o", "a.html", "--color", "nope"], "`color='nope'`"),
    ],
)
def test_a_report_that_cannot_be_is_refused(folder, calls, capsys, options, message):
    assert align("-o", "out.h5ad", "--quiet") == 0
    (folder / "mine.html").write_text("<p>mine")
    before = names(folder)
    assert report(*options) == 2
    assert f"inst-align: error: {message.format(folder / 'mine.html')}" in capsys.readouterr().err
    assert names(folder) == before
    assert (folder / "mine.html").read_text() == "<p>mine"


def test_a_report_of_a_section_that_was_not_aligned_says_what_to_do(folder, capsys):
    assert main(["report", "ref.h5ad", "src.h5ad", "-o", "a.html"]) == 2
    assert "run the alignment first" in capsys.readouterr().err


# ---- all or nothing


@pytest.mark.parametrize(("error", "code"), [(OSError("disk full"), 2), (KeyboardInterrupt(), 130)])
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_a_write_that_breaks_off_leaves_everything_as_it_was(folder, calls, monkeypatch, sections, error, code, suffix):
    write = AnnData.write_zarr if suffix == ".zarr" else AnnData.write_h5ad
    old = f"out{suffix}"
    write(sections[0], old)
    before = names(folder)

    def half(adata, path, **options):
        write(adata, path)
        raise error

    monkeypatch.setattr(AnnData, write.__name__, half)
    assert align("-o", old) == code
    assert names(folder) == before
    read = read_zarr if suffix == ".zarr" else read_h5ad
    assert list(read(old).obs_names) == list(sections[0].obs_names)


def test_when_the_last_output_fails_none_appears(folder, calls, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise ValueError("cannot be drawn")

    monkeypatch.setattr(ia.pl, "alignment", fail)
    assert align("-o", "out.h5ad", "--out-ref", "fixed.h5ad", "--plot", "out.png") == 2
    assert names(folder) == {"ref.h5ad", "src.h5ad"}
    assert capsys.readouterr().err == "inst-align: error: cannot be drawn\n"


def test_ctrl_c_during_the_work_writes_nothing(folder, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(ia.tl, "align_pair", interrupted)
    assert align("-o", "out.h5ad") == 130
    assert names(folder) == {"ref.h5ad", "src.h5ad"}
    assert capsys.readouterr().err == "inst-align: interrupted\n"


def test_a_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path):
    target = tmp_path / "out.zarr"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(FileNotFoundError), replacing(target):
        pass  # nothing was written, so there is nothing to move
    assert names(tmp_path) == {"out.zarr"}
    assert names(target) == {"old"}


def test_the_folder_of_a_checkpoint_and_repeatable_sums_are_handed_on(folder, calls):
    assert align("-o", "out.h5ad", "--checkpoint", "state", "--deterministic") == 0
    assert calls[-1]["checkpoint"] == Path("state")
    assert calls[-1]["deterministic"] is True
    assert align("-o", "out.h5ad") == 0
    assert "checkpoint" not in calls[-1]
    assert calls[-1]["deterministic"] is False


def test_a_rigid_alignment_needs_no_checkpoint(folder, calls, capsys):
    assert align("-o", "out.h5ad", "--rigid-only", "--checkpoint", "state") == 2
    assert capsys.readouterr().err.endswith("leave out --checkpoint or --rigid-only.\n")
    assert not Path("state").exists()


def test_too_little_memory_ends_in_one_line(folder, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise MemoryError("The memory of the CUDA device does not suffice for the field.")

    monkeypatch.setattr(ia.tl, "align_pair", fail)
    assert align("-o", "out.h5ad") == 2
    assert capsys.readouterr().err == (
        "inst-align: error: The memory of the CUDA device does not suffice for the field.\n"
    )


# ---- what is refused, and how


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["-o", "src.h5ad"],
            "`out`: 'src.h5ad' is the source; choose another name, or pass --overwrite to replace it.",
        ),
        (["-o", "./ref.h5ad"], "is the reference"),
        (["-o", "link.h5ad"], "`out`: 'link.h5ad' is the source"),
        (["-o", "out.h5ad", "--out-ref", "ref.h5ad"], "`out_ref`: 'ref.h5ad' is the reference"),
        (["-o", "out.h5ad", "--out-ref", "./out.h5ad"], "`out_ref`: 'out.h5ad' is also `out`"),
        (["-o", "out.loom"], "`out`: 'out.loom' does not end in .h5ad or .zarr"),
        (["-o", "out.h5ad", "--plot", "out.h5ad"], "`plot`: 'out.h5ad' does not end in .pdf or .png or .svg"),
        (["-o", "nowhere/out.h5ad"], "`out`: there is no folder"),
        (["-o", "folder.h5ad"], "is a folder"),
        (["-o", "pictures.zarr"], "is there and is no AnnData"),
        (["-o", "out.h5ad", "--report", "out.pdf"], "`report`: 'out.pdf' does not end in .html"),
        (["-o", "out.h5ad", "--report", "mine.html"], "mine.html' is there and is no report"),
        (["-o", "out.h5ad", "--color", "layer"], "pass --plot or --report"),
        (["-o", "out.h5ad", "--plot", "out.png", "--color", "nope"], "`color='nope'`: the reference has it in neither"),
        (["-o", "out.h5ad", "--rigid-only", "--preset", "paper"], "leave out --preset or --rigid-only"),
        (["-o", "out.h5ad", "--rigid-only", "--init", "pca"], "leave out --init or --rigid-only"),
        (["-o", "out.h5ad", "--landmarks", "nope.csv"], "`landmarks`: there is no 'nope.csv'"),
        (["-o", "out.h5ad", "--landmarks", "ref.h5ad"], "`landmarks`: 'ref.h5ad' does not end in .csv"),
        (["-o", "out.h5ad", "--landmarks", "empty.csv"], "`landmarks`: 'empty.csv' cannot be read as a table"),
        (["-o", "out.h5ad", "--landmarks", "marks.csv"], "has no column x_ref, y_ref; its columns are x_src, y_src"),
    ],
)
def test_what_cannot_work_is_refused_before_the_work(folder, calls, capsys, options, message):
    (folder / "folder.h5ad").mkdir()
    (folder / "pictures.zarr").mkdir()
    (folder / "empty.csv").write_text("")
    (folder / "mine.html").write_text("<p>mine")
    (folder / "marks.csv").write_text("x_src,y_src\n1,2\n")
    os.link("src.h5ad", "link.h5ad")
    before = names(folder), Path("src.h5ad").read_bytes(), Path("ref.h5ad").read_bytes()
    assert align(*options) == 2
    said = capsys.readouterr()
    assert said.err.startswith("inst-align: error: `")
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert calls == []
    assert (names(folder), Path("src.h5ad").read_bytes(), Path("ref.h5ad").read_bytes()) == before


def test_a_missing_input_is_named(folder, calls, capsys):
    assert main(["align", "ref.h5ad", "nope.h5ad", "-o", "out.h5ad"]) == 2
    assert capsys.readouterr().err == "inst-align: error: `source`: there is no 'nope.h5ad'; check the path.\n"


@pytest.mark.parametrize("name", ["text.h5ad", "empty.zarr"])
def test_an_input_that_is_no_anndata_is_named(folder, calls, capsys, name):
    if name == "text.h5ad":
        Path(name).write_text("hello")
    else:
        Path(name).mkdir()
    assert main(["align", name, "src.h5ad", "-o", "out.h5ad"]) == 2
    assert f"`reference`: '{name}' cannot be read as AnnData (" in capsys.readouterr().err


def test_a_message_of_the_package_comes_without_quotes_and_traceback(folder, capsys):
    assert align("-o", "out.h5ad", "--spatial-key", "nope", "--rigid-only") == 2
    said = capsys.readouterr().err
    assert said.startswith("inst-align: error: `spatial_key='nope'`: no `obsm['nope']` in the reference")
    assert said.count("\n") == 1
    assert not said.rstrip().endswith(('"', "'"))


def test_debug_shows_where_an_error_arose(folder):
    with pytest.raises(KeyError, match="nope"):
        align("-o", "out.h5ad", "--spatial-key", "nope", "--rigid-only", "--debug")


def test_an_error_that_is_no_fault_of_the_input_is_not_dressed_up(folder, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("a bug")

    monkeypatch.setattr(ia.tl, "align_pair", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        align("-o", "out.h5ad")


def test_warnings_come_as_one_line_and_only_those_for_users(folder, calls, monkeypatch, capsys):
    quick = ia.tl.align_pair

    def warning(*arguments, **options):
        warn_user("The map folds\n  at 3 % of the cells.")
        warnings.warn("the API will change", FutureWarning, stacklevel=1)
        quick(*arguments, **options)

    monkeypatch.setattr(ia.tl, "align_pair", warning)
    handler = warnings.showwarning
    assert align("-o", "out.h5ad", "--quiet") == 0
    assert capsys.readouterr().err == "warning: The map folds at 3 % of the cells.\n"
    assert warnings.showwarning is handler


@pytest.mark.parametrize(
    ("options", "message"), [(["--cells", "3"], "`n_cells` is 3"), (["-o", "file"], "`out`: 'file' is a file")]
)
def test_the_demo_refuses_what_cannot_work(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(["demo", *options]) == 2
    assert message in capsys.readouterr().err
    assert names(tmp_path) == {"file"}


# ---- the command itself


def test_the_package_runs_as_a_program_and_says_its_version():
    done = subprocess.run([sys.executable, "-m", "inst_align", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"inst-align {ia.__version__}\n"


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 2
    assert "demo" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["align", "a.h5ad", "b.h5ad"], ["fly"], ["demo", "--cells", "many"]])
def test_arguments_that_are_not_understood_end_with_code_2(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_the_help_loads_nothing_but_the_standard_library():
    code = "import sys; from inst_align.cli import _options; _options.parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "anndata", "torch", "matplotlib", "pandas"} & set(done.stdout.split())


# ---- words


def test_a_table_has_a_number_or_a_dash_in_each_column():
    numbers = pd.DataFrame(
        {"median_error": 1.234, "p95_error": 5.0, "nn_accuracy": 0.9, "ot_accuracy": 0.8, "chamfer_over_floor": 1.0}
        | {"fold_fraction": [np.nan, 0.5]},
        index=["before", "after"],
    )
    *_, before, after = table(numbers)
    assert before.split() == ["before", "1.23", "5.00", "0.900", "0.800", "1.00", "-"]
    assert after.split()[-1] == "50.0%"
    assert len({len(line) for line in table(numbers)}) == 1


def test_colours_of_an_embedding_tell_its_axes_apart():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(100, 5)) * [10, 5, 2, 0.1, 0.1]
    colors = principal_colors(z)
    assert colors.shape == (100, 3)
    assert colors.min() == 0
    assert colors.max() <= 1
    assert abs(np.corrcoef(colors[:, 0], z[:, 0])[0, 1]) > 0.95


def test_an_embedding_of_one_column_has_colours():
    z = np.arange(50.0)[:, None]
    colors = principal_colors(z)
    assert abs(np.corrcoef(colors[:, 0], z[:, 0])[0, 1]) > 0.95
    assert np.ptp(colors[:, 1:]) == 0
