import importlib
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from scipy.sparse import csr_array, csr_matrix
from scipy.spatial import cKDTree

import inst_align as ia
from inst_align.core.transforms import Affine, Compose, Displacement, to_dict
from inst_align.pl import _axes, _colors

BLUE, ORANGE = (color.lower() for color in _colors.SECTION_COLORS)


@pytest.fixture(autouse=True)
def _figures_are_closed():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def section(n, layers, seed):
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {
            "layer": pd.Categorical(rng.choice(layers, n), categories=layers),
            "depth": rng.normal(size=n),
            "batch": rng.integers(0, 4, n),
        },
        index=[f"cell{i}" for i in range(n)],
    )
    adata = AnnData(csr_matrix(rng.poisson(2, (n, 3)).astype(np.float32)), obs=obs)
    adata.var_names = ["Aldoc", "Calb1", "Rare"]
    adata.obsm["spatial"] = rng.uniform(0, 100, (n, 2))
    adata.obsm["spatial_aligned"] = adata.obsm["spatial"] + 3
    return adata


@pytest.fixture
def pair():
    return section(70, ["L1", "L2", "L4"], 1), section(50, ["L2", "L3"], 2)


@pytest.fixture
def ax():
    return Figure(figsize=(6, 5)).subplots()


def drawn(ax):
    """Places, faces, edges and line widths of the cells in an overlay, in rows that are sorted by place."""
    cells = ax.collections[0]
    xy = np.asarray(cells.get_offsets())
    order = np.lexsort(xy.T)
    faces, edges = cells.get_facecolors(), cells.get_edgecolors()
    return xy[order], faces[order], edges[order], np.asarray(cells.get_linewidths())[order]


def cells_of(adata_ref, adata_src, key="spatial_aligned"):
    """Places of all cells, in rows that are sorted by place, and the order that sorts them."""
    xy = np.vstack([adata_ref.obsm[key], adata_src.obsm[key]])
    order = np.lexsort(xy.T)
    return xy[order], order


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


class TestAlignment:
    def test_makes_two_panels_and_returns_the_one_after(self, pair):
        ax = ia.pl.alignment(*pair)
        assert isinstance(ax, Axes)
        assert [panel.get_title(loc="left") for panel in ax.figure.axes] == ["Before", "After"]
        assert ax is ax.figure.axes[1]
        assert plt.get_fignums() == [ax.figure.number]

    def test_draws_every_cell_of_both_sections_where_it_is(self, pair):
        before, after = ia.pl.alignment(*pair).figure.axes
        np.testing.assert_array_equal(drawn(before)[0], cells_of(*pair, "spatial")[0])
        np.testing.assert_array_equal(drawn(after)[0], cells_of(*pair)[0])

    def test_without_before_there_is_one_panel(self, pair):
        assert len(ia.pl.alignment(*pair, before=None).figure.axes) == 1

    def test_before_need_not_exist_when_it_is_not_drawn(self, pair, ax):
        del pair[0].obsm["spatial"]
        ia.pl.alignment(*pair, before=None)
        ia.pl.alignment(*pair, ax=ax)

    def test_a_given_axes_is_drawn_into_and_no_figure_is_made(self, pair, ax):
        assert ia.pl.alignment(*pair, color="depth", ax=ax, title="Both") is ax
        assert ax.figure.axes == [ax]
        assert ax.get_title(loc="left") == "Both"
        assert plt.get_fignums() == []

    def test_the_title_of_two_panels_is_the_figures(self, pair):
        assert ia.pl.alignment(*pair, title="Mouse brain").figure.get_suptitle() == "Mouse brain"

    def test_sections_have_two_colours_and_a_legend(self, pair, ax):
        ia.pl.alignment(*pair, ax=ax)
        of_reference = cells_of(*pair)[1] < pair[0].n_obs
        assert [to_hex(face) for face in drawn(ax)[1]] == list(np.where(of_reference, BLUE, ORANGE))
        assert legend_texts(ax) == ["reference", "source"]

    def test_neither_section_hides_the_other(self, pair, ax):
        ia.pl.alignment(*pair, ax=ax)
        faces = [to_hex(face) for face in ax.collections[0].get_facecolors()]
        for part in (faces[:30], faces[-30:]):
            assert {BLUE, ORANGE} == set(part)

    def test_the_order_of_drawing_is_always_the_same_and_leaves_numpy_alone(self, pair):
        state = np.random.get_state()[1].copy()  # noqa: NPY002 (the state that must not change)
        first, second = (ia.pl.alignment(*pair, ax=Figure().subplots()).collections[0] for _ in range(2))
        np.testing.assert_array_equal(first.get_offsets(), second.get_offsets())
        np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002

    @pytest.mark.parametrize(
        "palette", [["red", "lime"], {"source": "lime", "reference": "red"}, mpl.colors.ListedColormap(["red", "lime"])]
    )
    def test_colours_of_the_sections_can_be_chosen(self, pair, ax, palette):
        if isinstance(palette, mpl.colors.Colormap):
            palette = palette.colors
        ia.pl.alignment(*pair, ax=ax, palette=palette)
        of_reference = cells_of(*pair)[1] < pair[0].n_obs
        assert [to_hex(face) for face in drawn(ax)[1]] == list(np.where(of_reference, to_hex("red"), to_hex("lime")))

    def test_axes_are_equal_and_y_grows_upwards_unless_inverted(self, pair):
        for inverted in (False, True):
            for panel in ia.pl.alignment(*pair, invert_y=inverted).figure.axes:
                assert panel.get_aspect() == 1
                assert panel.yaxis_inverted() == inverted
                assert not panel.xaxis_inverted()

    def test_drawing_twice_inverts_once(self, pair, ax):
        for _ in range(2):
            ia.pl.alignment(*pair, ax=ax, invert_y=True)
        assert ax.yaxis_inverted()

    def test_markers_shrink_with_the_number_of_cells_and_grow_with_the_axes(self):
        def size(n, inches):
            ax = Figure(figsize=(inches, inches)).subplots()
            ia.pl.alignment(section(n, ["L1"], 0), section(n, ["L1"], 1), ax=ax)
            return ax.collections[0].get_sizes()[0]

        assert size(800, 4) == pytest.approx(size(400, 4) / 2, rel=0.2)
        assert size(400, 4) == pytest.approx(size(400, 2) * 4, rel=0.01)

    def test_size_and_alpha_can_be_chosen(self, pair, ax):
        ia.pl.alignment(*pair, ax=ax, size=7.0, alpha=0.25)
        assert ax.collections[0].get_sizes() == [7.0]
        assert set(drawn(ax)[1][:, 3]) == {0.25}

    def test_many_cells_are_rasterised_and_few_are_not(self, pair, monkeypatch):
        few = ia.pl.alignment(*pair, ax=Figure().subplots())
        monkeypatch.setattr(_axes, "RASTER_ABOVE", 100)
        many = ia.pl.alignment(*pair, ax=Figure().subplots())
        assert not few.collections[0].get_rasterized()
        assert many.collections[0].get_rasterized()

    def test_cells_in_one_place_are_drawn(self, ax):
        same = AnnData(np.zeros((4, 1)), obsm={"spatial_aligned": np.ones((4, 2))})
        ia.pl.alignment(same, same.copy(), ax=ax)
        assert len(drawn(ax)[0]) == 8


