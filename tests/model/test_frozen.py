"""Networks whose weights are constants: they compute what the network does, and no longer what it becomes."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.model import build_model, frozen
from deeplab2_kmax.model.frozen import FrozenNetwork


@pytest.fixture
def images():
    return tf.constant(np.random.RandomState(0).uniform(0, 255, (2, 65, 97, 3)).astype(np.float32))


@pytest.mark.parametrize("worthwhile", [frozen.WORTHWHILE, 1000], ids=["constants", "variables"])
def test_all_outputs_are_the_networks(tiny_config, images, monkeypatch, worthwhile):
    """Also where it is first called while another function is traced, as evaluation does."""
    monkeypatch.setattr(frozen, "WORTHWHILE", worthwhile)
    model = build_model(tiny_config)
    expected = tf.function(lambda images: model(images, training=False), autograph=False)(images)
    network = FrozenNetwork(model)
    found = tf.function(lambda images: network(images, training=False), autograph=False)(images)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(found[name], values, atol=2e-5 * scale, err_msg=name)
    # Batches of another size are no other function.
    assert network(images[:1])["transformer_class_logits"].shape[0] == 1


def test_later_weights_do_not_count(tiny_config, images):
    model = build_model(tiny_config)
    network = FrozenNetwork(model)
    before = network(images)["transformer_class_logits"].numpy()
    for variable in model.variables:
        variable.assign(tf.zeros_like(variable))
    np.testing.assert_array_equal(network(images)["transformer_class_logits"], before)


def test_it_cannot_be_trained(tiny_config, images):
    with pytest.raises(ValueError, match="expected training=False"):
        FrozenNetwork(build_model(tiny_config))(images, training=True)


def test_tensorflow_fuses_what_it_can(configs, tiny_overrides):
    """The next block's ReLU and the decoder read the encoder's features, which TensorFlow's remapper fails at."""
    program = (
        "import sys, tensorflow as tf\n"
        "from deeplab2_kmax.config import load_config\n"
        "from deeplab2_kmax.model import build_model, frozen\n"
        "model = build_model(load_config(sys.argv[1], sys.argv[2:]))\n"
        "for frozen.WORTHWHILE in (1000, 10**9):\n"
        "    print(frozen.FrozenNetwork(model)(tf.zeros([1, 65, 65, 3])).keys())"
    )
    config = str(configs / "shapes" / "kmax_tiny.textproto")
    # TensorFlow reads once what it may say, and is told to be silent in this process.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "1"}
    command = [sys.executable, "-c", program, config, *tiny_overrides]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.count("transformer_class_logits") == 2
    assert "remapper failed" not in result.stderr
