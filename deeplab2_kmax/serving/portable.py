"""A trained model for other runtimes than TensorFlow: its function, and the check that they compute the same.

The function takes pictures at the network's input size. Resizing a picture to it and maps back from it is left to the
caller, as it depends on the size of the picture, which many runtimes want to know beforehand.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.errors import ConfigError, UserError
from deeplab2_kmax.input_pipeline.resizing import PADDING_GREY
from deeplab2_kmax.model.averaged_passes import PassSettings
from deeplab2_kmax.postprocessing import LOGITS, build_postprocessor
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.serving.formats import RUNTIMES, Contents, Runtime, Unsupported
from deeplab2_kmax.serving.inference import MAPS, InferenceModel, only
from deeplab2_kmax.wording import first_line

# How far logits may be from TensorFlow's, as a fraction of the largest, and how many pixels of maps may differ: where
# two slots are equally probable, rounding decides.
_LOGITS_TOLERANCE, _PIXELS_TOLERANCE = 2e-4, 1e-3
# This module, which is also run as a program.
_MODULE = "deeplab2_kmax.serving.portable"
_IDS = tuple(name for name, dtype in MAPS.items() if dtype == tf.int32)


def require_portable(config: config_pb2.ExperimentOptions, runtime: Runtime) -> None:
    """Raises UserError where the runtime is missing, and ConfigError for models that can be exported to none."""
    runtime.version()
    runtime.require_converter()
    if not PassSettings.from_options(config.evaluator_options).is_plain:
        raise ConfigError(
            "evaluator_options.eval_scales, add_flipped_images: expected a single pass of the image as it is in an"
            f" export for {runtime.name}, got others; clear both fields, or export as SavedModel"
        )
    precision = config.model_options.precision
    if precision != "float32":
        raise ConfigError(
            f'model_options.precision: expected "float32" in an export for {runtime.name}, which chooses the precision'
            f" when it runs, got {precision!r}; add --override=model_options.precision=float32"
        )


def portable_function(config: config_pb2.ExperimentOptions, model: InferenceModel, batch: int | None) -> Any:
    """The function that is exported, of operations that other runtimes have.

    Args:
        config: that of the model.
        model: the model.
        batch: the only size of batches; None: any.

    Returns:
        A concrete function of `images`, [B, h, w, 3] float32, 0..255, pictures at the network's input size. It returns
        the maps of `InferenceModel` at that size, and the logits that they are made from.

    Raises:
        ConfigError: the weights are too many for one graph.
    """
    logits_of = model.constant_logits()
    if logits_of is None:
        raise ConfigError("export: expected weights of at most 1.9 GB, which fit a graph, got more; use saved_model")
    postprocess = build_postprocessor(config, portable=True)

    def segment(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = logits_of(images)
        return {**logits, **only(MAPS, postprocess(logits))}

    spec = tf.TensorSpec([batch, *model.input_settings.crop_size, 3], tf.float32, name="images")
    return tf.function(segment, autograph=False).get_concrete_function(spec)


def checked_conversion(function: Any, model: InferenceModel, runtime: Runtime) -> tuple[Contents, dict[str, float]]:
    """Converts a function for a runtime, runs the result there and compares it with TensorFlow's.

    Args:
        function: from `portable_function`.
        model: what it was made from, which is compared with.
        runtime: where it is to run.

    Returns:
        The contents of the files, and the largest differences found: of logits, as fractions of the largest logit, and
        of maps, as fractions of the pixels.

    Raises:
        UserError: the runtime lacks operations, fails, or computes something else.
    """
    try:
        contents = runtime.convert(function)
        pictures = _test_pictures(model.input_settings.crop_size)
        sizes = [runtime.batch] if runtime.batch else [1, len(pictures)]
        batches = [pictures[start : start + size] for size in sizes for start in range(0, len(pictures), size)]
        outputs = _outputs_apart(runtime, contents, batches) if runtime.apart else _outputs(runtime, contents, batches)
        differences = differences_from_tensorflow(model, batches, outputs)
    except Exception as error:  # Each runtime has its own errors.
        if isinstance(error, UserError):
            raise
        reason = (
            f"does not support {error}"
            if isinstance(error, Unsupported)
            else f"fails: {type(error).__name__}: {first_line(error)}"
        )
        raise UserError(
            f"export: {runtime.version()} {reason}; another version of it may do better, or export a SavedModel"
        ) from error
    wrong = {
        name: value
        for name, value in differences.items()
        if not value <= (_LOGITS_TOLERANCE if name in LOGITS else _PIXELS_TOLERANCE)
    }
    if wrong:
        name = max(wrong, key=wrong.__getitem__)
        kind = "of the largest logit" if name in LOGITS else "of the pixels"
        tolerance = _LOGITS_TOLERANCE if name in LOGITS else _PIXELS_TOLERANCE
        raise UserError(
            f"export: expected {runtime.version()} to compute what TensorFlow does, got {name} that differ by"
            f" {wrong[name]:.2g} {kind}, where {tolerance:g} is allowed; another version of it may do better, or export"
            " a SavedModel"
        )
    return contents, differences


def _outputs(runtime: Runtime, contents: Contents, batches: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """What a runtime computes for batches of pictures."""
    run = runtime.load(contents, "float32")
    return [run(images) for images in batches]


def _outputs_apart(runtime: Runtime, contents: Contents, batches: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """`_outputs` in a process of its own, whose crash is an error here."""
    (name,) = (name for name, each in RUNTIMES.items() if each is runtime)
    # Not by multiprocessing, whose processes run the caller's script once more, up to this very export.
    with tempfile.TemporaryDirectory() as folder:
        request, answer = (os.path.join(folder, part) for part in ("request", "answer"))
        files.write_bytes(request, pickle.dumps((name, contents, batches)))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", _MODULE, request, answer]
        said = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE).stderr
        if not os.path.exists(answer):
            last = said.decode(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"it ended its process{': ' if last else ''}{''.join(last)}")
        outputs: list[dict[str, np.ndarray]] = pickle.loads(files.read_bytes(answer))
        return outputs


def _main(request: str, answer: str) -> None:
    """What the process of its own does: reads a file, and writes another."""
    name, contents, batches = pickle.loads(files.read_bytes(request))
    files.write_bytes(answer, pickle.dumps(_outputs(RUNTIMES[name], contents, batches)))


def differences_from_tensorflow(
    model: InferenceModel, batches: list[np.ndarray], outputs: list[dict[str, np.ndarray]]
) -> dict[str, float]:
    """The largest differences of each of the logits and maps of ids, over batches of pictures and outputs for them."""
    found = dict.fromkeys((*LOGITS, *_IDS), 0.0)
    for images, got in zip(batches, outputs):
        tensors = tf.constant(images)
        for name, logits in model.logits_of(tensors).items():
            found[name] = max(found[name], _distance(got[name], logits.numpy()))
        maps = model.maps_of(tensors)
        for name in _IDS:
            found[name] = max(found[name], float(np.mean(got[name] != maps[name].numpy())))
    return found


def _distance(values: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a fraction of the largest expected value; infinite where the shapes differ."""
    if values.shape != expected.shape:
        return float("inf")
    largest = float(np.abs(expected).max())
    difference = float(np.abs(values - expected).max())
    # A NaN, of which no comparison is true, has to count as the largest of differences.
    return difference / max(largest, 1e-30) if np.isfinite(difference) else float("inf")


def _test_pictures(size: tuple[int, int]) -> np.ndarray:
    """Three pictures, float32 [3, h, w, 3], 0..255: noise; noise of all scales, as in photographs; with padding."""
    height, width = size
    draws = np.random.default_rng(0)
    noise = draws.uniform(0, 255, (height, width, 3)).astype(np.float32)

    def natural() -> np.ndarray:
        # The coarser the structures, the stronger: so are edges, surfaces and lighting in photographs.
        steps = range(1, min(height, width).bit_length() + 1)
        layers = [
            tf.image.resize(draws.standard_normal((2**step, 2**step, 3)), size).numpy() * 0.5**step for step in steps
        ]
        picture = np.sum(layers, 0)
        return (255 * (picture - picture.min()) / np.ptp(picture)).astype(np.float32)

    padded = natural()
    padded[height * 3 // 4 :] = PADDING_GREY
    return np.stack([noise, natural(), padded])


if __name__ == "__main__":
    _main(*sys.argv[1:])
