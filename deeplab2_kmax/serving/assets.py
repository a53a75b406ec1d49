"""What an export says about itself: files in the `assets.extra` folder of the SavedModel."""

from __future__ import annotations

import dataclasses
import json
import os

import tensorflow as tf

from deeplab2_kmax.config import config_to_text
from deeplab2_kmax.datasets import DatasetDescriptor, read_descriptor
from deeplab2_kmax.protos import config_pb2

_FOLDER = "assets.extra"
_DATASET, _CONFIG = "dataset.json", "config.textproto"


def write_assets(path: str, config: config_pb2.ExperimentOptions, dataset: DatasetDescriptor) -> None:
    """Writes the classes and the resolved config of an export beside its graph at `path`."""
    folder = os.path.join(path, _FOLDER)
    tf.io.gfile.makedirs(folder)
    contents = {_DATASET: json.dumps(dataclasses.asdict(dataset), indent=1), _CONFIG: config_to_text(config)}
    for name, text in contents.items():
        with tf.io.gfile.GFile(os.path.join(folder, name), "w") as file:
            file.write(text)


def is_export(path: str) -> bool:
    """Whether `path` holds a SavedModel written by `export`."""
    return all(tf.io.gfile.exists(os.path.join(path, _FOLDER, name)) for name in (_DATASET, _CONFIG))


def read_dataset(path: str) -> DatasetDescriptor:
    """The data set of the export at `path`."""
    return read_descriptor(os.path.join(path, _FOLDER, _DATASET))
