"""The report as a page: what is in it, that it needs nothing else, and that its slider moves the cells in a browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from anndata.io import read_h5ad

import inst_align as ia
from inst_align._anndata import write_alignment
from inst_align.core.alignment import Alignment
from inst_align.core.transforms import Affine, Compose, Displacement
from inst_align.pl import _report
from inst_align.pl._report import figures
from inst_align.pl._report.sections import read_sections

if TYPE_CHECKING:
    from pathlib import Path

Pair = tuple[AnnData, AnnData]

NOTHING_AROUND = {"br", "hr", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """What a page says and what it refers to; fails where elements are not nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.raw, self.tags, self.ids, self.references, self.text, self._open = text, [], [], [], "", []
        self.feed(text)
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        self.references += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in NOTHING_AROUND:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.text += data

    @property
    def scene(self) -> dict[str, Any]:
        return json.loads(re.search(r'id="scene">(.*?)</script>', self.raw).group(1))

    def cells(self, name: str) -> np.ndarray:
        return np.frombuffer(base64.b64decode(self.scene[name]), "<f4").reshape(-1, 2)


def moved_by(t: Any, n: int = 120, *, key: str = "spatial_aligned", verdict: str = "non-rigid", **report: Any) -> Pair:
    """Return a pair of made-up sections with the record of a run that came to this map."""
    rng = np.random.default_rng(1)
    ref, src = AnnData(np.zeros((n, 1), np.float32)), AnnData(np.zeros((n, 1), np.float32))
    for adata in (ref, src):
        adata.obsm["spatial"] = rng.uniform(0, [200, 100], (n, 2))
        adata.obs["layer"] = pd.Categorical(rng.choice(["L1", "L2"], n))
    src.obsm["spatial"] = t.inverse()(src.obsm["spatial"])
    pose = t.parts[0] if isinstance(t, Compose) else t
    found = Alignment(
        affine=pose,
        transform=t,
        report={"verdict": verdict, "angle": pose.angle, "mirrored": pose.is_reflection, "overlap": 0.9} | report,
        history={"registration.data": np.array([3.0, 2.0, 1.0])},
    )
    write_alignment(
        ref,
        src,
        key_added=key,
        spatial_key="spatial",
        params={"spatial_key": "spatial", "config": {"levels": {"0": {"sigma": 0.5}}}},
        alignment=found,
        xy_aligned=t(src.obsm["spatial"]),
    )
    return ref, src


def bent() -> Compose:
    """Return a turn, a shift, and a displacement of 4 along x."""
    vectors = np.zeros((2, 8, 12), np.float32)
    vectors[0] = 4
    return Compose((Affine.from_rigid(2.0, (500, 0)), Displacement(vectors, (-50, -50), 30.0)))


DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def _pictures_are_dots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no pictures, which takes most of the time, but for tests that use ``pictures``."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(figures, "drawn", lambda *arguments, **options: DOT)


@pytest.fixture
def pictures() -> None:
    """Draw real pictures."""


def shown(pair: Pair, path: Path, **options: Any) -> Page:
    return Page(ia.pl.report(*pair, path / "report.html", **options).read_text("utf-8"))


# ---- what is in it


def test_the_verdict_comes_before_everything_else_and_says_what_to_do(tmp_path: Path) -> None:
    page = shown(moved_by(bent()), tmp_path)
    places = [page.text.index(words) for words in ("Supported", "Bending the source pays", "Next.", "Before and after")]
    assert places == sorted(places)
    assert page.raw.count("<h1>") == 1
    for words in (
        "How the map bends the source",
        "The numbers",
        "Convergence",
        "Parameters",
        "levels.0.sigma",
        "Python",
    ):
        assert words in page.text


@pytest.mark.parametrize(
    ("verdict", "tone"), [("non-rigid", "good"), ("ambiguous pose", "check"), ("poor", "bad"), ("untested", "check")]
)
def test_the_tone_of_the_page_is_that_of_the_verdict(tmp_path: Path, verdict: str, tone: str) -> None:
    assert f'class="verdict {tone}"' in shown(moved_by(bent(), verdict=verdict), tmp_path).raw


