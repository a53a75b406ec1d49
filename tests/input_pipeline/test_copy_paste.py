"""What is drawn for pasting, ids that stay apart, and images onto which nothing may be pasted."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.input_pipeline import build_dataset
from deeplab2_kmax.input_pipeline.augmentation import Crop
from deeplab2_kmax.input_pipeline.copy_paste import draw_kept, paste
from deeplab2_kmax.input_pipeline.settings import CopyPasteSettings, PipelineSettings
from helpers.pipeline_records import CIRCLE, GRASS, SKY, SQUARE, labels, options, record, write

SHAPES = load_dataset("shapes")
ALL = CopyPasteSettings((1.0, 1.0), "all", "all", "none")


def panoptic(*segments):
    return tf.constant([[c * 256 + i for c, i in segments]])


def paste_all(label, source, max_thing_id=9, settings=ALL):
    """Labels onto each other; image values are 0 and 1."""
    shape = [*label.shape, 3]
    seed = tf.constant([1, 2], tf.int64)
    crop = Crop(tf.ones([*source.shape, 3]), source, tf.constant([0, label.shape[1] - source.shape[1]]))
    image, merged, distinct = paste(tf.zeros(shape), label, crop, seed, SHAPES, settings, max_thing_id)
    np.testing.assert_array_equal(tf.gather(distinct.ids, distinct.index), tf.reshape(merged, [-1]))
    return image[..., 0].numpy().ravel().tolist(), merged.numpy().ravel().tolist()


def test_any_number_of_segments_any_of_them():
    count = 4
    draw = tf.function(lambda index: draw_kept(tf.stack([tf.constant(5, tf.int64), index]), count))
    drawn = np.array([draw(tf.constant(i, tf.int64)) for i in range(1000)])
    numbers = np.bincount(drawn.sum(1), minlength=count + 1)
    np.testing.assert_allclose(numbers, 200, atol=60)
    np.testing.assert_allclose(drawn.mean(0), 0.5, atol=0.06)
    # One of four: each is as likely.
    np.testing.assert_allclose(drawn[drawn.sum(1) == 1].mean(0), 0.25, atol=0.12)


def test_nothing_to_draw_from():
    assert draw_kept(tf.constant([1, 2], tf.int64), 0).shape == (0,)


def test_equal_ids_of_two_images_stay_apart():
    label = panoptic((CIRCLE, 1), (CIRCLE, 2), (SKY, 0), (SKY, 0), (SKY, 0))
    source = panoptic((0, 0), (SQUARE, 0), (CIRCLE, 1), (CIRCLE, 127), (GRASS, 0))
    image, merged = paste_all(label, source)
    # Void stays out; a crowd and stuff keep their instance 0, others count down from 254.
    ids = [(CIRCLE, 1), (SQUARE, 0), (CIRCLE, 254), (CIRCLE, 128), (GRASS, 0)]
    assert merged == [c * 256 + i for c, i in ids]
    assert image == [0, 1, 1, 1, 1]


@pytest.mark.parametrize("own", [1, 253, 254])
def test_instance_numbers_that_would_collide_are_left_alone(own):
    label = panoptic((CIRCLE, own), (SKY, 0), (CIRCLE, own))
    # Circle 1 becomes circle 254.
    source = panoptic((SKY, 0), (CIRCLE, 1))
    image, merged = paste_all(label, source)
    if own == 254:
        assert (image, merged) == ([0, 0, 0], label.numpy().ravel().tolist())
    else:
        assert (image, merged[0], merged[2]) == ([0, 1, 1], label[0, 0], CIRCLE * 256 + 254)


def test_instance_that_would_become_a_crowd_is_left_alone():
    label, source = panoptic((CIRCLE, 1), (SKY, 0)), panoptic((SKY, 0), (CIRCLE, 255))
    assert paste_all(label, source) == ([0, 0], label.numpy().ravel().tolist())


def test_no_more_things_than_allowed():
    label = panoptic((CIRCLE, 1), (CIRCLE, 2), (SKY, 0))
    # To the right, after a pixel of padding.
    source = panoptic((CIRCLE, 1), (SQUARE, 1))
    # Two and two, of which one is covered.
    assert paste_all(label, source, max_thing_id=3)[0] == [0, 1, 1]
    assert paste_all(label, source, max_thing_id=2) == ([0, 0, 0], label.numpy().ravel().tolist())


AUGMENTATIONS = {
    "min_scale_factor": 0.5,
    "max_scale_factor": 2.0,
    "autoaugment_policy_name": "simple_classification_policy",
    "panoptic_copy_paste": {"panoptic_copy_paste_scale": 0.5, "panoptic_copy_paste_thing_option": "all"},
}


@pytest.fixture
def shards(tmp_path):
    """Three records of circles on sky and three of squares on grass."""
    kinds = ([(CIRCLE, 1), (SKY, 0)], [(SQUARE, 1), (SQUARE, 2), (GRASS, 0)])
    records = [record(label=labels(12, 16, kinds[i % 2], i), name=str(i), seed=i) for i in range(6)]
    return write(tmp_path / "train.tfrecord", records)


def test_settings_read_from_config():
    settings = PipelineSettings.from_options(options("x", augmentations=AUGMENTATIONS), is_training=True)
    assert settings.autoaugment_policy == "simple_classification_policy"
    assert settings.copy_paste == CopyPasteSettings((0.25, 1.0), "all", "random", "none")
    evaluation = PipelineSettings.from_options(options("x", augmentations=AUGMENTATIONS), is_training=False)
    assert not evaluation.autoaugment_policy and evaluation.copy_paste is None
    plain = {"panoptic_copy_paste": {"panoptic_copy_paste_thing_option": "all"}}
    assert PipelineSettings.from_options(options("x", augmentations=plain), is_training=True).copy_paste is None


def test_training_pastes_and_can_be_repeated(shards):
    def batches(**fields):
        built = build_dataset(options(shards, batch_size=6, augmentations=AUGMENTATIONS, **fields), is_training=True)
        return [{key: value.numpy() for key, value in batch.items()} for batch in built.take(4)]

    first, again = batches(seed=3), batches(seed=3)
    for batch, same in zip(first, again):
        for key in batch:
            np.testing.assert_array_equal(batch[key], same[key])
    label = np.concatenate([batch["panoptic_gt"] for batch in first])
    pasted = (label % 256 >= 128).any((1, 2))
    assert pasted.mean() > 0.8
    # The two images are drawn apart from each other.
    both = (label // 256 == CIRCLE).any((1, 2)) & (label // 256 == SQUARE).any((1, 2))
    assert 0.2 < both.mean() < 0.8
    # Whole values but for the padding's grey.
    images = np.concatenate([batch["image"] for batch in first])
    assert np.all((images == np.floor(images)) | (images == 127.5))
