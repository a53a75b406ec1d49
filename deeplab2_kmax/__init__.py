"""Mask transformers for panoptic segmentation that see object queries as cluster centers; compatible with DeepLab2.

import deeplab2_kmax as dk

config = dk.load_config("configs/coco/kmax_r50.textproto", ["train_dataset_options.batch_size=2"])
model = dk.build_model(config)
outputs = model(images, training=False)
"""

import importlib as _importlib
import os as _os

from deeplab2_kmax.version import __version__

# TensorFlow turns oneDNN's kernels on by itself only on CPUs with AVX-512. They are several times faster than its own
# with AVX2 too, above all the gradients of convolutions. Has to be said before TensorFlow is imported.
_os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Public name -> module that defines it. They are imported on first use, so that importing the package, and with it a
# command's --help, does not wait for TensorFlow.
_PUBLIC = {
    "load_config": "config",
    "build_model": "model",
    "load_checkpoint": "checkpoints",
    "save_checkpoint": "checkpoints",
    "build_loss": "losses",
    "build_postprocessor": "postprocessing",
    "load_dataset": "datasets",
    "build_dataset": "input_pipeline",
    "Predictor": "serving",
    "ClusterViewer": "serving",
    "export": "serving",
    "overlay": "visualization",
    "cluster_page": "visualization.clusters",
    "UserError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "CheckpointError": "errors",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *_PUBLIC])