def test_a_doubt_stands_with_the_verdict(tmp_path: Path) -> None:
    page = shown(moved_by(bent(), fold_fraction=0.02), tmp_path)
    assert page.text.index("folds at 2.00%") < page.text.index("Before and after")
    assert 'class="verdict check"' in page.raw


@pytest.mark.parametrize("correlation", [0.5, float("nan")])
def test_what_unrelated_sections_would_agree_by_stands_next_to_the_agreement(
    tmp_path: Path, correlation: float
) -> None:
    numbers = {
        "correlation_pose": correlation,
        "correlation_null": correlation / 5,
        "z": correlation,
        "shared_signal": 1.0,
    }
    page = shown(moved_by(bent(), **{f"heldout_{name}": value for name, value in numbers.items()}), tmp_path)
    assert ("correlation of held-out genes at the pose; 0.10 for unrelated sections" in page.text) == (
        correlation == 0.5
    )


@pytest.mark.usefixtures("pictures")
def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    page = shown(moved_by(bent()), tmp_path)
    assert page.references
    assert all(reference.startswith("data:") for reference in page.references)
    assert "default-src 'none'" in page.raw
    assert not re.search(r"https?://|@import|url\(", page.raw)
    assert len(page.ids) == len(set(page.ids))


def test_the_cells_are_where_the_sections_have_them(tmp_path: Path) -> None:
    pair = moved_by(bent())
    page = shown(pair, tmp_path)
    middle = pair[0].obsm["spatial"].mean(axis=0)
    wanted = {
        "ref": pair[0].obsm["spatial"],
        "stored": pair[1].obsm["spatial"],
        "posed": bent().parts[0](pair[1].obsm["spatial"]),
        "moved": pair[1].obsm["spatial_aligned"],
    }
    kept = np.random.default_rng(0).permutation(120)
    for name, xy in wanted.items():
        np.testing.assert_allclose(page.cells(name) + middle, xy[kept], atol=1e-3)


def test_of_many_cells_some_are_shown_and_the_page_says_so(tmp_path: Path) -> None:
    pair = moved_by(Affine.from_rigid(1.0, (0, 0)))
    with pytest.warns(UserWarning, match="cells of the reference"):
        page = shown((pair[0][:60].copy(), pair[1]), tmp_path, max_cells=50)
    assert (len(page.cells("ref")), len(page.cells("moved"))) == (50, 50)
    assert "50 of 60 cells of the reference and 50 of 120 cells of the source" in page.text


def test_cells_without_a_place_are_left_out(tmp_path: Path) -> None:
    ref, src = moved_by(Affine.from_rigid(1.0, (0, 0)))
    src.obsm["spatial_aligned"][7] = ref.obsm["spatial_aligned"][3] = np.nan
    page = shown((ref, src), tmp_path)
    assert np.isfinite(page.cells("moved")).all()
    assert (len(page.cells("ref")), len(page.cells("moved"))) == (119, 119)


@pytest.mark.usefixtures("pictures")
def test_the_maps_of_overlap_and_uncertainty_are_pictures() -> None:
    ref, src = moved_by(bent())
    sections = read_sections(ref, src, "spatial_aligned")
    assert figures.overlap(sections, ref, src, key="spatial_aligned", invert_y=False) is None
    assert figures.uncertainty(sections, src, key="spatial_aligned", invert_y=False) is None
    src.obs["mine_overlap"], src.obs["mine_sd"] = np.linspace(0, 1, 120), [np.nan, np.inf, *range(118)]
    drawn = (
        figures.overlap(sections, ref, src, key="mine", invert_y=True),
        figures.uncertainty(sections, src, key="mine", invert_y=True),
    )
    assert all(picture.png.startswith(b"\x89PNG") for picture in drawn)


def test_overlap_and_uncertainty_are_drawn_where_the_cells_have_them(tmp_path: Path) -> None:
    ref, src = moved_by(bent())
    plain = shown((ref, src), tmp_path)
    src.obs["inst_overlap"], src.obs["inst_sd"] = np.linspace(0, 1, 120), np.linspace(0, 9, 120)
    ref.obs["inst_overlap"] = np.linspace(0, 1, 120)
    full = shown((ref, src), tmp_path, overwrite=True)
    assert plain.tags.count("img") + 2 == full.tags.count("img")
    for words in ("Probability that a cell has a counterpart", "How far a cell of the source is expected to be"):
        assert words in full.text
        assert words not in plain.text
    for nothing in ("words", np.nan):  # NaN in all cells is what a run leaves that matches nothing
        src.obs["inst_overlap"] = ref.obs["inst_overlap"] = nothing
        assert "Probability" not in shown((ref, src), tmp_path, overwrite=True).text


