"""The files in the `assets.extra` folder of an export: its data set, its config, and facts about it."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

from deeplab2_kmax import files
from deeplab2_kmax.datasets import DatasetDescriptor, read_descriptor

# Whatever reads or writes configs and requests is imported late: some exports run without the libraries that it needs.
if TYPE_CHECKING:
    from deeplab2_kmax.protos import config_pb2

# TensorFlow's name for files that belong to a SavedModel but not to its graph; loading ignores them. Exports in other
# formats have the same files in the same place.
_FOLDER = "assets.extra"
_DATASET, _CONFIG, _FACTS = "dataset.json", "config.textproto", "export.json"


def write_assets(
    path: str, config: config_pb2.ExperimentOptions, dataset: DatasetDescriptor, facts: dict[str, Any]
) -> None:
    """Writes the classes and the resolved config of an export, and facts about it, beside its graph.

    Args:
        path: folder of the export.
        config: the experiment that was exported.
        dataset: the classes that the exported model knows.
        facts: what else programs and people may ask about the export, for `export.json`.

    Raises:
        OSError: the folder cannot be written to.
    """
    from deeplab2_kmax.config import config_to_text

    folder = files.join(path, _FOLDER)
    files.write_json(files.join(folder, _DATASET), dataclasses.asdict(dataset), indent=1)
    files.write_text(files.join(folder, _CONFIG), config_to_text(config))
    files.write_json(files.join(folder, _FACTS), facts)


def write_requests(path: str, size: tuple[int, int]) -> None:
    """Writes the requests by which TensorFlow Serving warms up the SavedModel in the folder `path`.

    Args:
        path: folder of the SavedModel.
        size: height and width of the pictures in the requests.

    Raises:
        OSError: the folder cannot be written to.
    """
    from deeplab2_kmax.serving.warm_up import REQUESTS, write_warm_up

    write_warm_up(files.join(path, _FOLDER, REQUESTS), size)


def digest(content: bytes) -> str:
    """What tells whether the content of a file is still what `export` wrote."""
    return hashlib.sha256(content).hexdigest()


def is_export(path: str) -> bool:
    """Whether the folder `path` holds what `export` has written."""
    return all(files.exists(files.join(path, _FOLDER, name)) for name in (_DATASET, _CONFIG))


def read_config(path: str) -> config_pb2.ExperimentOptions:
    """The config of the export in the folder `path`, with the export's own descriptor as its data set."""
    from deeplab2_kmax.config import parse_config

    config = parse_config(files.join(path, _FOLDER, _CONFIG))
    config.eval_dataset_options.dataset = files.join(path, _FOLDER, _DATASET)
    return config


def read_dataset(path: str) -> DatasetDescriptor:
    """The data set of the export in the folder `path`."""
    return read_descriptor(files.join(path, _FOLDER, _DATASET))


def read_format(path: str) -> str:
    """The format of the export in the folder `path`; exports of versions that did not say it are SavedModels."""
    return read_facts(path).get("format", "saved_model")


def read_facts(path: str) -> dict[str, Any]:
    """The facts about the export in the folder `path`; none about exports of versions that did not write them."""
    file = files.join(path, _FOLDER, _FACTS)
    return files.read_json(file) if files.exists(file) else {}
