"""Large pictures take a bounded amount of memory, and what is drawn on them can be seen on a screen."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.cli.output_files import encode_png
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.datasets.segment_colors import ids_to_colors
from deeplab2_kmax.serving.predictor import list_segments
from deeplab2_kmax.visualization import border_pixels, large_maps, overlay
from deeplab2_kmax.visualization.large_maps import count_segments, line_width, numbered_segments, row_blocks

SHAPES = load_dataset("shapes")
IDS = (0, 257, 258, 259, 513, 1280, 1536)


def scene(height, width, seed=0):
    """A picture, and a map of some 100 rectangles."""
    random = np.random.default_rng(seed)
    cells = random.choice(IDS, (10, 10)).astype(np.int32)
    rows, columns = (np.arange(length) * 10 // length for length in (height, width))
    return random.integers(0, 256, (height, width, 3), np.uint8), cells[rows[:, None], columns]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 2000), (2000, 7), (50, 60)])
def test_blocks_are_all_rows_once(monkeypatch, height, width):
    monkeypatch.setattr(large_maps, "_PIXELS_AT_ONCE", 500)
    rows = np.concatenate([np.arange(height)[block] for block in row_blocks(height, width)])
    np.testing.assert_array_equal(rows, np.arange(height))


@pytest.mark.parametrize("count", [1, 2, 300, 70000])
def test_segments_are_numbered_as_by_numpy(monkeypatch, count):
    monkeypatch.setattr(large_maps, "_PIXELS_AT_ONCE", 1000)
    ids = np.random.default_rng(0).integers(0, count, (300, 400)).astype(np.int32) * 7
    expected, places = np.unique(ids, return_inverse=True)
    found, index = numbered_segments(ids)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(index, places.reshape(ids.shape))
    np.testing.assert_array_equal(count_segments(index, len(found)), np.bincount(places.ravel()))


def test_blocks_change_nothing(monkeypatch):
    image, panoptic = scene(300, 400)
    scores = np.random.default_rng(1).random(panoptic.shape, np.float32)
    whole = overlay(image, panoptic, SHAPES), list_segments(panoptic, scores, SHAPES)
    monkeypatch.setattr(large_maps, "_PIXELS_AT_ONCE", 1500)
    np.testing.assert_array_equal(overlay(image, panoptic, SHAPES), whole[0])
    for one, other in zip(list_segments(panoptic, scores, SHAPES), whole[1]):
        assert (one.id, one.area) == (other.id, other.area)
        assert one.score == pytest.approx(other.score, rel=1e-12)


@pytest.mark.parametrize(("size", "width"), [((480, 640), 1), ((1000, 700), 1), ((3000, 40), 3), ((10, 5000), 5)])
def test_lines_are_a_pixel_wide_on_a_screen(size, width):
    assert line_width(*size) == width
    # One segment above, one below, or side by side.
    panoptic = np.full(size, 1280, np.int32)
    half = panoptic[:, : size[1] // 2] if size[1] > size[0] else panoptic[: size[0] // 2]
    half[...] = 1536
    drawn = overlay(np.zeros((*size, 3), np.uint8), panoptic, SHAPES, opacity=0.0, names=False)
    line = drawn.any(-1)
    assert line.sum() == width * min(size)
    assert (line & border_pixels(panoptic, both_sides=False)).sum() == min(size)


def test_names_can_be_read_when_a_large_picture_is_shrunk():
    """They are as high as those of the same picture at the size of a screen, to a pixel or two."""
    heights = []
    for side in (800, 2400):
        image = np.zeros((side, side, 3), np.uint8)
        panoptic = np.full((side, side), 1280, np.int32)
        drawn = overlay(image, panoptic, SHAPES, opacity=0.0)
        shown = np.asarray(Image.fromarray(drawn).resize((800, 800), Image.Resampling.BOX)).max(-1)
        rows = np.flatnonzero((shown > 128).any(1))
        heights.append(rows.max() - rows.min())
    assert heights[0] > 10 and abs(heights[1] - heights[0]) <= 0.25 * heights[0]


def test_drawing_takes_few_bytes_for_a_pixel():
    """Beside a fixed part: blocks of rows, and the search for the places of names."""
    image, panoptic = scene(1500, 4000)
    scores = np.ones(panoptic.shape, np.float32)

    def peak(work):
        tracemalloc.start()
        work()
        bytes_used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return bytes_used

    fixed = 80e6
    # Pillow's own memory, which is not counted here, is 4 bytes a pixel for each picture.
    assert peak(lambda: overlay(image, panoptic, SHAPES)) < fixed + 8 * panoptic.size
    assert peak(lambda: list_segments(panoptic, scores, SHAPES)) < fixed + 3 * panoptic.size
    assert peak(lambda: ids_to_colors(panoptic)) < 8 * panoptic.size
    assert len(encode_png(ids_to_colors(panoptic[:100]))) > 100
