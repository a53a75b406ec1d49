"""Post-processing: from mask logits and class logits to panoptic maps, and back to the size of the picture.

`postprocessor` is where to start reading. It has two methods: `maskwise` paints masks from the most to the least
confident (its rules of who gets which pixel are in `painting`), `pixelwise` gives each pixel to its most probable slot.
Both find the slots that count at each pixel by `upsampled_top2`, which is most of the work, and turn them into ids by
`segments`. `undo_resize` brings maps from the network's input size to that of the picture; `settings` reads the config.

Everything is made of TensorFlow operations, so that an exported model includes it. Measuring the quality of maps
belongs to `evaluation`, drawing them to `visualization`.
"""

from deeplab2_kmax.postprocessing.postprocessor import LOGITS, Postprocessor, build_postprocessor
from deeplab2_kmax.postprocessing.settings import MaskwiseSettings, PostprocessingSettings
from deeplab2_kmax.postprocessing.undo_resize import undo_resize

__all__ = [
    "LOGITS",
    "MaskwiseSettings",
    "PostprocessingSettings",
    "Postprocessor",
    "build_postprocessor",
    "undo_resize",
]
