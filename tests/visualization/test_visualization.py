"""Colors, overlays and panels."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass, load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.visualization import (
    captions,
    comparison,
    contact_sheet,
    display_scale,
    overlay,
    panoptic_to_color,
    segment_colors,
    side_by_side,
)
from deeplab2_kmax.visualization.captions import readable_class_name

DATASET = DatasetDescriptor(
    name="two_classes",
    classes=(SegmentClass(1, "cat", True, (220, 60, 20), 1), SegmentClass(2, "grass-merged", False, (20, 160, 40), 2)),
    num_classes=3,
    ignore_label=0,
    label_divisor=100,
)


def _scene(height: int, width: int) -> np.ndarray:
    """Left third void, then two cats above each other, then grass."""
    panoptic = np.zeros((height, width), np.int32)
    panoptic[: height // 2, width // 3 : 2 * width // 3] = 101
    panoptic[height // 2 :, width // 3 : 2 * width // 3] = 102
    panoptic[:, 2 * width // 3 :] = 200
    return panoptic


def test_stuff_and_first_instance_have_the_class_color_and_void_is_black():
    colors = panoptic_to_color(_scene(6, 9), DATASET)
    assert colors.dtype == np.uint8
    assert colors.shape == (6, 9, 3)
    assert colors[0, 0].tolist() == [0, 0, 0]
    assert colors[0, 4].tolist() == [220, 60, 20]
    assert colors[0, 8].tolist() == [20, 160, 40]


def test_instances_of_one_class_can_be_told_apart():
    colors = segment_colors(np.arange(101, 113), DATASET).astype(int)
    distance = np.abs(colors[:, None] - colors[None]).sum(-1)
    assert distance[~np.eye(12, dtype=bool)].min() >= 24


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (120, 120, 120), (0, 0, 142)])
def test_dark_pale_and_grey_class_colors_vary_too(color):
    dataset = DatasetDescriptor("one", (SegmentClass(1, "cat", True, color, 1),), 2, 0, 100)
    assert len(np.unique(segment_colors(np.arange(101, 107), dataset), axis=0)) == 6


def test_an_id_of_no_class_is_named():
    with pytest.raises(DataError, match="301 means class 3 .*'two_classes'"):
        panoptic_to_color(np.array([[301]]), DATASET)


def test_overlay_tints_segments_and_leaves_void_alone():
    image = np.full((60, 90, 3), 100, np.uint8)
    drawn = overlay(image, _scene(60, 90), DATASET, opacity=0.5, names=False)
    assert (drawn[:, :30] == 100).all()
    assert drawn[10, 80].tolist() == [60, 130, 70]
    # The upper cat meets void on its left: the outline is on the cat's side, and light.
    assert drawn[10, 30].min() > 150
    assert drawn[10, 32].tolist() == [160, 80, 60]
    assert (image == 100).all()


def test_names_stand_on_their_segments_only():
    image = np.zeros((240, 360, 3), np.uint8)
    bare = overlay(image, _scene(240, 360), DATASET, names=False)
    named = overlay(image, _scene(240, 360), DATASET)
    changed = (bare != named).any(-1)
    for segment in (101, 102, 200):
        assert changed[_scene(240, 360) == segment].any()
    assert not changed[_scene(240, 360) == 0].any()


def test_captions_replace_names():
    image = np.zeros((240, 360, 3), np.uint8)
    plain = overlay(image, _scene(240, 360), DATASET)
    captioned = overlay(image, _scene(240, 360), DATASET, captions={200: "lawn"})
    changed = (plain != captioned).any(-1)
    assert changed[:, 240:].any()
    assert not changed[:, :240].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (97, 97)])
def test_overlay_of_tiny_images(size):
    image = np.zeros((*size, 3), np.uint8)
    panoptic = np.full(size, 101, np.int32)
    assert overlay(image, panoptic, DATASET).shape == (*size, 3)
    assert overlay(image, panoptic, DATASET, scale=4).shape == (4 * size[0], 4 * size[1], 3)


def test_enlarging_keeps_segments_sharp():
    image = np.full((8, 9, 3), 100, np.uint8)
    drawn = overlay(image, _scene(8, 9), DATASET, opacity=1.0, outlines=False, names=False, scale=5)
    expected = panoptic_to_color(_scene(8, 9), DATASET).repeat(5, 0).repeat(5, 1)
    assert (drawn[:, 15:] == expected[:, 15:]).all()


@pytest.mark.parametrize(
    ("image", "panoptic", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), int), "uint8"),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), int), "RGB"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), int), r"\(4, 5\)"),
    ],
)
def test_overlay_refuses_what_is_not_an_image_with_its_map(image, panoptic, message):
    with pytest.raises(DataError, match=message):
        overlay(image, panoptic, DATASET)


def test_display_scale():
    assert display_scale(97, 97) == 5
    assert display_scale(480, 640) == 1
    assert display_scale(2000, 3000) == 1


@pytest.mark.parametrize("height, width", [(1, 2500), (2500, 1), (3, 3000), (1, 1), (7, 900), (16, 480), (20000, 2)])
def test_enlarged_strips_stay_within_a_screen(height, width):
    scale = display_scale(height, width)
    assert scale == 1 or max(height, width) * scale <= 1920
    shapes = load_dataset("shapes")
    image, void = np.zeros((height, width, 3), np.uint8), np.full((height, width), shapes.void_id)
    assert overlay(image, void, shapes, scale=scale).shape == (height * scale, width * scale, 3)
    assert max(comparison(image, {"map": void}, shapes).shape) <= 4000


def test_readable_class_names():
    names = ["sky-other-merged", "table-merged", "door-stuff", "traffic_light", "person", "stuff"]
    assert [readable_class_name(n) for n in names] == ["sky", "table", "door", "traffic light", "person", "stuff"]


def test_panels_stand_side_by_side_under_their_titles():
    red, blue = np.zeros((50, 70, 3), np.uint8), np.zeros((100, 40, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    sheet = side_by_side([("image", red), ("prediction", blue)])
    assert sheet.dtype == np.uint8
    # The second panel is shrunk to the height of the first.
    assert (sheet == [255, 0, 0]).all(-1).sum() == 50 * 70
    assert (sheet == [0, 0, 255]).all(-1).sum() == 50 * 20
    rows = contact_sheet([[("image", red)], [("", blue), ("", blue)]])
    assert rows.shape[0] > 150


def test_panels_refuse_label_maps():
    with pytest.raises(DataError, match="panel 'truth'"):
        side_by_side([("truth", np.zeros((4, 4), np.int32))])
    with pytest.raises(DataError, match="at least one"):
        side_by_side([])


@pytest.mark.parametrize("steps", [[1, 1], [3, 2]])
def test_without_scipy_names_go_to_the_same_places(steps):
    ndimage = pytest.importorskip("scipy.ndimage")
    inside = np.random.default_rng(0).random((60, 90)) > 0.01
    inside[[0, -1]] = inside[:, [0, -1]] = False
    expected = ndimage.distance_transform_edt(inside, sampling=steps)
    np.testing.assert_allclose(captions._distances_by_numpy(inside, steps), expected, rtol=1e-6)
    assert expected.max() > 8


@pytest.mark.parametrize("width", range(2, 8))
def test_lines_widen_as_by_a_maximum_filter(width):
    ndimage = pytest.importorskip("scipy.ndimage")
    marks = np.random.default_rng(0).random((50, 70)) > 0.95
    expected = ndimage.maximum_filter1d(marks.astype(np.uint8), width, 0, mode="constant")
    widened = importlib.import_module("deeplab2_kmax.visualization.overlay")._widened(marks, width)
    np.testing.assert_array_equal(widened, expected.astype(bool))
