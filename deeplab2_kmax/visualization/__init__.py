"""Draws panoptic maps: class colors, overlays with outlines and class names, panels side by side.

Start reading at `overlay`, which calls `coloring` (a color for each segment), `borders` (outlines) and `captions`
(class names). `panels` puts pictures side by side and `comparison` compares maps of one picture. `clusters` draws what
a transformer decoder does. Everything here takes NumPy arrays; models are run in `serving` and files written in `cli`.
"""

from deeplab2_kmax.visualization.borders import border_pixels
from deeplab2_kmax.visualization.coloring import panoptic_to_color, segment_colors
from deeplab2_kmax.visualization.comparison import comparison
from deeplab2_kmax.visualization.overlay import display_scale, overlay
from deeplab2_kmax.visualization.panels import contact_sheet, side_by_side

__all__ = [
    "border_pixels",
    "comparison",
    "contact_sheet",
    "display_scale",
    "overlay",
    "panoptic_to_color",
    "segment_colors",
    "side_by_side",
]
