"""Pretrained encoder weights from DeepLab2's checkpoints and Keras' applications."""

import json
import uuid

import h5py
import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints import save_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.pixel_encoders.convnext import ConvNeXt, ConvNeXtSettings
from deeplab2_kmax.model.pixel_encoders.moat import MOAT, MOATSettings
from deeplab2_kmax.model.pixel_encoders.resnet import ResNet, ResNetSettings
from deeplab2_kmax.pretrained_weights import load_pretrained_weights
from deeplab2_kmax.pretrained_weights.keras_applications import read_keras_application
from deeplab2_kmax.pretrained_weights.tensorflow_checkpoints import moat_key

SMALL = {"stage_filters": (4, 6, 8, 10), "stage_blocks": (1, 1, 2, 1)}
NARROW_MOAT = {"stem_channels": 8, "stage_filters": (8, 16, 32, 64), "stage_blocks": (1, 2, 2, 1)}


class Network(tf.keras.Model):
    """An encoder in the place it has in a whole network, with a layer behind it."""

    def __init__(self, pixel_encoder):
        super().__init__()
        self.pixel_encoder = pixel_encoder
        self.semantic_head = tf.keras.layers.Dense(2)
        self.semantic_head.build([None, 3])
        self(tf.zeros([1, 33, 33, 3]))

    def call(self, x, training=False):
        return self.pixel_encoder(x, training=training)

    def encoder_values(self):
        return {key: v.numpy() for key, v in checkpoint_variables(self).items() if key.startswith("encoder/")}


def convnext(**settings):
    return Network(ConvNeXt(ConvNeXtSettings(**{**SMALL, **settings}), Normalization()))


def write(path, values):
    """An object-based checkpoint of {key: value}."""
    tree = {}
    for key, value in values.items():
        *parents, leaf = key.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = tf.Variable(value)

    def item(node):
        return tf.train.Checkpoint(**{k: item(v) for k, v in node.items()}) if isinstance(node, dict) else node

    return item(tree).write(str(path))


def randomize(variables, seed=0):
    random = np.random.RandomState(seed)
    for variable in variables:
        lowest, highest = (0.5, 1.5) if "variance" in variable.name or "gamma" in variable.name else (-0.1, 0.1)
        variable.assign(random.uniform(lowest, highest, variable.shape))


@pytest.mark.parametrize("root", ["encoder/", "", "backbone/_encoder/"])
def test_every_layout_of_deeplab2s_encoder_checkpoints(tmp_path, root):
    source, target = convnext(), convnext()
    randomize(source.variables)
    values = {root + key[len("encoder/") :]: value for key, value in source.encoder_values().items()}
    path = write(tmp_path / "ckpt", {**values, f"{root}head/kernel": np.zeros([4, 5], np.float32)})
    report = load_pretrained_weights(target, path, "kmax_convnext_tiny")
    assert set(report.loaded) == set(source.encoder_values()) and not report.missing
    assert report.unused == ("encoder/head/kernel",)
    for key, value in target.encoder_values().items():
        np.testing.assert_array_equal(value, source.encoder_values()[key])


def test_of_a_whole_model_only_the_encoder_is_taken(tmp_path):
    source, target = convnext(), convnext()
    randomize(source.variables)
    before = target.semantic_head.get_weights()[0]
    save_checkpoint(source, str(tmp_path / "ckpt"))
    report = load_pretrained_weights(target, str(tmp_path / "ckpt"), "kmax_convnext_tiny")
    np.testing.assert_array_equal(target.semantic_head.get_weights()[0], before)
    assert any(key.startswith("semantic_head") for key in report.unused)