def test_a_column_can_colour_the_cells(tmp_path: Path) -> None:
    pair = moved_by(bent())
    by_section, by_layer = shown(pair, tmp_path, color="layer").scene["colorings"]
    assert by_section["name"] is None
    assert by_layer["name"] == "layer"
    assert [label for label, _ in by_layer["legend"]] == ["L1", "L2"]
    labels = np.concatenate([adata.obs["layer"].to_numpy() for adata in pair])
    kept = np.random.default_rng(0).permutation(120)
    codes = np.frombuffer(base64.b64decode(by_layer["cells"]), "<u2")
    colors = dict(by_layer["legend"])
    wanted = [colors[label] for label in labels[np.concatenate([kept, 120 + kept])]]
    assert [by_layer["palette"][code] for code in codes] == wanted


# ---- what it takes


def test_a_rigid_run_is_shown_from_where_it_was_to_its_pose(tmp_path: Path) -> None:
    page = shown(moved_by(Affine.from_rigid(1.0, (9, 9)), key="spatial_rigid"), tmp_path, key="spatial_rigid")
    assert page.raw.count("type='radio'") == 1
    assert "How the map bends" not in page.text
    np.testing.assert_array_equal(page.cells("posed"), page.cells("moved"))


def test_a_run_of_the_paper_is_shown(pair: Pair, true_pose: np.ndarray, tmp_path: Path) -> None:
    from inst_align.core.paper_config import PaperConfig

    config = PaperConfig(phase1_epochs=2, phase2_epochs=2)
    ia.tl.align_pair(*pair, preset="paper", config=config, init=true_pose, rng=0, progress=False)
    page = shown(pair, tmp_path)
    assert 'class="verdict good"' not in page.raw
    assert "phase2 ended after 2 steps" in page.text


def test_sections_from_files_and_a_reference_as_it_went_in_give_the_same_page(tmp_path: Path) -> None:
    ref, src = moved_by(bent())
    before = shown((ref, src), tmp_path).raw
    del ref.obsm["spatial_aligned"], ref.uns["inst_align"]
    back = []
    for name, adata in {"ref": ref, "src": src}.items():
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
        back.append(read_h5ad(tmp_path / f"{name}.h5ad"))
    assert shown((back[0], back[1]), tmp_path, overwrite=True).raw == before


@pytest.mark.usefixtures("pictures")
def test_the_same_call_gives_the_same_bytes_and_leaves_everything_else_alone(tmp_path: Path) -> None:
    pair = moved_by(bent())
    obsm, style, figures = [set(adata.obsm) for adata in pair], dict(mpl.rcParams), plt.get_fignums()
    first, second = (ia.pl.report(*pair, tmp_path / name, color="layer") for name in ("a.html", "b.html"))
    assert first.read_bytes() == second.read_bytes()
    assert ([set(adata.obsm) for adata in pair], dict(mpl.rcParams), plt.get_fignums()) == (obsm, style, figures)


def test_what_comes_from_the_data_is_never_taken_for_markup(tmp_path: Path) -> None:
    bad = "</script><script>alert(1)</script>"
    ref, src = moved_by(bent(), **{bad: bad, "verdict": bad})
    for adata in (ref, src):
        adata.obs[bad] = pd.Categorical(adata.obs["layer"].astype(str) + bad)
    src.uns["inst_align"]["spatial_aligned"]["params"][bad] = bad
    for name in ("obsm", "uns"):
        for adata in (ref, src):
            place = getattr(adata, name) if name == "obsm" else adata.uns["inst_align"]
            if "spatial_aligned" in place:
                place[f"<i>&'\"{bad}"] = place["spatial_aligned"]
    page = shown((ref, src), tmp_path, key=f"<i>&'\"{bad}", color=bad, title=f"A & {bad}")
    assert page.tags.count("script") == 2
    assert "i" not in page.tags
    assert page.text.count(bad) >= 6
    assert page.scene["colorings"][1]["name"] == bad


