"""An export predicts what evaluation predicts, for every batch size, image size and form of input."""

from __future__ import annotations

import io
import json
import os
import resource
import uuid

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax import files
from deeplab2_kmax.config import load_config
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import CheckpointError, StorageError, UserError
from deeplab2_kmax.folder_lock import hold_lock
from deeplab2_kmax.input_pipeline.resizing import resize_for_inference
from deeplab2_kmax.model import frozen
from deeplab2_kmax.pictures import decode_image
from deeplab2_kmax.postprocessing import LOGITS, build_postprocessor, undo_resize
from deeplab2_kmax.protos import serving_request_pb2
from deeplab2_kmax.serving import InferenceModel, Predictor, export, inference, inference_config
from deeplab2_kmax.serving.inference import InputSettings

IDS, SCORES = ("panoptic_pred", "semantic_pred", "instance_pred"), ("semantic_scores", "instance_scores")


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(exported)


@pytest.fixture(scope="module")
def serve(loaded):
    """The default signature, from a batch of pictures to maps."""
    return lambda images: loaded.signatures["serving_default"](input_tensor=images)


@pytest.fixture(scope="module")
def evaluate(config, model):
    """What evaluation does with a batch of pictures: its own functions, one after the other."""
    crop_size, postprocess = tuple(config.eval_dataset_options.crop_size), build_postprocessor(config)
    network = tf.function(lambda images: model(images, training=False), autograph=False, reduce_retracing=True)

    def maps(images):
        prepared = [resize_for_inference(image, crop_size) for image in images]
        outputs = network(tf.stack([image for image, _ in prepared]))
        return undo_resize(postprocess(outputs), prepared[0][1], tf.shape(images)[1:3])

    return maps


def _batch(size: int, height: int, width: int) -> tf.Tensor:
    """[size, height, width, 3] uint8, smooth so that resizing does not level it to grey."""
    noise = np.random.RandomState(5).randint(0, 256, (size, 4, 5, 3)).astype(np.float32)
    return tf.cast(tf.image.resize(noise, (height, width)), tf.uint8)


def _assert_same(maps: dict, expected: dict) -> None:
    assert set(maps) == set(IDS + SCORES)
    for name in IDS:
        assert maps[name].dtype == tf.int32
        assert maps[name].shape == expected[name].shape
        # Graphs and single operations round differently; k-means carries that over to pixels between two clusters.
        assert np.mean(maps[name].numpy() == expected[name].numpy()) > 0.99
    for name in SCORES:
        assert maps[name].dtype == tf.float32
        # TensorFlow 2.20 optimizes the two graphs in different ways: with these random weights, up to 4e-3.
        assert np.mean(np.abs(maps[name].numpy() - expected[name].numpy()) < 5e-3) > 0.99


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 65, 65), (3, 65, 65), (3, 40, 90), (1, 171, 120)])
def test_saved_model_equals_evaluation(serve, evaluate, batch, height, width):
    images = _batch(batch, height, width)
    expected = evaluate(images)
    assert len(np.unique(expected["panoptic_pred"])) > 2
    _assert_same(serve(images), expected)


def test_loaded_object_takes_batches_and_single_images(loaded, serve):
    images = _batch(2, 50, 70)
    _assert_same(loaded(images), serve(images))
    _assert_same(loaded(images[1]), serve(images[1:]))


def test_an_empty_batch_gives_empty_maps(loaded, serve):
    for maps in (serve(_batch(0, 50, 70)), loaded(_batch(0, 50, 70))):
        assert {name: values.shape for name, values in maps.items()} == dict.fromkeys((*IDS, *SCORES), (0, 50, 70))
    maps = dict(loaded.signatures["encoded"](encoded=tf.constant([], tf.string)))
    assert maps.pop("image_size").shape == (0, 2)
    assert set(maps) == {*IDS, *SCORES} and all(values.shape[0] == 0 for values in maps.values())


def test_image_signature_is_that_of_deeplab2(loaded, serve):
    image = _batch(1, 50, 70)
    _assert_same(loaded.signatures["image"](input_tensor=image[0]), serve(image))


