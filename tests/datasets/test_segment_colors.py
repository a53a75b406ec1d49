"""Segment ids and colors of COCO's panoptic PNGs, one as the other."""

import numpy as np

from deeplab2_kmax.datasets.segment_colors import colors_to_ids, ids_to_colors


def test_the_lowest_digit_is_red():
    ids = np.array([[0, 1, 255], [256, 65536, 2**24 - 1]])
    colors = ids_to_colors(ids)
    assert colors.dtype == np.uint8
    expected = [[[0, 0, 0], [1, 0, 0], [255, 0, 0]], [[0, 1, 0], [0, 0, 1], [255, 255, 255]]]
    np.testing.assert_array_equal(colors, expected)


def test_colors_become_the_ids_they_were_made_from():
    ids = np.random.RandomState(0).randint(0, 2**24, (50, 40))
    again = colors_to_ids(ids_to_colors(ids))
    assert again.dtype == np.int32
    np.testing.assert_array_equal(again, ids)
