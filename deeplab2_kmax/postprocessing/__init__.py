"""From mask and class logits to panoptic maps, and from the network's input size back to the picture's."""

from deeplab2_kmax.postprocessing.postprocessor import Postprocessor, build_postprocessor
from deeplab2_kmax.postprocessing.settings import MaskwiseSettings, PostprocessingSettings
from deeplab2_kmax.postprocessing.undo_resize import undo_resize

__all__ = ["MaskwiseSettings", "PostprocessingSettings", "Postprocessor", "build_postprocessor", "undo_resize"]