def test_encoded_images_equal_their_pixels(loaded, serve):
    first, second = _batch(2, 50, 70)
    files = tf.stack([tf.io.encode_png(first), tf.io.encode_jpeg(second)])
    pixels = tf.stack([first, tf.io.decode_image(files[1])])
    maps = dict(loaded.signatures["encoded"](encoded=files))
    assert maps.pop("image_size").numpy().tolist() == [[50, 70]] * 2
    _assert_same(maps, serve(pixels))


def test_encoded_images_are_turned_upright(loaded, serve):
    """As `predict` turns them; a picture that was taken sideways lies beside an upright one."""
    (pixels,) = _batch(1, 30, 70)
    turned, sideways = io.BytesIO(), Image.Exif()
    sideways[0x0112] = 6
    Image.fromarray(np.asarray(pixels)).save(turned, "PNG", exif=sideways)
    maps = loaded.signatures["encoded"](encoded=tf.stack([turned.getvalue(), tf.io.encode_png(pixels)]))
    assert maps["image_size"].numpy().tolist() == [[70, 30], [30, 70]]
    expected = serve(decode_image(turned.getvalue())[None])["panoptic_pred"][0].numpy()
    assert np.mean(maps["panoptic_pred"].numpy()[0, :, :30] == expected) > 0.995


def test_encoded_images_of_different_sizes_are_padded_with_void(loaded, serve):
    wide, tall = _batch(1, 30, 70), _batch(1, 60, 40)
    maps = loaded.signatures["encoded"](encoded=tf.stack([tf.io.encode_png(wide[0]), tf.io.encode_png(tall[0])]))
    assert maps["image_size"].numpy().tolist() == [[30, 70], [60, 40]]
    panoptic = maps["panoptic_pred"].numpy()
    assert panoptic.shape == (2, 60, 70)
    assert (panoptic[0, 30:] == 0).all()
    assert (panoptic[1, :, 40:] == 0).all()
    assert np.mean(panoptic[0, :30] == serve(wide)["panoptic_pred"][0].numpy()) > 0.995
    assert np.mean(panoptic[1, :, :40] == serve(tall)["panoptic_pred"][0].numpy()) > 0.995


def test_raw_signature_gives_the_logits_of_the_network(loaded, config, model):
    images = _batch(2, 40, 90)
    raw = loaded.signatures["raw"](input_tensor=images)
    prepared, resized_size = resize_for_inference(images, tuple(config.eval_dataset_options.crop_size))
    outputs = model(prepared, training=False)
    assert raw.keys() == {*LOGITS, "resized_size"}
    np.testing.assert_array_equal(raw["resized_size"], resized_size)
    for name in LOGITS:
        differences = np.abs(raw[name] - outputs[name]) / np.abs(outputs[name]).max()
        # Rounding decides to which of two clusters a pixel goes that is as near to both, and so a slot's logits.
        assert np.mean(differences > 2e-4) < 0.02
        assert differences.max() < 2e-3
    assert loaded.signatures["raw"](input_tensor=_batch(0, 40, 90))[LOGITS[0]].shape[0] == 0


def test_few_weights_are_constants_of_the_graph(loaded, exported):
    for signature in loaded.signatures.values():
        assert not [captured for captured in signature.captured_inputs if captured.dtype == tf.resource]
    with open(os.path.join(exported, "assets.extra", "export.json"), encoding="utf-8") as file:
        assert json.load(file)["weights"] == "constants"


def test_many_weights_stay_variables(serve, config, model, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "build_model", lambda _: model)
    monkeypatch.setattr(frozen, "WORTHWHILE", 1000)
    loaded = tf.saved_model.load(export(config, checkpoint, tmp_path / "export"))
    with open(tmp_path / "export" / "assets.extra" / "export.json", encoding="utf-8") as file:
        assert json.load(file)["weights"] == "variables"
    images = _batch(1, 65, 65)
    _assert_same(loaded(images), serve(images))


