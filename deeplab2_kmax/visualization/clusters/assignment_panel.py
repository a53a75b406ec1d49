"""Draws a pixel-to-cluster assignment: every pixel in its cluster's color, with the photo dimly underneath."""

from __future__ import annotations

import numpy as np
from PIL import Image

from deeplab2_kmax.visualization.borders import border_pixels
from deeplab2_kmax.visualization.clusters.layer_views import ClusterViews, resample

# Drawn at twice the size and averaged, so that borders are smooth.
_OVERSAMPLING = 2
# How far light parts of the photo pull a cluster's color towards white, and dark parts towards black.
_LIGHT, _SHADE = 0.4, 0.45
# Share of its color that a cluster shows where the pixel belongs to all clusters equally.
_FAINTEST = 0.3
# Opacity of the white line between clusters.
_BORDER = 0.6
_PAPER = np.array([246, 246, 247], np.float32)
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def assignment_panel(
    views: ClusterViews, layer: int, colors: np.ndarray, size: tuple[int, int], *, borders: bool = True
) -> np.ndarray:
    """Draws one layer.

    Args:
        views: the picture and its layers.
        layer: index into `views.layers`.
        colors: [N, 3] uint8, a color for each cluster.
        size: height and width of the panel in pixels.
        borders: whether to draw a fine light line between clusters.

    Returns:
        [*size, 3] uint8 RGB. A pixel has the full color of its cluster if it belongs to that cluster alone; it is paler
        the smaller the share of its cluster.
    """
    fine = _OVERSAMPLING * size[0], _OVERSAMPLING * size[1]
    assignment = views.layers[layer].assignment
    labels = resample(assignment.argmax(-1), fine, views.extent)
    confidence = resample(certainty(assignment.max(-1), assignment.shape[-1]), fine, views.extent)
    photo = Image.fromarray(views.image).resize((fine[1], fine[0]), Image.Resampling.BICUBIC)
    painted = paint_clusters(labels, colors, np.asarray(photo), confidence, borders=borders)
    return np.asarray(Image.fromarray(painted).reduce(_OVERSAMPLING))


def certainty(largest_share: np.ndarray, num_clusters: int) -> np.ndarray:
    """How sure an assignment is: the largest share of each pixel, 1/N..1, rescaled to 0..1, float32."""
    even = 1 / max(num_clusters, 2)
    return np.clip((np.asarray(largest_share, np.float32) - even) / (1 - even), 0, 1)


def paint_clusters(
    labels: np.ndarray, colors: np.ndarray, photo: np.ndarray, confidence: np.ndarray, *, borders: bool = True
) -> np.ndarray:
    """Paints clusters over a photo of the same size.

    Args:
        labels: [H, W] integers, the cluster of each pixel.
        colors: [N, 3] uint8.
        photo: [H, W, 3] uint8 RGB; its luminance shows through.
        confidence: [H, W] float 0..1; at 0 a cluster is very pale.
        borders: whether to lighten the pixels on both sides of a border.

    Returns:
        [H, W, 3] uint8 RGB.
    """
    # By the square root, so that differences also show where no cluster has much, as in attention over 128 centers.
    strength = _FAINTEST + (1 - _FAINTEST) * np.sqrt(confidence)[..., None]
    canvas = _PAPER + strength * (colors[labels].astype(np.float32) - _PAPER)
    relief = (photo @ _LUMINANCE / 127.5 - 1)[..., None]
    canvas += np.where(relief > 0, _LIGHT * relief * (255 - canvas), _SHADE * relief * canvas)
    if borders:
        edges = border_pixels(labels)
        canvas[edges] += _BORDER * (255 - canvas[edges])
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
