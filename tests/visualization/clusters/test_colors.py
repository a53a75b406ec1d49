"""Colors of clusters: distinct where it matters, muted elsewhere, near the preferred ones."""

from __future__ import annotations

import numpy as np

from deeplab2_kmax.visualization.clusters.colors import MOST_VIVID, cluster_colors, muted_colors, vivid_colors


def _saturation(colors):
    colors = colors.astype(int)
    return colors.max(-1) - colors.min(-1)


def test_vivid_colors_differ_and_are_the_same_every_time():
    colors = vivid_colors(MOST_VIVID).astype(int)
    distance = np.abs(colors[:, None] - colors[None]).sum(-1)
    assert distance[~np.eye(MOST_VIVID, dtype=bool)].min() >= 40
    np.testing.assert_array_equal(vivid_colors(5), vivid_colors(MOST_VIVID)[:5])


def test_large_clusters_are_vivid_and_small_ones_muted():
    shares = np.zeros(256)
    shares[[200, 7, 30]] = 0.6, 0.399, 0.001
    colors = cluster_colors(shares[None])
    assert colors.shape == (256, 3) and colors.dtype == np.uint8
    np.testing.assert_array_equal(colors[[200, 7]], vivid_colors(2))
    others = np.delete(np.arange(256), [200, 7])
    np.testing.assert_array_equal(colors[others], muted_colors(256)[others])
    assert _saturation(colors[others]).max() < 60 < _saturation(colors[[200, 7]]).min()


def test_only_so_many_are_vivid():
    colors = cluster_colors(np.full((1, 100), 0.01))
    np.testing.assert_array_equal(colors[:MOST_VIVID], vivid_colors(MOST_VIVID))
    np.testing.assert_array_equal(colors[MOST_VIVID:], muted_colors(100)[MOST_VIVID:])


def test_clusters_that_owned_much_on_the_way_are_vivid_too():
    shares = np.zeros((4, 16))
    shares[:, 3], shares[1, 5], shares[-1, 3], shares[-1, 7] = 0.5, 0.5, 0.9, 0.1
    colors = cluster_colors(shares)
    np.testing.assert_array_equal(colors[[3, 7, 5]], vivid_colors(3))


def test_preferences_are_met_as_far_as_colors_stay_distinct():
    shares = np.array([0.5, 0.3, 0.1, 0.1, 0.0])
    preferred = np.array([[40, 140, 40], [200, 160, 90], [60, 140, 230], [60, 140, 230], [255, 0, 0]], np.uint8)
    colors = cluster_colors(shares[None], preferred).astype(int)
    green, sand, *blues = colors[:4].tolist()
    assert green[1] == max(green)
    assert sand[0] == max(sand) and sand[2] == min(sand)
    assert all(blue[0] == min(blue) for blue in blues)
    assert len(np.unique(colors, axis=0)) == 5
    # Wishes of clusters that own nothing do not count.
    np.testing.assert_array_equal(colors[4], muted_colors(5)[4])
