"""The files in the `assets.extra` folder of an exported SavedModel: its data set and its config."""

from __future__ import annotations

import dataclasses

from deeplab2_kmax import files
from deeplab2_kmax.config import config_to_text
from deeplab2_kmax.datasets import DatasetDescriptor, read_descriptor
from deeplab2_kmax.protos import config_pb2

# TensorFlow's name for files that belong to a SavedModel but not to its graph; loading ignores them.
_FOLDER = "assets.extra"
_DATASET, _CONFIG = "dataset.json", "config.textproto"


def write_assets(path: str, config: config_pb2.ExperimentOptions, dataset: DatasetDescriptor) -> None:
    """Writes the classes and the resolved config of an export beside its graph.

    Args:
        path: folder of the SavedModel.
        config: the experiment that was exported.
        dataset: the classes that the exported model knows.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder = files.join(path, _FOLDER)
    files.write_json(files.join(folder, _DATASET), dataclasses.asdict(dataset), indent=1)
    files.write_text(files.join(folder, _CONFIG), config_to_text(config))


def is_export(path: str) -> bool:
    """Whether the folder `path` holds a SavedModel written by `export`."""
    return all(files.exists(files.join(path, _FOLDER, name)) for name in (_DATASET, _CONFIG))


def read_dataset(path: str) -> DatasetDescriptor:
    """The data set of the export in the folder `path`."""
    return read_descriptor(files.join(path, _FOLDER, _DATASET))