class TestCategories:
    def test_each_cell_has_the_colour_of_its_category_in_the_legend(self, pair, ax):
        ia.pl.alignment(*pair, color="layer", ax=ax)
        handles = {h.get_label(): to_hex(h.get_markerfacecolor()) for h in ax.get_legend().legend_handles}
        labels = np.concatenate([adata.obs["layer"].astype(str) for adata in pair])[cells_of(*pair)[1]]
        assert [to_hex(edge) for edge in drawn(ax)[2]] == [handles[label] for label in labels]
        assert len({handles[name] for name in ("L1", "L2", "L3", "L4")}) == 4

    def test_the_legend_unites_both_sections_in_the_references_order(self, pair, ax):
        ia.pl.alignment(*pair, color="layer", ax=ax)
        assert [text for text in legend_texts(ax) if text] == ["L1", "L2", "L4", "L3", "reference", "source"]
        assert ax.get_legend().get_title().get_text() == "layer"

    def test_reference_cells_are_dots_and_source_cells_rings(self, pair, ax):
        ia.pl.alignment(*pair, color="layer", ax=ax)
        _, faces, edges, widths = drawn(ax)
        of_reference = cells_of(*pair)[1] < pair[0].n_obs
        assert (faces[of_reference, 3] > 0).all()
        assert (widths[of_reference] == 0).all()
        assert (faces[~of_reference, 3] == 0).all()
        assert (edges[~of_reference, 3] > 0).all()
        assert (widths[~of_reference] > 0).all()

    def test_a_category_without_cells_is_not_in_the_legend(self, pair, ax):
        keep = pair[0][pair[0].obs["layer"] != "L1"].copy()
        keep.obs["layer"] = keep.obs["layer"].cat.set_categories(["L1", "L2", "L4"])
        ia.pl.alignment(keep, pair[1], color="layer", ax=ax)
        assert "L1" not in legend_texts(ax)

    def test_cells_without_a_category_are_grey(self, pair, ax):
        pair[1].obs.loc["cell7", "layer"] = np.nan
        ia.pl.alignment(*pair, color="layer", ax=ax)
        xy, _, edges, _ = drawn(ax)
        (at,) = np.flatnonzero((xy == pair[1].obsm["spatial_aligned"][7]).all(axis=1))
        grey = [to_hex(edge) == _colors.MISSING_COLOR.lower() for edge in edges]
        assert np.flatnonzero(grey).tolist() == [at]
        assert legend_texts(ax)[-1] == "no value"

    def test_stored_colours_are_used_and_those_of_the_reference_come_first(self, pair, ax):
        pair[0].uns["layer_colors"] = np.array(["#111111", "#222222", "#444444"])
        pair[1].uns["layer_colors"] = ["#999999", "#333333"]
        ia.pl.alignment(*pair, color="layer", ax=ax)
        handles = {h.get_label(): to_hex(h.get_markerfacecolor()) for h in ax.get_legend().legend_handles}
        assert [handles[f"L{i}"] for i in (1, 2, 3, 4)] == ["#111111", "#222222", "#333333", "#444444"]

    def test_stored_colours_that_are_too_few_are_left_alone(self, pair, ax):
        pair[0].uns["layer_colors"] = ["#111111"]
        ia.pl.alignment(*pair, color="layer", ax=ax)
        assert "#111111" not in {to_hex(edge) for edge in drawn(ax)[2]}

    def test_a_palette_comes_before_stored_colours_and_is_filled_up(self, pair, ax):
        pair[0].uns["layer_colors"] = ["#111111", "#222222", "#444444"]
        first = _colors.CATEGORY_COLORS[0].lower()
        ia.pl.alignment(*pair, color="layer", ax=ax, palette={"L2": first})
        handles = {h.get_label(): to_hex(h.get_markerfacecolor()) for h in ax.get_legend().legend_handles}
        assert handles["L2"] == first
        assert len({handles[f"L{i}"] for i in (1, 2, 3, 4)}) == 4
        assert not {"#111111", "#222222", "#444444"} & set(handles.values())

    @pytest.mark.parametrize("n", [3, 15, 40])
    def test_any_number_of_categories_has_distinct_colours(self, n):
        assert len(set(_colors._assign([str(i) for i in range(n)], None).values())) == n

    def test_the_name_of_a_colour_map_is_a_palette(self):
        assert list(_colors._assign(["a", "b"], "tab10").values()) == ["#1f77b4", "#ff7f0e"]
        assert list(_colors._assign(["a", "b"], "gray").values()) == ["#000000", "#ffffff"]

    def test_words_booleans_and_mixed_kinds_are_categories(self, pair, ax):
        pair[0].obs["kind"] = pd.Categorical([1, 2] * 35)
        pair[1].obs["kind"] = ["2", "x"] * 25
        ia.pl.alignment(*pair, color="kind", ax=ax)
        assert [text for text in legend_texts(ax) if text][:-2] == ["1", "2", "x"]
        for adata in pair:
            adata.obs["good"] = adata.obs["depth"] > 0
        ia.pl.alignment(*pair, color="good", ax=ax)
        assert [text for text in legend_texts(ax) if text][:-2] == ["False", "True"]

    def test_the_legend_is_beside_the_axes_and_within_the_figure(self, pair):
        for adata in pair:
            adata.obs["type"] = [f"cell type {i % 40}" for i in range(adata.n_obs)]
        ax = ia.pl.alignment(*pair, color="type")
        ax.figure.canvas.draw()
        legend, axes, figure = ax.get_legend().get_window_extent(), ax.get_window_extent(), ax.figure.bbox
        assert axes.x1 < legend.x0
        assert legend.x1 <= figure.x1
        assert figure.y0 <= legend.y0


