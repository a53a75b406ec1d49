"""Using trained models: predicting on pictures, exporting, looking at the clusters of each layer.

Start reading at `inference`: `InferenceModel` is the trained network as one function from pixels to panoptic maps.
`predictor` turns these maps into segments in Python, and `export` writes the function as a SavedModel, with the files
of `assets` beside it, or as `portable` has it for the runtimes in `formats`. `pre_labels` turns predictions into files
for labelling tools. `cluster_viewer` keeps the intermediate assignments instead; `visualization.clusters` draws them.
Picture files are decoded in `pictures`. The commands that use all this are in `cli`; evaluation on a data set is in
`evaluation`.
"""

from deeplab2_kmax.pictures import read_image
from deeplab2_kmax.serving.cluster_viewer import ClusterViewer
from deeplab2_kmax.serving.export import export
from deeplab2_kmax.serving.inference import InferenceModel, inference_config
from deeplab2_kmax.serving.predictor import Prediction, Predictor, Segment

__all__ = [
    "ClusterViewer",
    "InferenceModel",
    "Prediction",
    "Predictor",
    "Segment",
    "export",
    "inference_config",
    "read_image",
]
