"""The loss of reference masks: its definition, strides of layers, things only, and its part in the total."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.losses import LossSettings, MaskTransformerLoss, TermSettings
from deeplab2_kmax.losses.mask_approximation import mask_approximation_loss
from deeplab2_kmax.losses.slots import SlotTargets


def slots_of(pixel_slot, slot_class, has_mask=None):
    """Targets of one image from the slot of each pixel; 3 slots."""
    pixel_slot = np.asarray(pixel_slot, np.int32).reshape(1, -1)
    has_mask = pixel_slot >= 0 if has_mask is None else np.asarray(has_mask).reshape(1, -1)
    fields = dict.fromkeys(SlotTargets._fields)
    fields.update(
        pixel_slot=tf.constant(pixel_slot),
        pixel_has_mask=tf.constant(has_mask, tf.float32),
        slot_class=tf.constant([slot_class], tf.int32),
    )
    return SlotTargets(**fields)


def settings(**fields):
    return LossSettings((1, 3), (2,), 0, 4, mask_approximation=TermSettings(2.0), **fields)


GRID = np.array([[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [-1, -1, -1, 1, 1], [-1, -1, -1, 1, 1]])


def test_is_one_minus_dice_averaged_over_matched_slots():
    reference = np.random.RandomState(3).rand(1, 5, 5, 3).astype(np.float32)
    loss = mask_approximation_loss([reference], slots_of(GRID, [0, 2, 3]), (5, 5), settings())
    expected = []
    for slot in (0, 1):
        mask, soft = (slot == GRID), reference[0, :, :, slot] * (GRID >= 0)
        expected.append(1 - 2 * (mask * soft).sum() / (mask.sum() + soft.sum()))
    np.testing.assert_allclose(loss, [2.0 * np.mean(expected)], rtol=1e-5)


def test_layers_are_averaged_each_at_its_stride():
    fine = tf.one_hot(GRID[np.newaxis], 3)
    coarse = tf.one_hot(GRID[np.newaxis, ::2, ::2], 3)
    wrong = tf.zeros([1, 3, 3, 3])
    slots = slots_of(GRID, [0, 2, 3])
    np.testing.assert_allclose(mask_approximation_loss([fine, coarse], slots, (5, 5), settings()), [0.0], atol=1e-6)
    np.testing.assert_allclose(mask_approximation_loss([fine, wrong], slots, (5, 5), settings()), [1.0], atol=1e-6)


def test_stuff_can_be_left_out_and_masks_that_vanish_at_the_stride_do_not_count():
    grid = GRID.copy()
    grid[1, 1] = 2  # between the pixels of the coarse grid
    reference = tf.one_hot(np.where(GRID == 0, 0, 2)[np.newaxis, ::2, ::2], 3)
    slots = slots_of(grid, [0, 2, 1])
    # Slot 0 fits, slot 1 (stuff) is missed, slot 2 has no pixel here.
    np.testing.assert_allclose(mask_approximation_loss([reference], slots, (5, 5), settings()), [1.0], atol=1e-6)
    things = settings(mask_approximation_things_only=True)
    np.testing.assert_allclose(mask_approximation_loss([reference], slots, (5, 5), things), [0.0], atol=1e-6)


def test_a_mask_of_one_pixel_counts():
    grid = np.array([[0, 0, 1]])
    reference = tf.one_hot([[[0, 0, 2]]], 3)
    # Slot 0 fits, slot 1 is missed.
    np.testing.assert_allclose(mask_approximation_loss([reference], slots_of(grid, [0, 1, 3]), (1, 3), settings()), [1])


def test_layers_of_no_whole_stride_take_the_nearest_pixel():
    # Four pixels over five lie at 0, 1 1/3, 2 2/3 and 4; the nearest ones are 0, 1, 3 and 4.
    grid = np.array([[0, 0, 1, 2, 2]])
    reference = tf.one_hot([[[0, 0, 2, 2]]], 3)
    loss = mask_approximation_loss([reference], slots_of(grid, [0, 1, 1]), (1, 5), settings())
    np.testing.assert_allclose(loss, [0.0], atol=1e-6)


def test_an_image_without_masks_has_no_loss():
    slots = slots_of(np.full([5, 5], -1), [3, 3, 3])
    np.testing.assert_array_equal(mask_approximation_loss([tf.ones([1, 5, 5, 3])], slots, (5, 5), settings()), [0.0])


def test_maps_may_be_wider_than_high():
    """The reference mask is the ground truth at the layer's stride, so nothing is missing."""
    wide = np.repeat([[-1, 0, 0, 1, 1, 1, 2, 2, 2]], 5, axis=0)
    reference = tf.one_hot(wide[np.newaxis, ::2, ::2], 3)
    slots = slots_of(wide, [0, 1, 2])
    np.testing.assert_allclose(mask_approximation_loss([reference], slots, (5, 9), settings()), [0.0], atol=1e-6)
    # In the whole loss, with no other term that has to do with masks. Things are at the left and at the right.
    targets = {
        "semantic_gt": tf.constant(np.where(wide < 0, 0, 1)[np.newaxis], tf.int32),
        "thing_id_mask_gt": tf.constant(wide[np.newaxis], tf.int32),
        "thing_id_class_gt": tf.constant([[1, 1, 1]]),
        "semantic_loss_weight": tf.ones([1, 5, 9]),
    }
    outputs = {
        "pixel_space_mask_logits": 20.0 * tf.one_hot(wide[np.newaxis], 3),
        "pixel_space_normalized_feature": tf.zeros([1, 5, 9, 4]),
        "transformer_class_logits": tf.zeros([1, 3, 4]),
        "semantic_logits": tf.zeros([1, 5, 9, 4]),
        "reference_masks": (reference,),
    }
    terms = MaskTransformerLoss(settings(semantic=TermSettings(1.0)))(targets, outputs)
    assert tuple(terms) == ("mask_approximation_loss", "semantic_loss", "total_loss")
    np.testing.assert_allclose(terms["mask_approximation_loss"], [0.0], atol=1e-6)


