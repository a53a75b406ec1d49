"""Mask transformers for panoptic segmentation that see object queries as cluster centers; compatible with DeepLab2.

    import deeplab2_kmax as dk

    config = dk.load_config("coco/kmax_r50", ["train_dataset_options.batch_size=2"])
    model = dk.build_model(config)
    outputs = model(images, training=False)

The names in `__all__` are the public interface; the first few, such as `load_config` and `build_model`, are a good
place to start reading. Each folder's docstring says what lives there.

The files beside the folders serve several of them: `dependency_lines` (what differs between TensorFlow 2.15 with its
companions and TensorFlow 2.20 with its), `errors` (what a user can mend), `files` (local and remote paths),
`folder_lock`, `distribution` (sums over workers), `random_draws` (repeatable random numbers of a training step),
`programs` (flags in DeepLab2's style), `terminal` and `wording` (what is printed, and its phrases), `version`.
"""

import importlib as _importlib
import os as _os

from deeplab2_kmax.dependency_lines import use_keras_2 as _use_keras_2
from deeplab2_kmax.terminal import quiet_imports as _quiet_imports
from deeplab2_kmax.version import __version__

# By itself, TensorFlow uses oneDNN's kernels only on CPUs with AVX-512. With AVX2 too they are several times faster
# than TensorFlow's own, above all for gradients of convolutions. This has to be set before TensorFlow is imported.
_os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
_quiet_imports()
_use_keras_2()

# Public name -> module that defines it. A module is imported when its name is first used, so that importing the
# package, and with it the --help of a command, does not wait for TensorFlow.
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


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        from deeplab2_kmax.wording import did_you_mean

        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{did_you_mean(name, _PUBLIC)}")
    # Once more: since this package was imported, others may have replaced `tf.keras`.
    _use_keras_2()
    value = getattr(_importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value  # Python then finds it without this function.
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
