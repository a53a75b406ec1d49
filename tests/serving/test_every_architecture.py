"""Exports of every architecture predict what evaluation predicts, in every format: `pytest -m "slow or not slow" -s`.

The suite has one of them; tests/serving/test_saved_model.py and test_export_formats.py have another.
"""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.cli.inference_benchmark.models import unlike_zero
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.layers.folding import fold_batch_norms
from deeplab2_kmax.postprocessing import LOGITS, build_postprocessor
from deeplab2_kmax.serving import InferenceModel, export, formats, inference_config, portable
from deeplab2_kmax.serving.inference import MAPS, InputSettings
from helpers.families import FAMILIES, config_of_family

# Its activation brings a gradient of its own, which TensorFlow cannot save.
IN_THE_SUITE = "kmax_tiny_moat0"


@pytest.fixture(
    scope="module",
    params=[name if name == IN_THE_SUITE else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def family(request, tiny_overrides, tiny_max_overrides):
    """(config, model, the model for inference) of a narrow network."""
    config = inference_config(config_of_family(request.param, tiny_overrides, tiny_max_overrides))
    options = config.evaluator_options
    options.pixel_confidence_threshold = 0.2
    options.thing_area_limit = options.stuff_area_limit = 0
    maskwise = options.maskwise_postprocessing
    maskwise.transformer_class_confidence_threshold_thing = maskwise.transformer_class_confidence_threshold_stuff = 0
    model = build_model(config)
    unlike_zero(model)
    images = tf.constant(
        np.random.RandomState(1).uniform(0, 255, (3, *config.eval_dataset_options.crop_size, 3)), tf.float32
    )
    expected = model(images, training=False)
    expected = {**expected, **build_postprocessor(config)(expected)}
    fold_batch_norms(model)
    dataset = load_dataset(config.eval_dataset_options.dataset)
    made = InferenceModel(model, build_postprocessor(config), InputSettings.from_options(config), dataset)
    return config, made, images, expected


def require_same(found, expected, batch):
    for name in LOGITS:
        values = expected[name][:batch].numpy()
        assert np.abs(found[name] - values).max() <= 2e-4 * np.abs(values).max(), name
    for name in MAPS:
        if name.endswith("_pred"):
            assert np.mean(found[name] == expected[name][:batch].numpy()) >= 0.999, name


@pytest.mark.parametrize("batch", [1, 3])
def test_saved_models_predict_what_evaluation_does(family, tmp_path, monkeypatch, batch):
    config, made, images, expected = family
    monkeypatch.setattr(InferenceModel, "from_checkpoint", lambda *_: made)
    loaded = tf.saved_model.load(export(config, None, tmp_path / "export"))
    # At the network's input size, so that nothing is resized.
    pictures = tf.cast(images[:batch], tf.uint8)
    expected_of_pictures = made.maps_of(tf.cast(pictures, tf.float32))
    found = {**loaded.signatures["raw"](input_tensor=pictures), **loaded(pictures)}
    require_same(found, {**made.logits_of(tf.cast(pictures, tf.float32)), **expected_of_pictures}, batch)
    # What was exported is what evaluation computes.
    require_same({**made.logits_of(images[:batch]), **made.maps_of(images[:batch])}, expected, batch)


@pytest.mark.slow
@pytest.mark.parametrize("name", formats.RUNTIMES)
def test_other_runtimes_predict_what_evaluation_does(family, name):
    config, made, images, expected = family
    runtime = formats.RUNTIMES[name]
    try:
        runtime.version()
        runtime.require_converter()
    except UserError as error:
        pytest.skip(str(error))
    contents, differences = portable.checked_conversion(
        portable.portable_function(config, made, runtime.batch), made, runtime
    )
    print(
        f"\n{config.model_options.backbone.name}, {name}: "
        + str({k: float(f"{v:.1g}") for k, v in differences.items()})
    )
    run = runtime.load(contents, "float32")
    for batch in [1] if runtime.batch else [1, 3]:
        require_same(run(images[:batch].numpy()), expected, batch)