@pytest.mark.parametrize("backend", ["host", "xla"])
def test_part_of_the_total_where_there_are_reference_masks(backend):
    loss = MaskTransformerLoss(settings(pq_style=TermSettings(1.0)), backend)
    random = np.random.RandomState(1)
    semantic = np.full([1, 5, 5], 2, np.int32)
    targets = {
        "semantic_gt": tf.constant(semantic),
        "thing_id_mask_gt": tf.constant(np.full([1, 5, 5], -1, np.int32)),
        "thing_id_class_gt": tf.constant([[-1]]),
    }
    outputs = {
        "pixel_space_mask_logits": tf.constant(random.rand(1, 5, 5, 3), tf.float32),
        "pixel_space_normalized_feature": tf.constant(random.rand(1, 5, 5, 4), tf.float32),
        "transformer_class_logits": tf.constant(random.rand(1, 3, 4), tf.float32),
    }
    reference = tf.Variable(tf.fill([1, 3, 3, 3], 0.5))
    assert tuple(loss(targets, outputs)) == loss.names_for(0)

    @tf.function(jit_compile=backend == "xla")
    def terms_and_gradient():
        with tf.GradientTape() as tape:
            terms = loss(targets, {**outputs, "reference_masks": (tf.identity(reference),)})
        return terms, tape.gradient(terms["mask_approximation_loss"], reference)

    terms, gradient = terms_and_gradient()
    assert set(terms) == set(loss.names)
    # All pixels are of one mask, of which half is covered: 1 - 2 * 4.5 / (4.5 + 9).
    np.testing.assert_allclose(terms["mask_approximation_loss"], [2.0 / 3.0], rtol=1e-5)
    assert (np.abs(gradient).sum(axis=(0, 1, 2)) > 0).sum() == 1
