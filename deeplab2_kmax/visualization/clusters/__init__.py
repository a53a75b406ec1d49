"""Pictures of what a transformer decoder clusters: which pixel belongs to which center, layer by layer.

Start with `figure`: the page (`cluster_page`) and the single pictures (`cluster_panels`). `layer_views` holds what a
model says about each layer; `numbers` and `convergence` what is counted from it; the other files draw.
"""

from deeplab2_kmax.visualization.clusters.figure import cluster_page, cluster_panels

__all__ = ["cluster_page", "cluster_panels"]
