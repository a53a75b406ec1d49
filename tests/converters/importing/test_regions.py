import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deeplab2_kmax.converters.importing.regions import CocoRuns, Polygons, decompressed_counts, mask_of_counts
from deeplab2_kmax.errors import DataError
from helpers.shapes_truth import outlines, scenes


def test_outlines_along_the_borders_of_pixels_give_back_every_pixel():
    for scene in scenes(3):
        for segment in scene.segments:
            mask = Polygons(*outlines(segment.mask)).mask(*segment.mask.shape, "region")
            np.testing.assert_array_equal(mask, segment.mask)


def test_run_lengths_are_read_as_pycocotools_reads_them():
    random = np.random.RandomState(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = random.uniform(size=(7, 300)) < share
        compressed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        np.testing.assert_array_equal(CocoRuns(compressed, 7, 300).mask(7, 300, "region"), mask)


def test_uncompressed_run_lengths_go_down_the_columns():
    mask = CocoRuns((1, 2, 3), 2, 3).mask(2, 3, "region")
    np.testing.assert_array_equal(mask, [[False, True, False], [True, False, False]])


@pytest.mark.parametrize(
    "counts, reason",
    [
        ([1, 2], r"expected run lengths that add up to 6 pixels, got 3"),
        ([1, 2, 4], r"expected run lengths that add up to 6 pixels, got 7"),
        ([7, -1], r"expected run lengths of at least 0, got -1"),
        ("1 2", 'expected compressed run lengths, got the character " " in them'),
        ("o", "cut off"),
    ],
)
def test_broken_run_lengths_are_refused(counts, reason):
    with pytest.raises(DataError, match=f"^region: .*{reason}"):
        CocoRuns(counts, 2, 3).mask(2, 3, "region")


def test_run_lengths_of_another_size_are_refused():
    with pytest.raises(DataError, match="expected run lengths for a picture of 3 x 2 pixels, got them for 2 x 3"):
        CocoRuns((6,), 3, 2).mask(2, 3, "region")


def test_no_run_lengths_are_no_mask():
    assert mask_of_counts([], 0, 0, "region").shape == (0, 0)
    assert decompressed_counts("", "region") == []


@pytest.mark.parametrize(
    "outline, reason",
    [
        ([1, 1, 5, 5], "at least 3 points, x and y of each, got 4 numbers"),  # pycocotools: a box
        ([1, 1, 5, 5, 2], "at least 3 points, x and y of each, got 5 numbers"),
        ([], "got 0 numbers"),
        ([0, 0, 1e9, 0, 0, 3], r"expected points of the picture, 20 x 10 pixels, got x = 1e\+09"),
        ([0, 0, 3, -50, 0, 3], "got y = -50"),
    ],
)
def test_polygons_that_are_none_are_refused(outline, reason):
    with pytest.raises(DataError, match=f"^region: .*{reason}"):
        Polygons([outline]).mask(10, 20, "region")


def test_points_a_little_outside_are_cut_off():
    mask = Polygons([[-1, -1, 21.5, -1, 21.5, 11, -1, 11]]).mask(10, 20, "region")
    assert mask.all()


def test_holes_are_taken_out():
    mask = Polygons([[0, 0, 6, 0, 6, 6, 0, 6]], [[2, 2, 4, 2, 4, 4, 2, 4]]).mask(6, 6, "region")
    assert mask.sum() == 32 and not mask[2:4, 2:4].any()