class TestNumbers:
    def test_both_sections_share_the_limits_of_a_column(self, pair, ax):
        ia.pl.alignment(*pair, color="depth", ax=ax, cmap="magma")
        values = np.concatenate([adata.obs["depth"] for adata in pair])
        (scale,) = ax.child_axes
        assert scale.get_ylim() == pytest.approx((values.min(), values.max()))
        assert scale.get_ylabel() == "depth"
        expected = mpl.colormaps["magma"]((values - values.min()) / np.ptp(values))[cells_of(*pair)[1]]
        np.testing.assert_allclose(drawn(ax)[2][:, :3], expected[:, :3])
        assert legend_texts(ax) == ["reference", "source"]

    def test_whole_and_nullable_numbers_are_numbers(self, pair):
        for dtype in ("int64", "Int64"):
            for adata in pair:
                adata.obs["batch"] = adata.obs["batch"].astype(dtype)
            (scale,) = ia.pl.alignment(*pair, color="batch", ax=Figure().subplots()).child_axes
            assert scale.get_ylim() == (0, 3)

    def test_cells_without_a_number_are_grey(self, pair, ax):
        pair[0].obs.loc["cell3", "depth"] = np.nan
        pair[0].obs.loc["cell4", "depth"] = np.inf
        ia.pl.alignment(*pair, color="depth", ax=ax)
        grey = [to_hex(edge) == _colors.MISSING_COLOR.lower() for edge in drawn(ax)[2]]
        assert sum(grey) == 2
        assert legend_texts(ax)[-1] == "no value"

    def test_a_column_without_any_number_is_all_grey(self, pair, ax):
        for adata in pair:
            adata.obs["depth"] = np.nan
        ia.pl.alignment(*pair, color="depth", ax=ax)
        assert {to_hex(edge) for edge in drawn(ax)[2]} == {_colors.MISSING_COLOR.lower()}

    def test_a_gene_ends_at_the_99th_percentile_of_both(self, pair, ax):
        pair[0].X[0, 1] = 500
        ia.pl.alignment(*pair, color="Calb1", ax=ax)
        values = np.concatenate([adata.X[:, [1]].toarray().ravel() for adata in pair])
        (scale,) = ax.child_axes
        assert scale.get_ylim() == pytest.approx((values.min(), np.percentile(values, 99)))
        assert scale.get_ylim()[1] < 500

    def test_a_gene_in_hardly_any_cell_ends_at_its_largest_value(self, pair, ax):
        for adata in pair:
            adata.X = adata.X.toarray()
            adata.X[:, 2] = 0
        pair[1].X[5, 2] = 9
        ia.pl.alignment(*pair, color="Rare", ax=ax)
        (scale,) = ax.child_axes
        assert scale.get_ylim() == (0, 9)

    def test_dense_and_sparse_expression_look_the_same(self, pair):
        looks = []
        for make in (csr_matrix, csr_array, lambda x: x):
            for adata in pair:
                adata.X = make(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X)
            looks.append(drawn(ia.pl.alignment(*pair, color="Aldoc", ax=Figure().subplots()))[2])
        np.testing.assert_array_equal(looks[0], looks[1])
        np.testing.assert_array_equal(looks[0], looks[2])
        assert len(np.unique(looks[0], axis=0)) > 3

    def test_only_one_gene_is_made_dense(self, pair, ax, monkeypatch):
        shapes = []
        plain = csr_matrix.toarray

        def watched(self, *args, **kwargs):
            shapes.append(self.shape)
            return plain(self, *args, **kwargs)

        monkeypatch.setattr(csr_matrix, "toarray", watched)
        ia.pl.alignment(*pair, color="Aldoc", ax=ax)
        assert sorted(shapes) == [(50, 1), (70, 1)]

    def test_a_column_comes_before_a_gene_of_the_same_name(self, pair, ax):
        for adata in pair:
            adata.obs["Aldoc"] = "word"
        ia.pl.alignment(*pair, color="Aldoc", ax=ax)
        assert "word" in legend_texts(ax)

    def test_the_scale_is_beside_the_axes_and_above_the_legend(self, pair):
        ax = ia.pl.alignment(*pair, color="depth")
        ax.figure.canvas.draw()
        (scale,) = ax.child_axes
        assert scale.get_window_extent().x0 > ax.get_window_extent().x1
        assert scale.get_window_extent().y0 > ax.get_legend().get_window_extent().y1


