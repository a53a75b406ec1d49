"""INT8: a network computes in whole numbers of 8 bits, whose ranges are found by running it on pictures.

This is post-training quantization. What it costs depends on the model and the pictures, so it is measured: how far the
outputs are from TensorFlow's on some of the pictures, and, if the evaluation data of the config is there, the panoptic
quality before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.config.placeholders import placeholders
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQuality
from deeplab2_kmax.input_pipeline import build_dataset
from deeplab2_kmax.pictures import PICTURE_ENDINGS, read_image
from deeplab2_kmax.postprocessing import undo_resize
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.serving import assets
from deeplab2_kmax.serving.formats import Contents, Runtime
from deeplab2_kmax.serving.inference import InferenceModel
from deeplab2_kmax.serving.portable import differences_from_tensorflow
from deeplab2_kmax.wording import counted

# Pictures to find ranges from, and how many of them are compared: more take time and hardly change the result.
_PICTURES, _COMPARED = 300, 8
# Pixels whose panoptic id may differ. INT8 moves borders; what changes more has lost whole segments.
_PIXELS_TOLERANCE = 0.2
# Images of the evaluation data that panoptic quality is measured on.
_SCORED = 500


def require_pictures(runtime: Runtime | None, file_format: str, folder: str) -> list[str]:
    """The files of pictures in a folder, spread over it if there are many.

    Args:
        runtime: of the export; None: TensorFlow.
        file_format: the name of its format.
        folder: local or remote.

    Raises:
        UserError: the runtime has no INT8, or what makes it is missing; or there is no picture.
    """
    if runtime is None or runtime.quantize is None:
        raise UserError(
            f"--quantize: expected --format=openvino, for which networks can be quantized, got {file_format}"
        )
    runtime.require_quantizer()
    try:
        names = sorted(name for name in files.list_folder(folder) if name.lower().endswith(PICTURE_ENDINGS))
    except OSError as error:
        raise UserError(f"--quantize: cannot read the folder {folder}: {error.strerror}") from error
    if not names:
        raise UserError(
            f"--quantize: expected a folder with pictures ({', '.join(PICTURE_ENDINGS)}), got none in {folder}"
        )
    return [files.join(folder, name) for name in names[:: -(-len(names) // _PICTURES)]]


def quantized(
    config: config_pb2.ExperimentOptions,
    model: InferenceModel,
    runtime: Runtime,
    contents: Contents,
    pictures: list[str],
) -> tuple[Contents, dict[str, Any]]:
    """Quantizes the network of an export, and measures what that costs.

    Args:
        config: of the model.
        model: what the export was made from.
        runtime: that of the export.
        contents: of the export in float32.
        pictures: files like those that the model is to see.

    Returns:
        The contents with the network in INT8; and facts for `export.json`.

    Raises:
        DataError: one of the pictures cannot be read.
        UserError: maps are too different.
    """
    assert runtime.quantize is not None

    def read(path: str) -> np.ndarray:
        prepared: np.ndarray = model.input_settings.prepare(tf.constant(read_image(path)[None]))[0].numpy()
        return prepared

    result = runtime.quantize(contents, pictures, read)
    run = runtime.load(result, "float32")
    compared = [read(path) for path in pictures[:_COMPARED]]
    # Together as well: quantization may get the batch wrong.
    compared.append(np.concatenate(compared[:2]))
    differences = differences_from_tensorflow(model, compared, [run(images) for images in compared])
    if differences["panoptic_pred"] > _PIXELS_TOLERANCE:
        raise UserError(
            f"export: expected the maps in INT8 to be those in float32 at {1 - _PIXELS_TOLERANCE:.0%} of pixels, got"
            f" {1 - differences['panoptic_pred']:.0%}; give more pictures like those that the model is to see, or leave"
            " --quantize out"
        )
    facts: dict[str, Any] = {"pictures": len(pictures), "differences_from_tensorflow": differences}
    if _has_labels(config):
        facts["panoptic_quality"] = _panoptic_qualities(
            config, model, {"float32": runtime.load(contents, "float32"), "int8": run}
        )
    return result, facts


def _has_labels(config: config_pb2.ExperimentOptions) -> bool:
    """Whether the evaluation data of a config is there, with labels."""
    data = config.eval_dataset_options
    if not data.decode_groundtruth_label or any(name.startswith("eval_") for name in placeholders(config)):
        return False
    return any(files.glob(pattern) for pattern in data.file_pattern)


def _panoptic_qualities(
    config: config_pb2.ExperimentOptions,
    model: InferenceModel,
    runs: dict[str, Callable[[np.ndarray], dict[str, np.ndarray]]],
) -> dict[str, float]:
    """PQ, 0..1, of functions from pictures to maps, by their names; and the number of `images`."""
    options = type(config.eval_dataset_options)()
    options.CopyFrom(config.eval_dataset_options)
    options.batch_size = 1
    qualities = {name: PanopticQuality(model.dataset) for name in runs}
    images = 0
    for sample in build_dataset(options, is_training=False).take(_SCORED):
        height, width = sample["size_raw"][0].numpy()
        truth = sample["panoptic_raw"][0, :height, :width].numpy()
        for name, run in runs.items():
            maps = {"panoptic_pred": tf.constant(run(sample["image"].numpy())["panoptic_pred"])}
            undone = undo_resize(maps, sample["size_resized"], sample["size_raw"][0])
            qualities[name].update(truth, undone["panoptic_pred"][0].numpy())
        images += 1
    return {**{name: float(quality.result().all.pq) for name, quality in qualities.items()}, "images": images}


def cost_of(path: str) -> str:
    """One line on what INT8 has cost the export in the folder `path`, as measured when it was made."""
    facts = assets.read_facts(path)["int8"]
    found = counted(facts["pictures"], "picture")
    same = 1 - facts["differences_from_tensorflow"]["panoptic_pred"]
    line = f"INT8 by {found}: maps equal to those in float32 at {same:.1%} of the pixels"
    if quality := facts.get("panoptic_quality"):
        float32, int8 = (100 * quality[name] for name in ("float32", "int8"))
        return f"{line}; PQ {float32:.2f} -> {int8:.2f} on {counted(quality['images'], 'image')} of the evaluation data"
    return f"{line}; PQ was not measured: no evaluation data at eval_dataset_options.file_pattern"
