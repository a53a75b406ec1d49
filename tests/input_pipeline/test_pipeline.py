"""Batches from synthetic records whose every value is known."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.input_pipeline import build_dataset, pipeline
from deeplab2_kmax.input_pipeline.settings import PipelineSettings
from helpers.pipeline_records import labels, options, pixels, record, write

PASTE = "panoptic_copy_paste_%s_option"


@pytest.fixture
def shards(tmp_path):
    """Seven records in two shards, "0" to "6"; even ones are 12 x 16, odd ones 9 x 20. A third shard is empty."""
    records = [record(*((12, 16), (9, 20))[i % 2], name=str(i), seed=i) for i in range(7)]
    write(tmp_path / "train-00000-of-00003.tfrecord", records[:3])
    write(tmp_path / "train-00001-of-00003.tfrecord", [])
    write(tmp_path / "train-00002-of-00003.tfrecord", records[3:])
    return str(tmp_path / "train-*.tfrecord")


def names(dataset):
    return [name.decode() for batch in dataset for name in batch["image_name"].numpy()]


def test_evaluation_sample_by_hand(shards):
    batch = next(iter(build_dataset(options(shards), is_training=False)))
    image, label = pixels(12, 16, seed=0), labels(12, 16, seed=0)
    # 12 x 16 fits into 17 x 21 as it is: rows 12.. and columns 16.. are padding.
    padded = np.full((1, 17, 21, 3), 127.5, np.float32)
    padded[0, :12, :16] = image
    padded_label = np.zeros((17, 21), np.int32)
    padded_label[:12, :16] = label
    np.testing.assert_array_equal(batch["image"], padded)
    np.testing.assert_array_equal(batch["resized_image"][0], image)
    np.testing.assert_array_equal(batch["panoptic_gt"][0], padded_label)
    np.testing.assert_array_equal(batch["semantic_gt"][0], padded_label // 256)
    np.testing.assert_array_equal(batch["panoptic_raw"][0], label)
    np.testing.assert_array_equal(batch["semantic_raw"][0], label // 256)
    assert not batch["is_crowd_gt"].numpy().any() and not batch["is_crowd_raw"].numpy().any()
    np.testing.assert_array_equal(batch["semantic_loss_weight"], np.ones((1, 17, 21), np.float32))
    things = dict.fromkeys(i for i in label.ravel().tolist() if i % 256)
    assert batch["thing_id_class_gt"][0].numpy().tolist() == [i // 256 for i in things] + [-1] * (8 - len(things))
    for number, panoptic_id in enumerate(things):
        np.testing.assert_array_equal(batch["thing_id_mask_gt"][0] == number, padded_label == panoptic_id)
    assert batch["size_raw"].numpy().tolist() == batch["size_resized"].numpy().tolist() == [[12, 16]]
    assert batch["image_name"].numpy().tolist() == [b"0"]
    assert len(batch) == 14


def test_evaluation_sees_each_record_once_in_order(shards):
    for batch_size in (3, 16):
        dataset = build_dataset(options(shards, batch_size=batch_size), is_training=False)
        assert names(dataset) == list("0123456")


def test_evaluation_batch_of_different_sizes(shards):
    batch = next(iter(build_dataset(options(shards, batch_size=2), is_training=False)))
    assert batch["size_raw"].numpy().tolist() == [[12, 16], [9, 20]]
    assert batch["panoptic_raw"].shape == (2, 12, 20) and batch["resized_image"].shape == (2, 12, 20, 3)
    np.testing.assert_array_equal(batch["panoptic_raw"][1, :9], labels(9, 20, seed=1))
    assert (batch["panoptic_raw"][1, 9:].numpy() == 0).all() and (batch["resized_image"][1, 9:].numpy() == 127.5).all()


def test_void_of_cityscapes_fills_up(tmp_path):
    sizes, void = [(12, 16), (9, 20)], 255000
    records = [record(*size, label=np.full(size, 11001, np.int32)) for size in sizes]
    path = write(tmp_path / "c.tfrecord", records)
    batch = next(iter(build_dataset(options(path, dataset="cityscapes_panoptic", batch_size=2), is_training=False)))
    for name, empty in {"panoptic_raw": void, "semantic_raw": 255, "panoptic_gt": void, "semantic_gt": 255}.items():
        assert (batch[name][1, 9:].numpy() == empty).all() and (batch[name][1, :9, :20].numpy() != empty).all(), name


def test_records_without_labels(shards):
    dataset = build_dataset(options(shards, decode_groundtruth_label=False), is_training=False)
    assert set(dataset.element_spec) == {"image", "resized_image", "size_resized", "image_name", "size_raw"}
    assert names(dataset) == list("0123456")


def test_training_batches_are_whole_endless_and_of_known_shape(shards):
    dataset = build_dataset(options(shards, batch_size=4), is_training=True)
    assert dataset.element_spec["image"].shape == (4, 17, 21, 3)
    assert dataset.element_spec["thing_id_mask_gt"].shape == (4, 17, 21)
    assert dataset.element_spec["thing_id_class_gt"].shape == (4, 8)
    assert len(list(dataset.take(5))) == 5


def test_training_shows_every_record_once_an_epoch(shards):
    # The mean of an unscaled, unflipped-invariant image tells the records apart.
    plain = options(shards, batch_size=7, crop_size=[30, 30], shuffle_buffer_size=3)
    expected = sorted(
        float(pixels(*((12, 16), (9, 20))[i % 2], seed=i).astype(np.float64).sum(dtype=np.float64)) for i in range(7)
    )
    for batch in build_dataset(plain, is_training=True).take(3):
        is_image = batch["semantic_gt"].numpy() > 0
        sums = sorted(float(image[seen].sum(dtype=np.float64)) for image, seen in zip(batch["image"].numpy(), is_image))
        np.testing.assert_allclose(sums, expected, rtol=1e-4)


def first_images(shards, **fields):
    scale = {"min_scale_factor": 0.5, "max_scale_factor": 2.0}
    dataset = build_dataset(options(shards, batch_size=4, augmentations=scale, **fields), is_training=True)
    return np.stack([batch["image"].numpy() for batch in dataset.take(4)])


def test_seed_makes_training_reproducible(shards):
    first = first_images(shards, seed=5)
    np.testing.assert_array_equal(first, first_images(shards, seed=5))
    assert (first != first_images(shards, seed=6)).any()
    assert (first_images(shards) != first_images(shards)).any()
    # Records that come again are augmented anew.
    assert len(np.unique(first.reshape(16, -1), axis=0)) == 16


@pytest.mark.parametrize("pattern", ["train-00002*", "train-*"])
def test_workers_share_the_records(tmp_path, shards, pattern):
    """Fewer files than workers are shared record by record, others file by file."""
    seen = []
    for worker in range(2):
        context = tf.distribute.InputContext(2, worker, num_replicas_in_sync=4)
        dataset = build_dataset(options(str(tmp_path / pattern), batch_size=8), False, context)
        seen += names(dataset)
        assert max(len(batch["image"]) for batch in dataset) <= 2
    assert sorted(seen) == list("3456" if "2" in pattern else "0123456")


def test_workers_draw_their_own_augmentation(shards):
    batches = []
    for worker in range(2):
        context = tf.distribute.InputContext(2, worker, num_replicas_in_sync=2)
        fields = {"batch_size": 8, "seed": 1, "augmentations": {"max_scale_factor": 2.0}}
        batches.append(next(iter(build_dataset(options(shards, **fields), True, context))))
    assert batches[0]["image"].shape == (4, 17, 21, 3)
    assert (batches[0]["image"] != batches[1]["image"]).numpy().any()


def test_batch_that_replicas_cannot_share():
    context = tf.distribute.InputContext(1, 0, num_replicas_in_sync=3)
    with pytest.raises(ConfigError, match="multiple of the 3 replicas, got 4"):
        pipeline._replica_batch_size(PipelineSettings.from_options(options("x", batch_size=4), True), context)


@pytest.mark.parametrize(
    ("fields", "training", "message"),
    [
        ({"dataset": "nowhere"}, True, "nowhere"),
        ({"crop_size": [17]}, True, "crop_size"),
        ({"max_resize_value": [18, 21]}, False, r"max_resize_value: \[18, 21\] exceeds crop_size \[17, 21\]"),
        ({"min_resize_value": [1, 2, 3]}, False, "min_resize_value"),
        ({"batch_size": 0}, True, "batch_size"),
        ({"use_two_frames": True}, True, "use_two_frames"),
        ({"decode_groundtruth_label": False}, True, "decode_groundtruth_label"),
        ({"augmentations": {"min_scale_factor": 2.0}}, True, "min_scale_factor"),
        ({"max_thing_id": 0}, True, "max_thing_id"),
        (
            {"augmentations": {"autoaugment_policy_name": "v0"}},
            True,
            r"autoaugment_policy_name: .*magnitude_scale_0.2; got",
        ),
        (
            {"augmentations": {"panoptic_copy_paste": {"panoptic_copy_paste_scale": 1, PASTE % "stuff": "some"}}},
            True,
            r"panoptic_copy_paste_stuff_option: expected one of random, none, all; got 'some'",
        ),
    ],
)
def test_contradictory_options(fields, training, message):
    with pytest.raises(ConfigError, match=message) as error:
        PipelineSettings.from_options(options("x", **fields), training)
    assert str(error.value).startswith("train_dataset_options." if training else "eval_dataset_options.")


def test_all_contradictions_are_listed_at_once():
    with pytest.raises(ConfigError) as error:
        PipelineSettings.from_options(options([], batch_size=0, resize_factor=-1), is_training=False)
    for field in ("file_pattern", "batch_size", "resize_factor"):
        assert f"eval_dataset_options.{field}: expected a" in str(error.value)


def test_bounds_as_configs_write_them():
    settings = PipelineSettings.from_options(options("x", min_resize_value=[7], max_resize_value=[0]), True)
    assert settings.min_size == (7, 7) and settings.max_size is None
    # DeepLab2 does not resize training images without bounds, so the factor has nothing to round.
    assert PipelineSettings.from_options(options("x", resize_factor=8), True).resize_factor == 0
    assert PipelineSettings.from_options(options("x", resize_factor=8), False).resize_factor == 8
