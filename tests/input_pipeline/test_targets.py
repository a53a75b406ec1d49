"""Targets from panoptic labels: a hand-made map, a plain per-instance loop on random ones, and refused ids."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.input_pipeline.checks import reason
from deeplab2_kmax.input_pipeline.targets import find_segments, make_targets, semantic_and_crowd

SHAPES = load_dataset("shapes")
# Eager assertions word their messages differently.
make_targets_in_graph = tf.function(make_targets)
C1, C2, SQUARE, CROWD, SKY, VOID = 257, 258, 513, 512, 1280, 0


def test_hand_made_label():
    label = tf.constant([[VOID, SKY, C2, C2], [SQUARE, SKY, C2, C1], [CROWD, CROWD, C1, C1]])
    targets = make_targets(label, SHAPES, max_thing_id=5, small_instance_area=3, small_instance_weight=4.0)
    expected = {
        "semantic_gt": [[0, 5, 1, 1], [2, 5, 1, 1], [2, 2, 1, 1]],
        "panoptic_gt": label,
        "is_crowd_gt": [[False] * 4, [False] * 4, [True, True, False, False]],
        # Only the square is smaller than 3 pixels and an instance; crowd, sky and void never count as small.
        "semantic_loss_weight": [[1, 1, 1, 1], [4, 1, 1, 1], [1, 1, 1, 1]],
        # Numbered as a scan by rows meets them: circle 2, square, circle 1.
        "thing_id_mask_gt": [[-1, -1, 0, 0], [1, -1, 0, 2], [-1, -1, 2, 2]],
        "thing_id_class_gt": [1, 2, 1, -1, -1],
    }
    dtypes = {"is_crowd_gt": tf.bool, "semantic_loss_weight": tf.float32}
    assert set(targets) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(targets[name], value, err_msg=name)
        assert targets[name].dtype == dtypes.get(name, tf.int32), name


@pytest.mark.parametrize("only", [VOID, SKY, CROWD])
def test_without_any_instance(only):
    targets = make_targets(tf.fill([3, 4], only), SHAPES, 4)
    assert (targets["thing_id_mask_gt"].numpy() == -1).all()
    assert targets["thing_id_class_gt"].numpy().tolist() == [-1] * 4


@pytest.mark.parametrize("name", ["cityscapes_panoptic", "coco_panoptic"])
def test_equals_a_loop_over_instances(name):
    descriptor = load_dataset(name)
    divisor = descriptor.label_divisor
    things = [c * divisor + i for c in descriptor.thing_class_ids[:4] for i in range(4)]
    ids = np.array([*things, *[c * divisor for c in descriptor.stuff_class_ids[:3]], descriptor.void_id], np.int32)
    label = ids[np.random.RandomState(1).randint(0, len(ids), (6, 40))]
    targets = make_targets(tf.constant(label), descriptor, 32, 9, 3.0)
    mask, classes, weights = np.full(label.shape, -1), np.full(32, -1), np.ones(label.shape)
    number = 0
    for panoptic_id in dict.fromkeys(label.ravel().tolist()):
        if panoptic_id // divisor in descriptor.thing_class_ids and panoptic_id % divisor:
            mask[label == panoptic_id] = number
            classes[number] = panoptic_id // divisor
            if (label == panoptic_id).sum() < 9:
                weights[label == panoptic_id] = 3
            number += 1
    assert number > 8 and 1 < weights.sum() / weights.size < 3
    np.testing.assert_array_equal(targets["thing_id_mask_gt"], mask)
    np.testing.assert_array_equal(targets["thing_id_class_gt"], classes)
    np.testing.assert_array_equal(targets["semantic_loss_weight"], weights)
    crowd = np.isin(label // divisor, descriptor.thing_class_ids) & (label % divisor == 0)
    semantic, is_crowd = semantic_and_crowd(tf.constant(label), descriptor)
    np.testing.assert_array_equal(semantic, label // divisor)
    np.testing.assert_array_equal(is_crowd, crowd)


def test_as_many_things_as_allowed_and_one_more():
    label = tf.constant([[257, 258, 259]])
    assert make_targets(label, SHAPES, 3)["thing_id_class_gt"].numpy().tolist() == [1, 1, 1]
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        make_targets_in_graph(label, SHAPES, 2)
    assert reason(error.value) == "3 thing instances, more than max_thing_id 2"


@pytest.mark.parametrize(
    ("descriptor", "bad", "message"),
    [
        ("shapes", 9 * 256, "class list of shapes"),
        ("shapes", 10**8, "class list of shapes"),
        ("shapes", -1, "class list of shapes"),
        ("cityscapes_panoptic", 19 * 1000, r"ids 0..18, ignore 255"),
        ("cityscapes_panoptic", 254 * 1000, "class list of cityscapes"),
        ("shapes", SKY + 1, "instance number to class.*of shapes, which is stuff"),
    ],
)
def test_ids_that_mean_nothing_are_refused(descriptor, bad, message):
    sound = load_dataset(descriptor).void_id
    with pytest.raises(tf.errors.InvalidArgumentError, match=message) as error:
        make_targets_in_graph(tf.constant([[sound, sound], [sound, bad]]), load_dataset(descriptor), 2)
    assert reason(error.value).startswith(f"label id {bad} ")


def test_instance_numbers_on_void_are_void():
    assert not find_segments(tf.constant([[0, 1, 2]]), SHAPES).is_instance.numpy().any()
