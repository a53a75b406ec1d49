"""Pictures of panoptic maps: class colours, overlays with class names, panels side by side."""

from deeplab2_kmax.visualization.coloring import panoptic_to_color, segment_colors
from deeplab2_kmax.visualization.comparison import comparison
from deeplab2_kmax.visualization.overlay import display_scale, overlay
from deeplab2_kmax.visualization.panels import contact_sheet, side_by_side

__all__ = [
    "comparison",
    "contact_sheet",
    "display_scale",
    "overlay",
    "panoptic_to_color",
    "segment_colors",
    "side_by_side",
]