def test_many_weights_are_constants_for_other_runtimes(config, model, checkpoint, monkeypatch):
    monkeypatch.setattr(inference, "build_model", lambda _: model)
    monkeypatch.setattr(frozen, "WORTHWHILE", 1000)
    made = InferenceModel.from_checkpoint(config, checkpoint)
    constant = made.constant_logits()
    assert made.weights and not constant.captured_inputs
    images = tf.cast(_batch(1, 65, 65), tf.float32)
    for name, expected in made.logits_of(images).items():
        np.testing.assert_allclose(constant(images)[name], expected, atol=2e-4 * np.abs(expected).max())
    monkeypatch.setattr(frozen, "LARGEST", 1000)
    assert made.constant_logits() is None


def test_requests_to_warm_up_are_those_of_tensorflow_serving(exported, loaded):
    """The bytes were compared once with the messages of tensorflow-serving-api 2.15.1; they are played here."""
    played = []
    for record in tf.data.TFRecordDataset(os.path.join(exported, "assets.extra", "tf_serving_warmup_requests")):
        request = serving_request_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {
            name: tf.io.parse_tensor(value, tf.uint8 if name == "input_tensor" else tf.string)
            for name, value in request.inputs.items()
        }
        maps = loaded.signatures[request.model_spec.signature_name](**inputs)
        assert maps["panoptic_pred"].shape[0] == 1
        played.append(request.model_spec.signature_name)
    assert played == ["serving_default", "image", "encoded"]


def test_export_says_what_it_was_made_from(exported, checkpoint):
    with open(os.path.join(exported, "assets.extra", "export.json"), encoding="utf-8") as file:
        facts = json.load(file)
    assert facts["checkpoint"] == checkpoint and len(facts["checkpoint_fingerprint"]) == 16
    assert facts["precision"] == "float32" and facts["input"]["crop_size"] == [65, 65]


def test_export_carries_classes_and_config(exported, config, tmp_path):
    extra = os.path.join(exported, "assets.extra")
    with open(os.path.join(extra, "dataset.json"), encoding="utf-8") as file:
        assert [c["name"] for c in json.load(file)["classes"]][:1] == ["circle"]
    assert load_config(os.path.join(extra, "config.textproto")) == config


def test_inference_config_needs_no_training_files_and_drops_nothing(config):
    training = type(config)()
    training.CopyFrom(config)
    training.model_options.initial_checkpoint = "imagenet"
    training.model_options.backbone.pretrained_weights = "imagenet"
    training.model_options.backbone.drop_path_keep_prob = 0.8
    training.model_options.max_deeplab.transformer_decoder_drop_path_keep_prob = 0.8
    before = training.SerializeToString(deterministic=True)
    options = inference_config(training).model_options
    assert not options.initial_checkpoint
    assert not options.backbone.pretrained_weights
    assert options.backbone.drop_path_keep_prob == 1
    assert options.max_deeplab.transformer_decoder_drop_path_keep_prob == 1
    assert training.SerializeToString(deterministic=True) == before


