"""Using trained models: predicting on pictures, exporting, looking at the clusters of each layer.

Start reading at `inference`: `InferenceModel` is the trained network as one function from pixels to panoptic maps.
`predictor` turns these maps into segments in Python, and `exporting` writes the function as a SavedModel, with the
files of `assets` beside it, or as `portable` has it for the runtimes in `formats`. `pre_labels` turns predictions into
files for labelling tools. `cluster_viewer` keeps the intermediate assignments instead; `visualization.clusters` draws
them. Picture files are decoded in `pictures`. The commands that use all this are in `cli`; evaluation on a data set is
in `evaluation`.

A name of `__all__` is imported when it is first used: `Predictor` runs exports of some formats where TensorFlow is not
installed, `numpy_resizing` in place of what needs it, and starts sooner where it is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deeplab2_kmax.pictures import read_image
    from deeplab2_kmax.serving.cluster_viewer import ClusterViewer
    from deeplab2_kmax.serving.exporting import export
    from deeplab2_kmax.serving.inference import InferenceModel, inference_config
    from deeplab2_kmax.serving.predictor import Prediction, Predictor, Segment

# Public name -> module that defines it.
_PUBLIC = {
    "ClusterViewer": "serving.cluster_viewer",
    "InferenceModel": "serving.inference",
    "Prediction": "serving.predictor",
    "Predictor": "serving.predictor",
    "Segment": "serving.predictor",
    "export": "serving.exporting",
    "inference_config": "serving.inference",
    "read_image": "pictures",
}
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


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"deeplab2_kmax.{_PUBLIC[name]}"), name)
    globals()[name] = value  # Python then finds it without this function.
    return value
