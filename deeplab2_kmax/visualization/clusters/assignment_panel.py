"""One picture of a pixel-to-cluster assignment: every pixel in its cluster's colour, the photo dimly underneath."""

from __future__ import annotations

import numpy as np
from PIL import Image

from deeplab2_kmax.visualization.clusters.layer_views import ClusterViews, resample

# Drawn at twice the size and averaged, so that borders are smooth.
_OVERSAMPLING = 2
# How far the photo's light parts pull a cluster's colour to white, and its dark ones to black.
_LIGHT, _SHADE = 0.4, 0.45
# Share of its colour that a cluster shows where all have as much of a pixel.
_FAINTEST = 0.3
# Opacity of the white line between clusters.
_BORDER = 0.6
_PAPER = np.array([246, 246, 247], np.float32)
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def assignment_panel(
    views: ClusterViews, layer: int, colors: np.ndarray, size: tuple[int, int], *, borders: bool = True
) -> np.ndarray:
    """The picture of one layer.

    Args:
      views: the picture and its layers.
      layer: index into `views.layers`.
      colors: [N, 3] uint8, a colour for each cluster.
      size: height and width of the panel in pixels.
      borders: whether to draw a fine light line between clusters.

    Returns:
      [*size, 3] uint8 RGB. A pixel has the full colour of its cluster where that has it all, and the paler the less of
      it the cluster has.
    """
    fine = tuple(_OVERSAMPLING * side for side in size)
    assignment = views.layers[layer].assignment
    labels = resample(assignment.argmax(-1), fine, views.extent)
    confidence = resample(certainty(assignment.max(-1), assignment.shape[-1]), fine, views.extent)
    photo = Image.fromarray(views.image).resize(fine[::-1], Image.Resampling.BICUBIC)
    painted = paint_clusters(labels, colors, np.asarray(photo), confidence, borders=borders)
    return np.asarray(Image.fromarray(painted).reduce(_OVERSAMPLING))


def certainty(largest_share: np.ndarray, num_clusters: int) -> np.ndarray:
    """The largest share 1/N .. 1 of a pixel brought to 0 .. 1, float32."""
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
      borders: whether to draw the pixels on both sides of a border lighter.

    Returns:
      [H, W, 3] uint8 RGB.
    """
    # Square root: attention over a hundred centers, of which none has much, has to show differences too.
    strength = _FAINTEST + (1 - _FAINTEST) * np.sqrt(confidence)[..., None]
    canvas = _PAPER + strength * (colors[labels].astype(np.float32) - _PAPER)
    relief = (photo @ _LUMINANCE / 127.5 - 1)[..., None]
    canvas += np.where(relief > 0, _LIGHT * relief * (255 - canvas), _SHADE * relief * canvas)
    if borders:
        edges = border_pixels(labels)
        canvas[edges] += _BORDER * (255 - canvas[edges])
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def border_pixels(labels: np.ndarray) -> np.ndarray:
    """[H, W] bool: pixels with another label to their left, right, above or below."""
    edges = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges
