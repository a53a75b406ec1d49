"""Computes all numbers that the page of clusters shows."""

from __future__ import annotations

import dataclasses

import numpy as np

from deeplab2_kmax.visualization.clusters import convergence
from deeplab2_kmax.visualization.clusters.layer_views import ClusterViews, LayerView, resample

# Larger pictures are sampled with this many points on the longer side: enough for shares, and fast.
_COUNTED_SIDE = 512


@dataclasses.dataclass(frozen=True)
class ClusterNumbers:
    """The numbers of one picture, for K views (decoder layers, then final masks) and N clusters.

    Attributes:
        shares: [K, N] share of the pixels that each cluster owns in each view.
        flows: [K - 1, N, N] share of the pixels that go from each cluster to each other from one view to the next.
        moved: [K - 1] share of the pixels that changed cluster.
        sharing: [K] number of clusters that share a pixel, on average over the pixels; 1 if each belongs to one alone.
        changes: [K - 1, N] 1 - cosine between each center after a layer and before it.
        paths: [K, N, 2] centers in their principal plane, first as learned, then after each layer.
        explained: [2] share of the variance along each axis of that plane.
    """

    shares: np.ndarray
    flows: np.ndarray
    moved: np.ndarray
    sharing: np.ndarray
    changes: np.ndarray
    paths: np.ndarray
    explained: np.ndarray

    @classmethod
    def from_views(cls, views: ClusterViews) -> ClusterNumbers:
        """Computes the numbers of a picture."""
        height, width = views.image.shape[:2]
        scale = min(1, _COUNTED_SIDE / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        count = views.num_clusters
        labels = views.labels(size)
        pairs = list(zip(labels[:-1], labels[1:]))
        shares = np.stack([convergence.cluster_shares(label, count) for label in labels])
        # The last view, the final masks, leaves the centers as they are.
        after = [view.centers for view in views.layers if view.centers is not None]
        centers = np.stack([views.initial_centers, *after])
        paths, explained = convergence.principal_plane(centers, shares[-1] > 0)
        return cls(
            shares=shares,
            flows=np.stack([convergence.flows(before, after, count) for before, after in pairs]),
            moved=np.array([convergence.moved_share(before, after) for before, after in pairs]),
            sharing=np.array([_sharing(view, size, views.extent) for view in views.layers]),
            changes=np.stack([convergence.center_change(a, b) for a, b in zip(centers[:-1], centers[1:])]),
            paths=paths,
            explained=explained,
        )

    @property
    def in_use(self) -> np.ndarray:
        """[K] number of clusters that own at least one pixel."""
        return (self.shares > 0).sum(1)


def _sharing(view: LayerView, size: tuple[int, int], extent: tuple[float, float]) -> float:
    return float(resample(convergence.effective_count(view.assignment), size, extent).mean())