@pytest.mark.usefixtures("pictures")
def test_a_pair_of_5000_cells_makes_a_file_of_less_than_3_mb(tmp_path: Path) -> None:
    pair = moved_by(bent(), n=5000)
    for adata in pair:
        adata.obs["inst_overlap"] = adata.obs["inst_sd"] = np.linspace(0, 1, 5000)
    assert ia.pl.report(*pair, tmp_path / "report.html", color="layer").stat().st_size < 3e6


# ---- what it refuses, and warns of


def test_other_cells_than_those_that_were_aligned_are_told_of(tmp_path: Path) -> None:
    ref, src = moved_by(bent())
    with pytest.warns(UserWarning, match="cells of the reference are not those that were aligned"):
        page = shown((src, src), tmp_path)
    assert "cells of the reference are not those" in page.text
    assert 'class="verdict check"' in page.raw
    with pytest.warns(UserWarning, match="cells of the source are not those"):
        shown((ref, src[10:].copy()), tmp_path, overwrite=True)


def test_what_is_there_is_replaced_only_if_it_is_a_report_and_that_is_asked_for(tmp_path: Path) -> None:
    pair = moved_by(bent())
    path, other = tmp_path / "report.html", tmp_path / "mine.html"
    ia.pl.report(*pair, path, title="first")
    other.write_text("<p>mine")
    with pytest.raises(FileExistsError, match="`overwrite=True`"):
        ia.pl.report(*pair, path, title="second")
    assert "first" in path.read_text()
    ia.pl.report(*pair, path, title="second", overwrite=True)
    assert "second" in path.read_text()
    with pytest.raises(FileExistsError, match="is no report"):
        ia.pl.report(*pair, other, overwrite=True)
    assert other.read_text() == "<p>mine"


