"""Pictures of clusters: panels pixel by pixel, pages of every shape."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.visualization import border_pixels
from deeplab2_kmax.visualization.clusters import cluster_page, cluster_panels
from deeplab2_kmax.visualization.clusters.assignment_panel import (
    assignment_panel,
    certainty,
    paint_clusters,
)
from deeplab2_kmax.visualization.clusters.charts import column_position
from deeplab2_kmax.visualization.clusters.grid import WIDTH, fit_grid
from deeplab2_kmax.visualization.clusters.layer_views import FINAL, ClusterViews, LayerView, resample
from deeplab2_kmax.visualization.clusters.numbers import ClusterNumbers
from deeplab2_kmax.visualization.clusters.page import Page

DATASET = DatasetDescriptor("one", (SegmentClass(1, "cat", True, (220, 60, 20), 1),), 2, 0, 100)


def _views(size=(40, 60), clusters=16, layers=3, soft=False, seed=0) -> ClusterViews:
    random = np.random.RandomState(seed)
    views = []
    for i in range(layers + 1):
        stride = 4 if i == layers else (32, 16, 8)[i * 3 // layers]
        logits = 4 * random.randn(1 + size[0] // stride, 1 + size[1] // stride, clusters)
        shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        if not soft:
            shares = np.eye(clusters)[shares.argmax(-1)]
        name = FINAL if i == layers else f"stride{stride}_layer{i + 1}"
        views.append(LayerView(name, stride, shares, None if i == layers else random.randn(clusters, 8)))
    return ClusterViews(
        image=random.randint(0, 256, (*size, 3)).astype(np.uint8),
        panoptic=np.full(size, 101, np.int32),
        dataset=DATASET,
        layers=tuple(views),
        initial_centers=random.randn(clusters, 8),
        class_names=tuple(["cat", ""][i % 2] for i in range(clusters)),
        class_scores=random.rand(clusters),
    )


def test_resampling_leaves_the_padding_out_and_aligns_corners():
    grid = np.arange(25).reshape(5, 5)
    np.testing.assert_array_equal(resample(grid, (5, 5)), grid)
    # Half of the input's height and three quarters of its width: rows 0..2, columns 0..3.
    np.testing.assert_array_equal(resample(grid, (3, 4), (0.5, 0.75)), grid[:3, :4])
    # A grid point stands for the pixels nearer to it than to others; points at the edge for half as many.
    np.testing.assert_array_equal(resample(np.arange(3)[None], (1, 8))[0], [0, 0, 1, 1, 1, 1, 2, 2])
    assert resample(grid, (1, 1)).tolist() == [[0]]


def test_border_pixels_lie_on_both_sides():
    labels = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    expected = np.array([[0, 1, 1], [0, 1, 1], [0, 0, 1]], bool)
    np.testing.assert_array_equal(border_pixels(labels), expected)
    assert not border_pixels(np.zeros((1, 1), int)).any()


def test_border_pixels_on_one_side_are_those_to_the_right_and_below():
    labels = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]])
    expected = [[False, False, True], [False, False, True], [True, True, True]]
    np.testing.assert_array_equal(border_pixels(labels, both_sides=False), expected)


def test_painting_shows_cluster_photo_and_confidence():
    colors = np.array([[200, 40, 40], [40, 40, 200]], np.uint8)
    labels = np.array([[0, 1]])
    grey = np.full((1, 2, 3), 128, np.uint8)
    sure = paint_clusters(labels, colors, grey, np.ones((1, 2)), borders=False).astype(int)
    assert np.abs(sure[0] - colors).max() <= 1
    unsure = paint_clusters(labels, colors, grey, np.zeros((1, 2)), borders=False).astype(int)
    assert 0 < np.ptp(unsure[0, 0]) < 0.4 * np.ptp(sure[0, 0])
    assert (unsure > sure).all()
    dark, light = (
        paint_clusters(labels, colors, np.full_like(grey, value), np.ones((1, 2)), borders=False) for value in (0, 255)
    )
    assert dark[0, 0, 0] < 128 and light[0, 0, 1] > 100
    assert (paint_clusters(labels, colors, grey, np.ones((1, 2))) > sure).any(-1).all()


def test_certainty_is_zero_where_all_clusters_are_alike():
    np.testing.assert_allclose(certainty(np.array([0.25, 0.625, 1.0]), 4), [0, 0.5, 1])
    assert certainty(np.array([1.0]), 1) == 1


def test_panels_keep_the_color_of_a_cluster_through_the_layers():
    views = _views()
    same = tuple(dataclasses.replace(v, assignment=views.layers[0].assignment) for v in views.layers)
    views = dataclasses.replace(views, layers=same, class_names=("",) * 16)
    panels = cluster_panels(views, (40, 60))
    assert all((panel == panels[0]).all() for panel in panels)
    assert panels[0].shape == (40, 60, 3) and panels[0].dtype == np.uint8


def test_the_last_panel_has_names():
    views = _views((200, 300), clusters=2)
    whole = np.zeros_like(views.layers[-1].assignment)
    whole[..., 0] = 1
    views = dataclasses.replace(
        views, layers=(*views.layers[:-1], dataclasses.replace(views.layers[-1], assignment=whole))
    )
    unnamed = dataclasses.replace(views, class_names=("", ""))
    named, bare = cluster_panels(views, (200, 300)), cluster_panels(unnamed, (200, 300))
    assert [(a != b).any() for a, b in zip(named, bare)] == [False, False, False, True]


def test_padding_is_not_shown():
    """The picture covers the left half of the input; the right half belongs to cluster 1."""
    views = _views(clusters=2, layers=1)
    assignment = np.zeros((9, 17, 2))
    assignment[:, :9, 0] = 1
    assignment[:, 9:, 1] = 1
    layers = tuple(dataclasses.replace(view, assignment=assignment) for view in views.layers)
    views = dataclasses.replace(views, layers=layers, extent=(1.0, 0.5))
    assert ClusterNumbers.from_views(views).shares.tolist() == [[1, 0], [1, 0]]
    colors = np.array([[200, 40, 40], [40, 40, 200]], np.uint8)
    panel = assignment_panel(views, 0, colors, (20, 30)).astype(int)
    assert (panel[..., 0] > panel[..., 2]).all()


def test_numbers_follow_the_layers():
    views = _views(clusters=3, layers=2)
    first, second = np.zeros((2, 5, 5, 3))
    first[..., 0] = 1
    second[:2, :, 1] = 1
    second[2:, :, 0] = 1
    halves = np.full((5, 5, 3), [0.5, 0.5, 0])
    layers = [dataclasses.replace(v, assignment=a) for v, a in zip(views.layers, (first, second, halves))]
    views = dataclasses.replace(views, layers=tuple(layers), image=np.zeros((5, 5, 3), np.uint8))
    numbers = ClusterNumbers.from_views(views)
    np.testing.assert_allclose(numbers.shares, [[1, 0, 0], [0.6, 0.4, 0], [1, 0, 0]])
    np.testing.assert_allclose(numbers.moved, [0.4, 0.4])
    np.testing.assert_allclose(numbers.sharing, [1, 1, 2])
    assert numbers.in_use.tolist() == [1, 2, 1]
    assert numbers.flows[0][0].tolist() == pytest.approx([0.6, 0.4, 0])
    assert numbers.paths.shape == (3, 3, 2) and numbers.changes.shape == (2, 3)


@pytest.mark.parametrize(
    ("size", "clusters", "layers", "soft"),
    [((40, 60), 1, 1, True), ((1, 1), 16, 3, False), ((300, 30), 256, 3, False), ((33, 400), 16, 12, True)],
)
def test_pages_of_all_kinds(size, clusters, layers, soft, tmp_path):
    views = _views(size, clusters, layers, soft)
    page = cluster_page(views, "50$ and $100.jpg")
    page.save(tmp_path / "page.png")
    assert Image.open(tmp_path / "page.png").size == (WIDTH, page.height)
    assert page.height < 3000


def test_a_page_shows_its_panels_pixel_by_pixel():
    views = _views((120, 160), soft=True)
    grid = fit_grid(160 / 120, 4)
    pixels = cluster_page(views, "picture").pixels()
    # Names are written in another size there.
    for panel, (x, y) in zip(cluster_panels(views, grid.panel_size)[:-1], grid.panels):
        np.testing.assert_array_equal(pixels[y : y + panel.shape[0], x : x + panel.shape[1]], panel)


def test_one_cluster_for_everything_as_before_training():
    views = _views(clusters=16)
    layers = tuple(
        dataclasses.replace(view, assignment=np.eye(16)[np.full(view.assignment.shape[:2], 5)]) for view in views.layers
    )
    views = dataclasses.replace(views, layers=layers, initial_centers=np.zeros((16, 8)))
    assert cluster_page(views, "untrained").pixels().std() > 0
    numbers = ClusterNumbers.from_views(views)
    assert numbers.in_use.tolist() == [1] * 4 and (numbers.moved == 0).all()


@pytest.mark.parametrize("aspect", [1 / 2500, 0.05, 0.5, 1, 1.33, 3, 20, 1000])
@pytest.mark.parametrize("panels", [2, 5, 7, 13])
def test_nothing_on_the_page_overlaps_or_leaves_it(aspect, panels):
    grid = fit_grid(aspect, panels)
    # Above the photo of a strip, there has to be room for its title.
    boxes = [(x, y, max(70, grid.top_size[1]), grid.top_size[0]) for x, y in grid.top]
    boxes.append((*grid.table, 300, grid.table_height))
    boxes += [(x, y, grid.panel_size[1], grid.panel_size[0]) for x, y in grid.panels]
    boxes += [grid.flow, grid.changes, grid.paths]
    assert len(boxes) == panels + 6
    for i, (x, y, width, height) in enumerate(boxes):
        assert x >= 0 and y >= 0 and x + width <= WIDTH and y + height <= grid.height
        for x2, y2, width2, height2 in boxes[:i]:
            assert x >= x2 + width2 or x2 >= x + width or y >= y2 + height2 or y2 >= y + height


def test_columns_of_the_flow_chart_are_evenly_spaced():
    places = [column_position(i, 5) for i in range(5)]
    assert (places[0], places[2], places[4]) == (0, 0.5, 1)


def test_a_users_matplotlib_style_does_not_change_the_page():
    import matplotlib

    views = _views()
    plain = cluster_page(views, "picture").pixels()
    with matplotlib.rc_context({"text.color": "red", "axes.facecolor": "black", "lines.linewidth": 9, "font.size": 30}):
        np.testing.assert_array_equal(cluster_page(views, "picture").pixels(), plain)


def test_page_places_things_from_its_upper_left_corner():
    page = Page(80, 60)
    page.box(10, 20, 5, 6, (1, 0, 0))
    page.picture(40, 3, np.full((7, 9, 3), [0, 0, 255], np.uint8))
    pixels = page.pixels()
    red, blue = (pixels == [255, 0, 0]).all(-1), (pixels == [0, 0, 255]).all(-1)
    assert red[20:26, 10:15].all() and red.sum() == 30
    assert blue[3:10, 40:49].all() and blue.sum() == 63


def test_views_that_do_not_fit_together_are_refused():
    views = _views()
    with pytest.raises(DataError, match="expected 15 clusters"):
        dataclasses.replace(views, class_names=("",) * 15)
    with pytest.raises(DataError, match="at least one decoder layer"):
        dataclasses.replace(views, layers=views.layers[-1:])
    with pytest.raises(DataError, match=r"final_masks: expected an assignment \[h, w, N\], got shape \(4, 4\)"):
        LayerView(FINAL, 4, np.zeros((4, 4)))


def test_titles():
    layer = _views().layers[0]
    names = ("stride32_layer1", "final_masks", "stage4_layer2", "extra_stage_layer1", "odd")
    titles = [dataclasses.replace(layer, name=name).title for name in names]
    assert titles[:2] == ["Stride 32, layer 1", "Final masks, stride 32"]
    assert titles[2:] == ["Stage 4, layer 2", "Extra stage, layer 1", "Odd, stride 32"]
