"""Formulas for how a clustering converges: who owns how much, what moved, how far centers turned. Pure NumPy."""

from __future__ import annotations

import numpy as np

# Against division by zero.
_TINY = 1e-12


def cluster_shares(labels: np.ndarray, num_clusters: int) -> np.ndarray:
    """Share of the pixels that each cluster owns.

    Args:
        labels: integers in 0..num_clusters-1, of any shape, not empty.
        num_clusters: number of clusters.

    Returns:
        [num_clusters] float64, sums to one.
    """
    return np.bincount(labels.ravel(), minlength=num_clusters) / labels.size


def flows(before: np.ndarray, after: np.ndarray, num_clusters: int) -> np.ndarray:
    """Share of the pixels that moved from each cluster to each other one.

    Args:
        before: labels of the pixels, integers in 0..num_clusters-1.
        after: later labels of the same pixels.
        num_clusters: number of clusters.

    Returns:
        [num_clusters, num_clusters] float64, from row to column; sums to one. The diagonal is what stayed.
    """
    pairs = before.ravel().astype(np.int64) * num_clusters + after.ravel()
    return np.bincount(pairs, minlength=num_clusters**2).reshape(num_clusters, num_clusters) / pairs.size


def moved_share(before: np.ndarray, after: np.ndarray) -> float:
    """Share of the pixels whose label changed, 0..1."""
    return float(np.mean(before != after))


def effective_count(weights: np.ndarray, axis: int = -1) -> np.ndarray:
    """How many entries share the weight: the exponential of the entropy along `axis`.

    k equal weights among zeros give k. Along the pixels of a cluster, it is the number of pixels that the cluster
    effectively attends to; along the clusters of a pixel, the number of clusters that effectively share the pixel.

    Args:
        weights: non-negative; need not sum to one.
        axis: along which to count.

    Returns:
        `weights`' shape without `axis`, float64: 1 .. length of the axis, and 0 where all weights are zero.
    """
    weights = np.asarray(weights, np.float64)
    total = weights.sum(axis, keepdims=True)
    share = weights / np.maximum(total, _TINY)
    entropy = -(share * np.log(np.maximum(share, _TINY))).sum(axis)
    return np.where(total.squeeze(axis) > 0, np.exp(entropy), 0.0)


def center_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """By how much each center turned: 1 - cosine of the angle between old and new.

    Args:
        before: [N, C] float, old centers.
        after: [N, C] float, new centers.

    Returns:
        [N] float64: 0 (same direction) .. 1 (right angle) .. 2 (opposite); 0 where both are zero, 1 where one is.
    """
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    lengths = np.linalg.norm(before, axis=-1), np.linalg.norm(after, axis=-1)
    cosine = (before * after).sum(-1) / np.maximum(lengths[0] * lengths[1], _TINY)
    both_zero = (lengths[0] <= _TINY) & (lengths[1] <= _TINY)
    return np.where(both_zero, 0.0, np.clip(1 - cosine, 0, 2))


def principal_plane(paths: np.ndarray, fitted: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Projects centers on the two directions in which they differ most (principal component analysis).

    Args:
        paths: [steps, N, C] float, centers before the first and after each layer.
        fitted: [N] bool, the centers that determine the plane; all of them if this is None or all False.

    Returns:
        [steps, N, 2] float64, coordinates in the plane, zero at the mean of the fitted centers; and [2], the share of
        the fitted centers' variance along each axis. The coordinate of largest magnitude is positive on each axis.
    """
    paths = np.asarray(paths, np.float64)
    chosen = paths if fitted is None or not np.any(fitted) else paths[:, np.asarray(fitted)]
    points = chosen.reshape(-1, paths.shape[-1])
    mean = points.mean(0)
    _, scales, axes = np.linalg.svd(points - mean, full_matrices=False)
    plane, variances = np.zeros((2, paths.shape[-1])), np.zeros(2)
    kept = min(2, len(axes))
    plane[:kept], variances[:kept] = axes[:kept], scales[:kept] ** 2
    coordinates = (paths - mean) @ plane.T
    flat = coordinates.reshape(-1, 2)
    # The sign of a principal axis is arbitrary; without this rule it could differ between machines.
    signs = np.sign(flat[np.abs(flat).argmax(0), [0, 1]])
    return coordinates * np.where(signs == 0, 1, signs), variances / max((scales**2).sum(), _TINY)