def test_a_report_that_fails_halfway_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = moved_by(bent())
    path = ia.pl.report(*pair, tmp_path / "report.html")
    before = path.read_bytes()

    def half(self: Path, text: str, encoding: str) -> int:
        self.write_bytes(text[:100].encode())
        raise OSError("disk full")

    monkeypatch.setattr(type(path), "write_text", half)
    with pytest.raises(OSError, match="disk full"):
        ia.pl.report(*pair, path, overwrite=True, title="new")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"path": "report.pdf"}, ValueError, "does not end in .html"),
        ({"path": "nowhere/report.html"}, FileNotFoundError, "there is no folder"),
        ({"key": "nope"}, KeyError, "no record of a run .* run the alignment first"),
        ({"color": "nope"}, KeyError, "`color='nope'`"),
        ({"max_cells": 0}, ValueError, "`max_cells=0` leaves no cell"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    options = {"path": "report.html"} | options
    with pytest.raises(error, match=message):
        ia.pl.report(*moved_by(bent()), tmp_path / options.pop("path"), **options)
    assert not list(tmp_path.iterdir())


def test_sections_the_wrong_way_round_are_noticed(tmp_path: Path) -> None:
    ref, src = moved_by(bent())
    with pytest.raises(ValueError, match="was the reference of this run"):
        ia.pl.report(src, ref, tmp_path / "report.html")


# ---- in a browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class Browser:
    """Headless Chromium: opens a file and gives back the document as scripts have left it, and a picture."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder

    def _run(self, *options: str) -> tuple[str, list[str]]:
        done = subprocess.run(
            [
                self._program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--enable-logging=stderr",
                "--virtual-time-budget=2000",
                f"--user-data-dir={self._folder / 'profile'}",
                *options,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    def document(self, path: Path, fragment: str = "") -> tuple[str, list[str]]:
        return self._run("--dump-dom", f"{path.as_uri()}#{fragment}")

    def picture(self, path: Path, fragment: str, *, width: int = 900, height: int = 1000) -> np.ndarray:
        file = self._folder / "picture.png"
        _, said = self._run(f"--screenshot={file}", f"--window-size={width},{height}", f"{path.as_uri()}#{fragment}")
        assert not said
        return plt.imread(file)


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"there is no browser: none of {', '.join(BROWSERS)} is installed")
    return Browser(program, tmp_path)


def left(document: str) -> float:
    """Return how far the page says that the source has to go, in neighbour distances."""
    words = re.search(r'<output id="left"[^>]*>([^<]*)</output>', document).group(1)
    if words == "The source's cells are where the map puts them.":
        return 0.0
    return float(re.search(r"are ([\d.]+) nd from", words).group(1))


def test_in_a_browser_the_slider_moves_the_cells_and_nothing_is_complained_of(browser: Browser, tmp_path: Path) -> None:
    pair = moved_by(bent())
    path = ia.pl.report(*pair, tmp_path / "report.html", color="layer")
    documents = {state: browser.document(path, state) for state in ("slider=0", "slider=0&from=posed", "")}
    assert [said for _, said in documents.values()] == [[]] * 3
    nd = ia.metrics.spacing(pair[0].obsm["spatial"])
    whole = np.median(np.linalg.norm(pair[1].obsm["spatial_aligned"] - pair[1].obsm["spatial"], axis=1)) / nd
    distances = {state: left(document) for state, (document, _) in documents.items()}
    assert distances["slider=0"] == pytest.approx(whole, abs=0.51)
    assert distances["slider=0&from=posed"] == pytest.approx(4 / nd, abs=0.01)
    assert distances[""] == 0
    assert 'id="before">After the pose<' in documents["slider=0&from=posed"][0]
    assert 'id="before">As stored<' in documents["slider=0"][0]


def test_in_a_browser_a_hand_on_the_slider_and_on_the_choices_is_felt(browser: Browser, tmp_path: Path) -> None:
    path = ia.pl.report(*moved_by(bent()), tmp_path / "report.html")
    hand = """<script>
        const move = (id, value) => { const input = document.getElementById(id); input.value = value;
          input.dispatchEvent(new Event("input")); };
        document.querySelector("#starts input[value=posed]").click();
        move("slider", 500);
    </script></body>"""
    nd = ia.metrics.spacing(moved_by(bent())[0].obsm["spatial"])
    path.write_text(path.read_text("utf-8").replace("</body>", hand), "utf-8")
    document, said = browser.document(path)
    assert left(document) == pytest.approx(2 / nd, abs=0.01)
    assert not said


def test_in_a_browser_the_sections_come_together_on_the_screen(browser: Browser, tmp_path: Path) -> None:
    path = ia.pl.report(*moved_by(bent()), tmp_path / "report.html")

    def apart(fragment: str) -> float:
        """Return the distance between the middles of blue and orange pixels, in pixels, and that there are both."""
        rgb = browser.picture(path, fragment)[300:, :, :3]
        middles = []
        for color in ("#0072B2", "#E69F00"):
            pixels = np.argwhere(np.abs(rgb - mpl.colors.to_rgb(color)).max(axis=2) < 0.2)
            assert len(pixels) > 300
            middles.append(pixels.mean(axis=0))
        return float(np.linalg.norm(middles[0] - middles[1]))

    assert apart("slider=0") > 150
    assert apart("slider=1") < 60


@pytest.mark.usefixtures("pictures")
def test_in_a_browser_nothing_sticks_out_on_narrow_and_wide_screens(browser: Browser, tmp_path: Path) -> None:
    path = ia.pl.report(*moved_by(bent()), tmp_path / "report.html", color="layer", title="word" * 40)
    frames = "".join(
        f'<iframe width="{w}" height="900" srcdoc="{escape(path.read_text())}"></iframe>' for w in (400, 1400)
    )
    probe = """<script>onload = () => { document.title = [0, 1].map((i) =>
        `${frames[i].document.documentElement.scrollWidth} of ${frames[i].innerWidth}`).join(", "); }</script>"""
    both = tmp_path / "both.html"
    both.write_text(f"<style>iframe {{ border: 0 }}</style>{frames}{probe}", "utf-8")
    document, said = browser.document(both)
    assert not said
    assert "<title>400 of 400, 1400 of 1400</title>" in document


def test_in_a_browser_a_complaint_would_be_noticed(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("<script>nothing.there()</script>")
    _, said = browser.document(path)
    assert "nothing is not defined" in said[0]


def test_the_script_of_the_page_can_be_parsed(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node to parse it")
    script = tmp_path / "page.js"
    script.write_text(files(_report).joinpath("page.js").read_text("utf-8"))
    done = subprocess.run([node, "--check", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
