"""Trained models at work: predict on pictures, export as a SavedModel."""

from deeplab2_kmax.serving.cluster_viewer import ClusterViewer
from deeplab2_kmax.serving.export import export
from deeplab2_kmax.serving.inference import InferenceModel, inference_config
from deeplab2_kmax.serving.predictor import Prediction, Predictor, Segment
from deeplab2_kmax.serving.reading import read_image

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