@pytest.mark.parametrize(
    "settings, received",
    [
        ({"stage_blocks": (1, 1, 3, 1)}, "stages of 1, 1, 3, 1 blocks"),
        ({"stage_blocks": (1, 1, 1, 1)}, "stages of 1, 1, 1, 1 blocks"),
        ({"stage_filters": (4, 6, 8, 12)}, "stages of 1, 1, 2, 1 blocks"),
    ],
    ids=["more blocks", "fewer blocks", "wider"],
)
def test_another_variant_is_refused_and_nothing_assigned(tmp_path, settings, received):
    save_checkpoint(convnext(**settings), str(tmp_path / "ckpt"))
    target = convnext()
    before = target.encoder_values()
    with pytest.raises(CheckpointError) as error:
        load_pretrained_weights(target, str(tmp_path / "ckpt"), "kmax_convnext_tiny")
    assert "kmax_convnext_tiny" in str(error.value) and str(tmp_path) in str(error.value)
    assert "expected stages of 1, 1, 2, 1 blocks" in str(error.value) and f"got {received}" in str(error.value)
    for key, value in target.encoder_values().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("name", ["weights.h5", "ckpt-7"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(CheckpointError, match=name):
        load_pretrained_weights(convnext(), str(tmp_path / name), "kmax_convnext_tiny")


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "weights.h5").write_bytes(b"no HDF5")
    with pytest.raises(CheckpointError, match="weights.h5: not a readable HDF5 file"):
        load_pretrained_weights(convnext(), str(tmp_path / "weights.h5"), "kmax_convnext_tiny")


@pytest.mark.parametrize("ending", [".h5", ""])
def test_weights_on_remote_storage(tmp_path, ending):
    """A TensorFlow checkpoint, and an HDF5 file, which the HDF5 library could not open there."""
    folder = f"ram://pretrained/{uuid.uuid4().hex}"
    target = convnext()
    key = "encoder/downsample_layers/0/layer_with_weights-1/gamma"
    gamma = np.arange(SMALL["stage_filters"][0], dtype=np.float32)
    if ending:
        with h5py.File(tmp_path / "weights.h5", "w") as file:
            file["convnext_tiny_stem/convnext_tiny_stem_layernorm/gamma:0"] = gamma
        files.write_bytes(f"{folder}/weights.h5", (tmp_path / "weights.h5").read_bytes())
        stored = read_keras_application(f"{folder}/weights.h5", "convnext", 1e-3)
        np.testing.assert_array_equal(stored[key].read(), gamma)
    else:
        source = convnext()
        randomize(source.variables)
        report = load_pretrained_weights(target, save_checkpoint(source, f"{folder}/ckpt"), "kmax_convnext_tiny")
        assert not report.missing
        np.testing.assert_array_equal(target.encoder_values()[key], source.encoder_values()[key])
    with pytest.raises(CheckpointError, match=f"{folder}/none{ending}"):
        load_pretrained_weights(target, f"{folder}/none{ending}", "kmax_convnext_tiny")


def moat(position_embedding=True):
    return Network(MOAT(MOATSettings(**NARROW_MOAT, position_embedding=position_embedding), Normalization()))


def test_names_of_deeplab2s_moat(golden):
    names = json.loads((golden / "moat_narrow.names.json").read_text())
    assert {name: moat_key(name) for name in names} == names
    assert moat_key("moat/stem/conv_1/bias") == moat_key("conv_1/bias") == "encoder/_stem/layer_with_weights-2/bias"


@pytest.mark.parametrize("position_embedding", [True, False])
def test_moat_by_variable_names(tmp_path, golden, position_embedding):
    """As in DeepLab2, moving statistics may be missing and the position embedding may be left behind."""
    names = json.loads((golden / "moat_narrow.names.json").read_text())
    source, target = moat(), moat(position_embedding)
    randomize(source.variables)
    values = source.encoder_values()
    stored = {}
    for name, key in names.items():
        if "moving_" not in name:
            averaged = "shrink_conv" in name  # Of some only the average, of others both.
            stored[name + ("/ExponentialMovingAverage" if averaged else "")] = values[key]
            stored[name + "/ExponentialMovingAverage"] = values[key] if averaged else np.zeros_like(values[key])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.Saver({name: tf.compat.v1.Variable(value) for name, value in stored.items()})
        session.run(tf.compat.v1.global_variables_initializer())
        path = saver.save(session, str(tmp_path / "moat"))
    report = load_pretrained_weights(target, path, "kmax_moat0")
    assert report.missing and all("moving_" in key for key in report.missing)
    assert any(key.endswith("/relative_position_embedding") for key in report.unused) != position_embedding
    for key in report.loaded:
        np.testing.assert_array_equal(checkpoint_variables(target)[key].numpy(), values[key])


def test_keras_files_are_for_convnext_and_resnet(tmp_path):
    (tmp_path / "weights.h5").touch()
    with pytest.raises(CheckpointError, match="kinds convnext, resnet; this one is of the kind moat"):
        load_pretrained_weights(moat(), str(tmp_path / "weights.h5"), "kmax_moat0")


def test_convnext_of_keras_has_the_same_features(tmp_path):
    """Where no map has an odd side DeepLab2 pads nothing but the image, and all stages agree.

    The image is padded with zeros of its normalized values: mid-grey.
    """
    keras = tf.keras.applications.ConvNeXtTiny(weights=None, include_top=False, input_shape=(64, 64, 3))
    randomize([v for v in keras.variables if "normalization" not in v.name])
    keras.save_weights(str(tmp_path / "convnext_tiny.h5"))
    target = Network(ConvNeXt(ConvNeXtSettings(), Normalization()))
    report = load_pretrained_weights(target, str(tmp_path / "convnext_tiny.h5"), "kmax_convnext_tiny")
    assert not report.missing and report.unused and all("stage" not in key for key in report.unused)
    image = np.random.RandomState(1).uniform(0, 255, [1, 61, 61, 3]).astype(np.float32)
    grey = np.pad(image, [[0, 0], [1, 2], [1, 2], [0, 0]], constant_values=127.5)
    sums = [layer.output for layer in keras.layers if "add" in layer.name]
    outputs = [sums[2], sums[5], sums[14], sums[17]]  # The last blocks of four stages of 3, 3, 9 and 3.
    expected = tf.keras.Model(keras.input, outputs)(grey)
    features = target(image / 127.5 - 1.0)
    for stage, figures in enumerate(expected, start=2):
        assert np.abs(figures).max() > 0.1
        np.testing.assert_allclose(features[f"stage{stage}"], figures, rtol=0, atol=1e-5 * np.abs(figures).max())


@pytest.fixture(scope="module")
def keras_resnet50(tmp_path_factory):
    """(ResNet50 of Keras with random weights, the file they are in)."""
    keras = tf.keras.applications.ResNet50(weights=None, include_top=False, input_shape=(97, 97, 3))
    randomize(keras.variables)
    path = str(tmp_path_factory.mktemp("keras") / "resnet50.h5")
    keras.save_weights(path)
    return keras, path


def resnet50(**settings):
    return Network(ResNet(ResNetSettings(**settings), Normalization()))


def test_resnet50_of_keras_agrees_up_to_the_first_stride(keras_resnet50):
    """With a max-pool after the stem the first stage is the same; near the border Keras sees another color outside."""
    keras, path = keras_resnet50
    target = resnet50(stem_max_pool=True)
    report = load_pretrained_weights(target, path, "kmax_resnet50")
    assert not report.missing and not report.unused
    image = np.random.RandomState(1).uniform(0, 255, [1, 97, 97, 3]).astype(np.float32)
    expected = tf.keras.Model(keras.input, keras.get_layer("conv2_block3_out").output)(
        tf.keras.applications.resnet50.preprocess_input(image.copy())
    )[:, 6:-6, 6:-6]
    actual = tf.nn.relu(target(image / 127.5 - 1.0)["stage2"])[:, 6:-6, 6:-6]
    assert actual.shape[1] > 10 and np.abs(expected).max() > 0.1
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("stage, blocks, channels", [(3, 4, 512), (4, 6, 1024), (5, 3, 2048)])
def test_resnet50_of_keras_agrees_in_blocks_that_do_not_stride(keras_resnet50, stage, blocks, channels):
    keras, path = keras_resnet50
    target = resnet50()
    load_pretrained_weights(target, path, "kmax_resnet50")
    first, last = (keras.get_layer(f"conv{stage}_block{block}_out").output for block in (1, blocks))
    x = np.random.RandomState(stage).uniform(0, 1, [1, *first.shape[1:3], channels]).astype(np.float32)
    expected = tf.keras.Model(first, last)(x)
    actual = x
    for block in target.pixel_encoder.stages[stage - 2][1:]:
        actual = block(actual, training=False)
    np.testing.assert_allclose(tf.nn.relu(actual), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_convnext_file_for_a_resnet_is_refused(keras_resnet50):
    with pytest.raises(CheckpointError, match="kmax_convnext_tiny\n.*expected stages of 1, 1, 2, 1.*\n.*no encoder"):
        load_pretrained_weights(convnext(), keras_resnet50[1], "kmax_convnext_tiny")