def test_export_leaves_a_foreign_folder_alone(config, checkpoint, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="expected a new or empty folder or an earlier export, got something else"):
        export(config, checkpoint, tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_export_to_a_place_that_cannot_be_written(config, checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        export(config, checkpoint, tmp_path / "file" / "export")
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_export_leaves_nothing_behind(config, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        export(config, str(tmp_path / "nowhere"), tmp_path / "export")
    assert os.listdir(tmp_path) == []


class _SmallModel:
    """Stands in for the network where only files matter."""

    weights = ()
    checkpoint = None

    def __init__(self, dataset):
        self.dataset = dataset
        self.input_settings = InputSettings((65, 65))

    def segment(self, images):
        first = images[..., 0]
        scores = tf.ones(tf.shape(first))
        return {"panoptic_pred": tf.cast(first, tf.int32), "semantic_scores": scores, "instance_scores": scores}

    def segment_encoded(self, files):
        return {"panoptic_pred": tf.strings.length(files)}

    def raw(self, images):
        return {"resized_size": tf.shape(images)[1:3]}


@pytest.fixture
def small_model(monkeypatch):
    """Exports in this test take no time to build."""
    monkeypatch.setattr(InferenceModel, "from_checkpoint", lambda *_: _SmallModel(load_dataset("shapes")))


def test_an_earlier_export_is_replaced(small_model, config, tmp_path):
    export(config, None, tmp_path / "export")
    (tmp_path / "export" / "stale").write_text("")
    export(config, None, tmp_path / "export")
    assert os.listdir(tmp_path) == ["export"]
    assert not (tmp_path / "export" / "stale").exists()
    tf.saved_model.load(str(tmp_path / "export"))


def _leave(folder, owner, *kinds):
    """What an export that was killed leaves beside `folder`."""
    for kind in kinds:
        (folder / f"export.{owner}{kind}" / "assets.extra").mkdir(parents=True)
        for name in ("dataset.json", "config.textproto"):
            (folder / f"export.{owner}{kind}" / "assets.extra" / name).write_text(owner)


def test_what_killed_exports_have_left_is_cleared_away(small_model, config, tmp_path):
    _leave(tmp_path, "0123abcd", ".tmp", ".old")
    (tmp_path / "export.0123abcd.lock").write_text("")
    others = ["export.notes.tmp", "other.0123abcd.tmp"]
    for name in others:
        (tmp_path / name).mkdir()
    export(config, None, tmp_path / "export")
    assert sorted(os.listdir(tmp_path)) == ["export", *others]
    tf.saved_model.load(str(tmp_path / "export"))


def test_an_export_killed_between_its_two_renames_gives_the_earlier_one_its_name_back(config, tmp_path):
    _leave(tmp_path, "0123abcd", ".old", ".tmp")
    with pytest.raises(CheckpointError, match="nowhere"):
        export(config, str(tmp_path / "nowhere"), tmp_path / "export")
    assert os.listdir(tmp_path) == ["export"]
    assert (tmp_path / "export" / "assets.extra" / "dataset.json").read_text() == "0123abcd"


def test_an_export_that_is_still_being_written_is_left_alone(small_model, config, tmp_path):
    _leave(tmp_path, "0123abcd", ".tmp")
    with hold_lock(tmp_path / "export.0123abcd.lock"):
        export(config, None, tmp_path / "export")
        assert {"export", "export.0123abcd.tmp"} < set(os.listdir(tmp_path))


def test_a_full_disk_is_named_and_nothing_is_left(small_model, config, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # Python ignores the signal that goes with it.
    try:
        with pytest.raises(StorageError, match=f"^{tmp_path}/export: cannot write the export: .*File too large"):
            export(config, None, tmp_path / "export")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


def test_an_export_in_a_remote_folder_is_replaced_and_read_back(small_model, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parent = f"ram://exports/{uuid.uuid4().hex}"
    for _ in range(2):
        assert export(config, None, f"{parent}/export/") == f"{parent}/export"
        assert files.list_folder(parent) == ["export"]
        predictor = Predictor.from_saved_model(f"{parent}/export")
        assert predictor.dataset == load_dataset("shapes")
        assert predictor(np.full((3, 4, 3), 7, np.uint8)).panoptic_map.tolist() == [[7] * 4] * 3
    assert load_config(f"{parent}/export/assets.extra/config.textproto") == config
    # A remote path taken for a local one would make a folder "ram:" here.
    assert os.listdir(tmp_path) == []


def test_a_foreign_remote_folder_is_left_alone(small_model, config):
    folder = f"ram://exports/{uuid.uuid4().hex}"
    files.write_text(f"{folder}/notes.txt", "mine")
    with pytest.raises(UserError, match="earlier export, got something else"):
        export(config, None, folder)
    assert files.list_folder(folder) == ["notes.txt"]


def test_a_precision_for_what_has_one_is_refused(exported):
    with pytest.raises(UserError, match="expected no precision for a SavedModel, .*mixed_bfloat16"):
        Predictor.from_saved_model(exported, precision="bfloat16")