class TestHygiene:
    @pytest.mark.parametrize("color", [None, "layer", "depth", "Aldoc"])
    def test_no_legend_when_not_asked_for(self, pair, ax, color):
        ia.pl.alignment(*pair, color=color, ax=ax, legend=False)
        assert ax.get_legend() is None
        assert ax.child_axes == []

    @pytest.mark.parametrize("color", [None, "layer", "depth", "Aldoc"])
    def test_settings_and_data_stay_as_they_were(self, pair, color):
        settings = dict(mpl.rcParams)
        obs = [adata.obs.copy() for adata in pair]
        ia.pl.alignment(*pair, color=color)
        assert dict(mpl.rcParams) == settings
        for adata, before in zip(pair, obs):
            pd.testing.assert_frame_equal(adata.obs, before)
            assert dict(adata.uns) == {}

    def test_pyplot_is_not_needed_when_axes_are_given(self, pair, ax, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
        ia.pl.alignment(*pair, color="layer", ax=ax)
        with pytest.raises(ImportError):
            ia.pl.alignment(*pair)

    def test_importing_the_plots_needs_no_matplotlib(self, monkeypatch):
        monkeypatch.setattr(ia, "pl", ia.pl)  # so that the modules of the other tests come back
        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
            monkeypatch.setitem(sys.modules, name, None)
        for name in [name for name in sys.modules if name.startswith("inst_align.pl")]:
            monkeypatch.delitem(sys.modules, name)
        assert importlib.import_module("inst_align.pl").__all__ == [
            "alignment",
            "convergence",
            "deformation",
            "field",
            "landmarks",
            "report",
        ]


class TestBadInput:
    def test_a_missing_basis_says_what_is_there_and_what_to_run(self, pair, ax):
        del pair[1].obsm["spatial_aligned"]
        with pytest.raises(KeyError, match=r"basis='spatial_aligned'.*source.*'spatial'.*ia\.tl\.align_pair"):
            ia.pl.alignment(*pair, ax=ax)

    def test_a_missing_start_says_what_is_there(self, pair):
        with pytest.raises(KeyError, match=r"before='raw'.*reference.*'spatial', 'spatial_aligned'"):
            ia.pl.alignment(*pair, before="raw")
        assert plt.get_fignums() == []

    def test_an_unknown_colour_says_what_is_there(self, pair):
        with pytest.raises(KeyError, match=r"color='Layer'.*'batch', 'depth', 'layer'.*3 genes.*'Aldoc'"):
            ia.pl.alignment(*pair, color="Layer")
        assert plt.get_fignums() == []

    def test_a_colour_that_one_section_lacks_names_the_section(self, pair, ax):
        del pair[1].obs["layer"]
        with pytest.raises(KeyError, match=r"reference has it in obs .* the source has it in neither"):
            ia.pl.alignment(*pair, color="layer", ax=ax)

    def test_another_container_is_refused(self, pair, ax):
        with pytest.raises(TypeError, match="adata_src.*dict"):
            ia.pl.alignment(pair[0], {}, ax=ax)

    def test_coordinates_of_another_shape_are_refused(self, pair, ax):
        pair[0].obsm["spatial_aligned"] = np.random.default_rng(0).normal(size=(70, 3))
        with pytest.raises(ValueError, match="reference has 3 columns"):
            ia.pl.alignment(*pair, ax=ax)


SPREAD = 12.0


def bump(height):
    """Displacement on a 41 x 41 grid over [-20, 120]^2 that pushes along x, most so in the middle, and then fades."""
    origin, spacing = np.array([-20.0, -20.0]), 3.5
    x, y = np.meshgrid(*(start + spacing * np.arange(41) for start in origin))
    weight = height * np.exp(-((x - 50) ** 2 + (y - 50) ** 2) / (2 * SPREAD**2))
    return Displacement(np.stack([weight, np.zeros_like(weight)]).astype(np.float32), origin, spacing)


AFFINES = {
    "turned": Affine(np.array([[0.0, -1.0, 100.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])),
    "mirrored": Affine(np.array([[-1.0, 0.0, 100.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])),
    "scaled": Affine(np.array([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]])),
}


def moved(affine, bend=None, *, n=400, key="spatial_aligned", **more):
    """A source whose cells fill [0, 100]^2 of the reference's frame, with a recorded map."""
    start = np.random.default_rng(5).uniform(0, 100, (n, 2))
    adata = AnnData(np.zeros((n, 1)), obsm={"spatial": affine.inverse()(start)})
    transform = affine if bend is None else Compose((affine, bend))
    adata.uns["inst_align"] = {key: {"version": 1, "role": "source", "transform": to_dict(transform)} | more}
    return adata


def grid_lines(ax):
    return ax.collections[1].get_segments()


class TestDeformation:
    def test_returns_one_axes_in_a_new_figure_with_equal_axes(self):
        ax = ia.pl.deformation(moved(AFFINES["turned"], bump(10)))
        assert isinstance(ax, Axes)
        assert ax.figure.axes == [ax]
        assert ax.get_aspect() == 1
        assert plt.get_fignums() == [ax.figure.number]

    def test_a_given_axes_is_drawn_into_and_no_figure_is_made(self, ax):
        assert ia.pl.deformation(moved(AFFINES["turned"], bump(10)), ax=ax, title="Bent", invert_y=True) is ax
        assert ax.get_title(loc="left") == "Bent"
        assert ax.yaxis_inverted()
        assert plt.get_fignums() == []

    def test_cells_are_drawn_where_the_map_puts_them(self, ax):
        adata = moved(AFFINES["turned"], bump(10))
        ia.pl.deformation(adata, ax=ax)
        np.testing.assert_allclose(
            ax.collections[0].get_offsets(), ia.get.transform(adata)(adata.obsm["spatial"]), atol=1e-9
        )

    def test_a_rigid_map_has_straight_lines_and_says_so(self, ax):
        ia.pl.deformation(moved(AFFINES["turned"]), ax=ax)
        assert "Rigid" in ax.get_title(loc="left")
        for line in grid_lines(ax):
            assert np.ptp(line, axis=0).min() < 1e-9
        assert ax.child_axes == []

    def test_squares_divide_the_longer_side(self, ax):
        adata = moved(AFFINES["turned"])
        ia.pl.deformation(adata, ax=ax, n_lines=10)
        longer = np.ptp(AFFINES["turned"](adata.obsm["spatial"]), axis=0).max()
        upright = np.unique([line[0, 0].round(6) for line in grid_lines(ax) if np.ptp(line[:, 0]) < 1e-9])
        np.testing.assert_allclose(np.diff(upright), longer / 10, rtol=1e-5)

    def test_lines_are_the_straight_ones_carried_along_by_the_non_rigid_part(self, ax):
        bend = bump(10)
        straight = grid_lines(ia.pl.deformation(moved(AFFINES["turned"]), ax=Figure().subplots()))
        bent = grid_lines(ia.pl.deformation(moved(AFFINES["turned"], bend), ax=ax))
        assert len(straight) == len(bent)
        for before, after in zip(straight, bent):
            np.testing.assert_allclose(after, bend(before), atol=1e-9)
        assert max(np.ptp(line, axis=0).min() for line in bent) > 1

    def test_lines_are_drawn_only_where_there_is_tissue(self, ax):
        adata = moved(AFFINES["turned"])
        placed = AFFINES["turned"](adata.obsm["spatial"])
        adata = adata[np.abs(placed[:, 0] - 50) > 20].copy()
        ia.pl.deformation(adata, ax=ax)
        points = np.vstack(grid_lines(ax))
        distance, _ = cKDTree(AFFINES["turned"](adata.obsm["spatial"])).query(points)
        assert distance.max() < 9
        assert (np.abs(points[:, 0] - 50) > 10).all()

    @pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
    def test_colours_are_the_area_change_without_that_of_the_affine_part(self, ax, affine):
        bend = bump(8)
        adata = moved(affine, bend)
        ia.pl.deformation(adata, ax=ax)
        start = affine(adata.obsm["spatial"])
        step = 1e-4 * np.eye(2)
        columns = [(bend(start + e) - bend(start - e)) / 2e-4 for e in step]
        expected = np.log2(np.linalg.det(np.stack(columns, axis=2)))
        np.testing.assert_allclose(ax.collections[0].get_array(), expected, atol=1e-4)
        assert np.ptp(expected) > 0.2
        assert ax.get_title(loc="left") == "No folds"

    def test_limits_are_symmetric_and_the_scale_is_explained(self, ax):
        ia.pl.deformation(moved(AFFINES["turned"], bump(8)), ax=ax)
        norm = ax.collections[0].norm
        assert norm.vmin == -norm.vmax
        change = np.abs(ax.collections[0].get_array().filled(np.nan))
        assert norm.vmax == pytest.approx(np.percentile(change, 99))
        (scale,) = ax.child_axes
        assert (scale.get_ylabel(), scale.get_title(), scale.get_xlabel()) == ("log2 area change", "grown", "shrunk")

    def test_a_faint_deformation_does_not_look_strong(self, ax):
        ia.pl.deformation(moved(AFFINES["turned"], bump(0.01)), ax=ax)
        assert ax.collections[0].norm.vmax == 0.1

    def test_folds_are_counted_black_and_in_the_legend(self, ax):
        bend = bump(40)
        adata = moved(AFFINES["mirrored"], bend)
        ia.pl.deformation(adata, ax=ax)
        start = AFFINES["mirrored"](adata.obsm["spatial"])
        slope = (bend(start + [1e-4, 0]) - bend(start - [1e-4, 0]))[:, 0]
        folded = slope <= 0
        assert 0.01 < folded.mean() < 0.5
        assert ax.get_title(loc="left") == f"Folds at {folded.mean():.2%} of cells"
        ax.collections[0].update_scalarmappable()
        black = (ax.collections[0].get_facecolors() == to_rgba("black")).all(axis=1)
        np.testing.assert_array_equal(black, folded)
        assert legend_texts(ax) == ["folded"]

    def test_coordinates_are_those_that_were_recorded_unless_others_are_given(self):
        adata = moved(AFFINES["turned"], key="other", params={"spatial_key": "um"})
        adata.obsm["um"] = adata.obsm["spatial"] + 1
        for chosen, key in ((None, "um"), ("spatial", "spatial")):
            ax = ia.pl.deformation(adata, key="other", spatial_key=chosen, ax=Figure().subplots())
            np.testing.assert_allclose(ax.collections[0].get_offsets(), AFFINES["turned"](adata.obsm[key]))

    def test_settings_and_record_stay_as_they_were(self):
        settings, adata = dict(mpl.rcParams), moved(AFFINES["turned"], bump(10))
        vectors = adata.uns["inst_align"]["spatial_aligned"]["transform"]["displacement"].copy()
        ia.pl.deformation(adata)
        assert dict(mpl.rcParams) == settings
        after = adata.uns["inst_align"]["spatial_aligned"]["transform"]["displacement"]
        np.testing.assert_array_equal(after, vectors)

    def test_a_section_without_a_map_is_refused(self, pair):
        with pytest.raises(KeyError, match="spatial_aligned.*no record"):
            ia.pl.deformation(pair[1])

    def test_the_reference_is_refused(self):
        adata = moved(AFFINES["turned"])
        adata.uns["inst_align"]["spatial_aligned"] = {"version": 1, "role": "reference"}
        with pytest.raises(ValueError, match="reference.*pass the source"):
            ia.pl.deformation(adata)

    def test_missing_coordinates_are_named(self):
        adata = moved(AFFINES["turned"])
        with pytest.raises(KeyError, match="spatial_key='um'.*source.*'spatial'"):
            ia.pl.deformation(adata, spatial_key="um")

    def test_a_grid_without_squares_is_refused(self):
        with pytest.raises(ValueError, match="n_lines=0"):
            ia.pl.deformation(moved(AFFINES["turned"]), n_lines=0)

    def test_a_map_and_points_give_the_same_picture_as_the_record(self, ax):
        adata = moved(AFFINES["turned"], bump(10))
        ia.pl.deformation(adata, ax=ax)
        transform = ia.get.transform(adata)
        for data in (adata.obsm["spatial"].tolist(), adata):
            other = ia.pl.deformation(data, transform=transform, ax=Figure().subplots())
            assert other.get_title(loc="left") == ax.get_title(loc="left")
            for one, two in zip(ax.collections[:1], other.collections[:1]):
                np.testing.assert_array_equal(one.get_offsets(), two.get_offsets())
                np.testing.assert_array_equal(one.get_array(), two.get_array())
            for one, two in zip(grid_lines(ax), grid_lines(other), strict=True):
                np.testing.assert_array_equal(one, two)

    def test_the_inverse_of_a_map_is_drawn_in_the_frame_that_it_leads_to(self, ax):
        adata = moved(AFFINES["turned"], bump(10))
        transform = ia.get.transform(adata)
        there = transform(adata.obsm["spatial"])
        ia.pl.deformation(there, transform=transform.inverse(), ax=ax)
        np.testing.assert_allclose(ax.collections[0].get_offsets(), adata.obsm["spatial"], atol=1e-6)
        area = np.log2(np.linalg.det(transform.jacobian(adata.obsm["spatial"])))
        np.testing.assert_allclose(ax.collections[0].get_array(), -area, atol=1e-5)
        assert any(np.ptp(line, axis=0).min() > 1 for line in grid_lines(ax))

    def test_a_displacement_alone_has_no_global_part(self, ax):
        xy = np.random.default_rng(0).uniform(0, 100, (200, 2))
        ia.pl.deformation(xy, transform=bump(10), ax=ax)
        np.testing.assert_allclose(ax.collections[0].get_offsets(), bump(10)(xy), atol=1e-9)

    def test_points_without_a_map_and_what_is_no_map_are_refused(self):
        with pytest.raises(TypeError, match="`adata_src` is a ndarray.*give a `transform`"):
            ia.pl.deformation(np.zeros((3, 2)))
        with pytest.raises(TypeError, match="`transform` is a ndarray, which is no map"):
            ia.pl.deformation(np.zeros((3, 2)), transform=np.eye(3))


class TestLandmarks:
    MARKS = {"landmarks_ref": [[20.0, 30.0], [60.0, 80.0]], "landmarks_src": [[30.0, 80.0], [78.0, 40.0]]}

    def sections(self, **params):
        src = moved(AFFINES["turned"], bump(10), params=params)
        src.obsm["spatial_aligned"] = ia.get.transform(src)(src.obsm["spatial"])
        ref = AnnData(np.zeros((400, 1)), obsm={"spatial": src.obsm["spatial_aligned"].copy()})
        ref.obsm["spatial_aligned"] = ref.obsm["spatial"]
        return ref, src

    def lines(self, ax):
        return np.array(next(c for c in ax.collections if isinstance(c, LineCollection)).get_segments())

    def test_lines_join_partners_before_and_after(self):
        ref, src = self.sections()
        before, after = ia.pl.landmarks(ref, src, **self.MARKS).figure.axes
        np.testing.assert_allclose(self.lines(before)[:, 0], self.MARKS["landmarks_ref"])
        np.testing.assert_allclose(self.lines(before)[:, 1], self.MARKS["landmarks_src"])
        np.testing.assert_allclose(self.lines(after)[:, 0], self.MARKS["landmarks_ref"])
        np.testing.assert_allclose(self.lines(after)[:, 1], ia.get.transform(src)(self.MARKS["landmarks_src"]))

    def test_the_title_states_the_distances_in_neighbour_distances(self, ax):
        ref, src = self.sections()
        ia.pl.landmarks(ref, src, **self.MARKS, ax=ax)
        error = ia.metrics.landmark_error(
            **self.MARKS, transform=ia.get.transform(src), unit=ia.metrics.spacing(ref.obsm["spatial"])
        )
        worst, median = error.relative.max(), np.median(error.relative)
        assert f"{median:.1f} neighbour distances apart (median; {worst:.1f} at most)" in ax.get_title(loc="left")
        assert [text.get_text() for text in ax.texts] == ["0", "1"]
        assert legend_texts(ax) == ["reference", "source"]

    def test_the_landmarks_of_the_run_are_drawn_when_none_are_given(self, ax):
        params = {name: np.array(points) for name, points in self.MARKS.items()}
        ia.pl.landmarks(*self.sections(**params), ax=ax)
        np.testing.assert_allclose(self.lines(ax)[:, 0], self.MARKS["landmarks_ref"])

    def test_without_any_landmarks_there_is_nothing_to_draw(self):
        with pytest.raises(KeyError, match="`landmarks_ref`: none were given"):
            ia.pl.landmarks(*self.sections())
        with pytest.raises(ValueError, match="`landmarks_src`"):
            ia.pl.landmarks(*self.sections(), landmarks_ref=[[0, 0]])

    def test_the_panel_before_may_be_that_of_an_earlier_run(self):
        ref, src = self.sections()
        pose = AFFINES["turned"]
        src.uns["inst_align"]["spatial_rigid"] = {"version": 1, "role": "source", "transform": to_dict(pose)}
        for section in (ref, src):
            section.obsm["spatial_rigid"] = pose(section.obsm["spatial"]) if section is src else ref.obsm["spatial"]
        before, _ = ia.pl.landmarks(ref, src, **self.MARKS, before="spatial_rigid").figure.axes
        np.testing.assert_allclose(self.lines(before)[:, 1], pose(self.MARKS["landmarks_src"]))

    def test_many_pairs_are_not_numbered(self, ax):
        many = np.random.default_rng(0).uniform(0, 100, (41, 2))
        ia.pl.landmarks(*self.sections(), landmarks_ref=many, landmarks_src=many, ax=ax)
        assert not ax.texts


def fitted(history, role="source"):
    record = {"version": 1, "role": role}
    if history is not None:
        record["history"] = history
    return AnnData(np.zeros((3, 1)), uns={"inst_align": {"spatial_aligned": record}})


HISTORY = {
    "registration.match": np.array([3.0, 2.0, 1.0]),
    "field.match": np.array([0.9, 0.5]),
    "field.bending": np.array([0.1, 0.2]),
}


class TestConvergence:
    def test_every_term_is_a_line_against_its_step(self, ax):
        assert ia.pl.convergence(fitted(HISTORY), ax=ax) is ax
        assert [line.get_label() for line in ax.lines] == ["match", "match", "bending"]
        for line, values in zip(ax.lines, HISTORY.values()):
            np.testing.assert_array_equal(line.get_ydata(), values)
            np.testing.assert_array_equal(line.get_xdata(), np.arange(len(values)))
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss")

    def test_stages_are_blocks_of_the_legend_with_a_line_style_each(self, ax):
        ia.pl.convergence(fitted(HISTORY), ax=ax)
        assert legend_texts(ax) == ["registration", "match", "field", "match", "bending"]
        first, second, third = ax.lines
        assert first.get_linestyle() != second.get_linestyle() == third.get_linestyle()
        assert first.get_color() == second.get_color() != third.get_color()

    @pytest.mark.parametrize(
        "history",
        [
            {name.replace(".", "/"): values for name, values in HISTORY.items()},
            {
                "registration": {"match": HISTORY["registration.match"]},
                "field": {"match": HISTORY["field.match"], "bending": HISTORY["field.bending"]},
            },
        ],
        ids=["slash", "nested"],
    )
    def test_other_ways_to_name_stages_look_the_same(self, ax, history):
        ia.pl.convergence(fitted(history), ax=ax)
        assert legend_texts(ax) == ["registration", "match", "field", "match", "bending"]

    def test_terms_without_a_stage_have_no_heading(self, ax):
        ia.pl.convergence(fitted({"total": np.ones(3)}), ax=ax)
        assert legend_texts(ax) == ["total"]

    def test_the_vertical_axis_is_logarithmic_only_when_all_is_positive(self):
        for values, scale in (([2.0, 1.0], "log"), ([2.0, np.nan, 1.0], "log"), ([2.0, 0.0], "linear")):
            ax = ia.pl.convergence(fitted({"total": np.array(values)}), ax=Figure().subplots())
            assert ax.get_yscale() == scale

    def test_makes_one_figure_and_leaves_the_settings(self):
        settings = dict(mpl.rcParams)
        ax = ia.pl.convergence(fitted(HISTORY))
        assert plt.get_fignums() == [ax.figure.number]
        assert dict(mpl.rcParams) == settings

    @pytest.mark.parametrize("history", [None, {}])
    def test_a_run_without_losses_is_refused(self, history):
        with pytest.raises(KeyError, match="spatial_aligned.*no history"):
            ia.pl.convergence(fitted(history))
        assert plt.get_fignums() == []

    def test_the_reference_is_refused(self):
        with pytest.raises(KeyError, match="it is on the source"):
            ia.pl.convergence(fitted(None, role="reference"))

    def test_an_unknown_key_says_what_is_there(self):
        with pytest.raises(KeyError, match="key='mine'.*'spatial_aligned'"):
            ia.pl.convergence(fitted(HISTORY), key="mine")
