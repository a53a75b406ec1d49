"""The numbers of a clustering, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from deeplab2_kmax.visualization.clusters.convergence import (
    center_change,
    cluster_shares,
    effective_count,
    flows,
    moved_share,
    principal_plane,
)

BEFORE, AFTER = np.array([[0, 0, 1, 3]]), np.array([[0, 1, 1, 0]])


def test_shares_flows_and_moved_pixels():
    np.testing.assert_array_equal(cluster_shares(BEFORE, 5), [0.5, 0.25, 0, 0.25, 0])
    expected = np.zeros((5, 5))
    expected[[0, 0, 1, 3], [0, 1, 1, 0]] = 0.25
    np.testing.assert_array_equal(flows(BEFORE, AFTER, 5), expected)
    np.testing.assert_array_equal(flows(BEFORE, AFTER, 5).sum(1), cluster_shares(BEFORE, 5))
    np.testing.assert_array_equal(flows(BEFORE, AFTER, 5).sum(0), cluster_shares(AFTER, 5))
    assert moved_share(BEFORE, AFTER) == 0.5
    assert moved_share(AFTER, AFTER) == 0


def test_flows_of_many_clusters_in_small_integers():
    labels = np.array([255, 0], np.uint8)
    assert flows(labels, labels, 256)[255, 255] == 0.5


def test_effective_count():
    weights = np.array([[3.0, 3, 0, 3], [0, 7, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(effective_count(weights), [3, 1, 0], atol=1e-9)
    # Shares of 1/2, 1/4, 1/4 have an entropy of 1.5 bits.
    np.testing.assert_allclose(effective_count(np.array([2, 1, 1])), 2**1.5)
    np.testing.assert_allclose(effective_count(weights.T, axis=0), effective_count(weights))
    assert effective_count(np.full((4, 5, 6), 0.1), axis=1).shape == (4, 6)


def test_center_change():
    before = np.array([[1.0, 0], [1, 0], [1, 0], [0, 0], [0, 0], [3, 4]])
    after = np.array([[5.0, 0], [0, 2], [-1, 0], [0, 0], [1, 0], [4, 3]])
    np.testing.assert_allclose(center_change(before, after), [0, 1, 2, 0, 1, 1 - 24 / 25], atol=1e-12)


def test_principal_plane_finds_the_plane_of_the_centers_in_use():
    random = np.random.RandomState(0)
    plane = np.linalg.qr(random.randn(6, 2))[0].T
    inside = np.stack([10 * random.randn(3, 4), random.randn(3, 4)], -1) @ plane
    paths = np.concatenate([inside, 50 * random.randn(3, 2, 6)], 1)
    coordinates, explained = principal_plane(paths, np.array([True] * 4 + [False] * 2))
    assert coordinates.shape == (3, 6, 2)
    assert explained.sum() == pytest.approx(1)
    assert explained[0] > 0.9
    # Distances within the plane are kept.
    flat, drawn = inside.reshape(-1, 6), coordinates[:, :4].reshape(-1, 2)
    np.testing.assert_allclose(np.linalg.norm(drawn[0] - drawn, axis=-1), np.linalg.norm(flat[0] - flat, axis=-1))
    # Whatever sign the decomposition gives, the axes point to the largest coordinates.
    assert (coordinates.reshape(-1, 2).max(0) == np.abs(coordinates.reshape(-1, 2)).max(0)).all()


def test_principal_plane_of_a_single_resting_center():
    coordinates, explained = principal_plane(np.ones((2, 1, 3)))
    assert (coordinates == 0).all() and (explained == 0).all()
