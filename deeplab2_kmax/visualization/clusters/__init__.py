"""Draws how a transformer decoder clusters a picture: which pixel belongs to which center, layer by layer.

Start reading at `figure`, which composes the page (`cluster_page`) and the single pictures (`cluster_panels`).
`layer_views` holds the model's intermediate results, and `numbers` what is computed from them, with the formulas of
`convergence`. `grid` lays out the page; `page`, `charts`, `colors` and `assignment_panel` draw. Running the model is
the task of `serving.cluster_viewer`.
"""

from deeplab2_kmax.visualization.clusters.figure import cluster_page, cluster_panels

__all__ = ["cluster_page", "cluster_panels"]
