"""Losses in situations that are not in the golden files: bad batches, sampling, XLA, odd types and sizes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.losses import LossSettings, MaskTransformerLoss, TermSettings
from deeplab2_kmax.losses.instance_discrimination import _BLOCK_ROWS, instance_discrimination_loss, log_partition
from deeplab2_kmax.losses.mask_id import MaskStatistics, mask_statistics
from deeplab2_kmax.losses.pq_style import class_term, mask_dice_term
from deeplab2_kmax.losses.reduction import mean_of_non_zero, sample_pixels
from deeplab2_kmax.losses.settings import ONE
from deeplab2_kmax.losses.slots import SlotTargets, mask_similarity, match_slots
from deeplab2_kmax.losses.targets import ground_truth_masks, strided_downsample

THINGS, STUFF, IGNORE = (1, 3), (2, 4), 0
SETTINGS = LossSettings(
    thing_class_ids=THINGS,
    stuff_class_ids=STUFF,
    ignore_label=IGNORE,
    num_classes=5,
    pq_style=TermSettings(3.0),
    mask_id=TermSettings(0.3),
    instance_discrimination=TermSettings(1.0),
    semantic=TermSettings(1.0),
    auxiliary_outputs=1,
)


def make_targets(semantic, thing_id, thing_class):
    semantic = np.asarray(semantic, np.int32)
    return {
        "semantic_gt": tf.constant(semantic),
        "thing_id_mask_gt": tf.constant(np.asarray(thing_id, np.int32)),
        "thing_id_class_gt": tf.constant(np.asarray(thing_class, np.int32)),
        "semantic_loss_weight": tf.ones(semantic.shape),
    }


def scene():
    """Two images of 9x9: stuff 2 with things 0 (class 1) and 1 (class 3), a crowd and void; and one all void."""
    semantic = np.zeros([2, 9, 9], np.int32)
    thing_id = np.full([2, 9, 9], -1, np.int32)
    semantic[0, :7] = 2
    semantic[0, 1:4, 1:4], thing_id[0, 1:4, 1:4] = 1, 0
    semantic[0, 4:6, 4:8], thing_id[0, 4:6, 4:8] = 3, 1
    semantic[0, 6, :3] = 3
    return make_targets(semantic, thing_id, [[1, 3, -1], [-1, -1, -1]])


def make_outputs(batch=2, size=9, slots=6, auxiliary=1, seed=0, dtype=tf.float32):
    rng = np.random.default_rng(seed)

    def one():
        feature = rng.normal(size=[batch, size, size, 8])
        feature /= np.linalg.norm(feature, axis=-1, keepdims=True)
        return {
            "pixel_space_mask_logits": tf.constant(rng.normal(size=[batch, size, size, slots]) * 2, dtype),
            "pixel_space_normalized_feature": tf.constant(feature, dtype),
            "transformer_class_logits": tf.constant(rng.normal(size=[batch, slots, 5]) * 2, dtype),
        }

    outputs = {**one(), "semantic_logits": tf.constant(rng.normal(size=[batch, size, size, 5]), dtype)}
    if auxiliary:
        outputs["auxiliary_outputs_pred"] = tuple(one() for _ in range(auxiliary))
    return outputs


def loss_and_gradient(settings, backend="host"):
    loss = MaskTransformerLoss(settings, backend)

    def function(targets, outputs):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            terms = loss(targets, outputs)
            total = tf.reduce_mean(terms["total_loss"])
        return terms, tape.gradient(total, outputs)

    return function


def flat(structure):
    return [np.asarray(t) for t in tf.nest.flatten(structure)]


@pytest.mark.parametrize("sample", [False, True])
def test_whole_loss_compiles_and_equals_the_host_path(sample):
    # Here all pixels are drawn, so that both backends use the same ones; the next test draws fewer.
    settings = dataclasses.replace(SETTINGS, instance_sample_k=81 if sample else 0)
    terms, gradients = loss_and_gradient(settings)(scene(), make_outputs())
    compiled = tf.function(loss_and_gradient(settings, "xla"), jit_compile=True)
    compiled_terms, compiled_gradients = compiled(scene(), make_outputs())
    for name, value in terms.items():
        np.testing.assert_allclose(compiled_terms[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    for ours, theirs in zip(flat(compiled_gradients), flat(gradients)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)


def test_samples_compile():
    settings = dataclasses.replace(SETTINGS, instance_sample_k=20, semantic_sample_k=10)
    terms, gradients = tf.function(loss_and_gradient(settings, "xla"), jit_compile=True)(scene(), make_outputs())
    assert set(terms) == set(MaskTransformerLoss(settings).names)
    assert all(np.isfinite(value).all() for value in flat([terms, gradients]))
    # Twenty pixels were drawn of each image, and no others can have a gradient.
    touched = np.any(gradients["pixel_space_normalized_feature"].numpy() != 0, axis=-1).sum(axis=(1, 2))
    assert 0 < touched[0] <= 20


def test_batch_may_be_unknown():
    def unknown(tensor):
        return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)

    signature = tf.nest.map_structure(unknown, (scene(), make_outputs()))
    function = tf.function(lambda t, o: loss_and_gradient(SETTINGS)(t, o)[0], input_signature=signature)
    for name, value in loss_and_gradient(SETTINGS)(scene(), make_outputs())[0].items():
        np.testing.assert_allclose(function(scene(), make_outputs())[name], value, rtol=1e-5, err_msg=name)


def test_auxiliary_outputs_are_used_if_there_are_any():
    loss = MaskTransformerLoss(SETTINGS)
    with_auxiliary, without = loss(scene(), make_outputs()), loss(scene(), make_outputs(auxiliary=0))
    assert tuple(sorted(with_auxiliary)) == tuple(sorted(loss.names)) and loss.names[-1] == "total_loss"
    assert set(without) == set(loss.names_for(0))
    for name in set(without) - {"total_loss"}:
        np.testing.assert_allclose(without[name], with_auxiliary[name], rtol=1e-6)
    parts = sum(value for name, value in with_auxiliary.items() if name != "total_loss")
    np.testing.assert_allclose(parts, with_auxiliary["total_loss"], rtol=1e-5)


def test_terms_not_configured_are_left_out():
    only_semantic = dataclasses.replace(SETTINGS, pq_style=None, mask_id=None, instance_discrimination=None)
    assert set(MaskTransformerLoss(only_semantic)(scene(), make_outputs())) == {"semantic_loss", "total_loss"}
    no_semantic = dataclasses.replace(SETTINGS, semantic=None)
    outputs = make_outputs()
    del outputs["semantic_logits"]
    assert "semantic_loss" not in MaskTransformerLoss(no_semantic)(scene(), outputs)


def test_losses_of_bfloat16_outputs_are_computed_in_float32():
    outputs = make_outputs(dtype=tf.bfloat16)
    terms, gradients = loss_and_gradient(SETTINGS)(scene(), outputs)
    as_float = tf.nest.map_structure(lambda t: tf.cast(t, tf.float32), outputs)
    expected, _ = loss_and_gradient(SETTINGS)(scene(), as_float)
    for name, value in terms.items():
        assert value.dtype == tf.float32
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, err_msg=name)
    assert gradients["pixel_space_mask_logits"].dtype == tf.bfloat16


@pytest.mark.parametrize("backend", ["host", "xla"])
def test_bad_batches_give_finite_losses(backend):
    nothing = np.full([2, 9, 9], -1)
    cases = {
        "all void": make_targets(np.zeros([2, 9, 9]), nothing, np.full([2, 3], -1)),
        "stuff only": make_targets(np.full([2, 9, 9], 2), nothing, np.full([2, 3], -1)),
        "crowd only": make_targets(np.full([2, 9, 9], 3), nothing, np.full([2, 3], -1)),
    }
    one_pixel = nothing.copy()
    one_pixel[:, 4, 4] = 0
    cases["one pixel"] = make_targets(np.where(one_pixel == 0, 1, 0), one_pixel, [[1, -1, -1]] * 2)
    for name, targets in cases.items():
        terms, gradients = loss_and_gradient(SETTINGS, backend)(targets, make_outputs())
        assert all(np.isfinite(value).all() for value in flat([terms, gradients])), name
    sampled = dataclasses.replace(SETTINGS, instance_sample_k=20)
    void, gradients = loss_and_gradient(sampled, backend)(cases["all void"], make_outputs())
    assert not gradients["pixel_space_normalized_feature"].numpy().any()
    for name in ("mask_id_cross_entropy_loss", "semantic_loss", "pq_style_loss_mask_dice_term"):
        np.testing.assert_array_equal(void[name], [0.0, 0.0])


def test_predictions_that_are_not_finite_give_nan_and_no_crash():
    outputs = make_outputs()
    outputs["pixel_space_mask_logits"] *= np.nan
    for backend in ("host", "xla"):
        terms = MaskTransformerLoss(SETTINGS, backend)(scene(), outputs)
        assert np.isnan(terms["total_loss"].numpy()[0]) and np.isfinite(terms["semantic_loss"].numpy()).all()


def test_more_masks_than_slots():
    """Eight stripes, each a thing of its own, and three slots; compared with the definition, pixel by pixel."""
    thing_id = np.tile(np.minimum(np.arange(9), 7)[:, None], [1, 9])[None]
    targets = make_targets(np.ones([1, 9, 9]), thing_id, [[1] * 8])
    outputs = make_outputs(batch=1, slots=3, auxiliary=0)
    masks = ground_truth_masks(targets, (9, 9), SETTINGS, crop_masks=True)
    logits = tf.reshape(outputs["pixel_space_mask_logits"], [1, 81, 3])
    slots = match_slots(masks, tf.nn.softmax(logits), outputs["transformer_class_logits"], "host")
    assert slots.slot_is_matched.numpy().all() and (slots.left_over_area.numpy() > 0).sum() == 5
    terms, _ = loss_and_gradient(SETTINGS)(targets, outputs)
    padded = np.concatenate([logits.numpy()[0], np.full([81, 1], -99999.0)], axis=1).astype(np.float64)
    log_probabilities = padded - np.log(np.exp(padded).sum(axis=1, keepdims=True))
    expected = -log_probabilities[np.arange(81), slots.pixel_slot.numpy()[0]].mean() * 0.3
    np.testing.assert_allclose(terms["mask_id_cross_entropy_loss"], [expected], rtol=1e-5)
    compiled = tf.function(loss_and_gradient(SETTINGS, "xla"), jit_compile=True)(targets, outputs)[0]
    np.testing.assert_allclose(compiled["total_loss"], terms["total_loss"], rtol=1e-4)


def test_gradient_of_mask_statistics_equals_automatic_differentiation():
    masks = ground_truth_masks(scene(), (9, 9), SETTINGS, crop_masks=True)
    logits = tf.reshape(make_outputs()["pixel_space_mask_logits"], [2, 81, 6])
    class_logits = make_outputs()["transformer_class_logits"]
    slots = match_slots(masks, tf.nn.softmax(logits), class_logits, "host")
    # One mask loses its slot, so that the branch for left-over masks is used.
    lost = slots.pixel_slot == tf.reduce_max(slots.pixel_slot)
    pixel_slot = tf.where(lost, -1, slots.pixel_slot)
    slots = slots._replace(pixel_slot=pixel_slot, pixel_is_left_over=tf.cast(lost, tf.float32))
    factors = [tf.random.stateless_normal(shape, [1, 2]) for shape in ([2, 81], [2, 6], [2, 6])]

    def plain(logits):
        target, probabilities = tf.one_hot(pixel_slot, 6), tf.nn.softmax(logits)
        log_partition = tf.reduce_logsumexp(logits, axis=2)
        labelled = log_partition * tf.reduce_sum(target, 2) - tf.reduce_sum(logits * target, 2)
        cross_entropy = labelled + slots.pixel_is_left_over * (log_partition + 99999.0)
        # DeepLab2's softmax cross-entropy with a row of zeros for a target: no loss, but a gradient.
        cross_entropy += (1.0 - slots.pixel_has_mask) * (log_partition - tf.stop_gradient(log_partition))
        area = tf.reduce_sum(probabilities * slots.pixel_has_mask[:, :, None], axis=1)
        return cross_entropy, area, tf.reduce_sum(probabilities * target, axis=1)

    results = []
    for function in (lambda z: mask_statistics(z, tf.nn.log_softmax(tf.stop_gradient(z)), slots), plain):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            values = function(logits)
            total = tf.add_n([tf.reduce_sum(v * f) for v, f in zip(values, factors)])
        results.append((*values, tape.gradient(total, logits)))
    for ours, expected in zip(*results):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_dice_looks_at_labelled_pixels_only():
    targets = scene()
    semantic = targets["semantic_gt"].numpy()
    semantic[0, 1, 1:4] = IGNORE  # a third of thing 0
    masks = ground_truth_masks({**targets, "semantic_gt": tf.constant(semantic)}, (9, 9), SETTINGS, crop_masks=True)
    probabilities = tf.nn.softmax(tf.reshape(make_outputs()["pixel_space_mask_logits"], [2, 81, 6]))
    dice, void = mask_similarity(masks, probabilities)
    other, more_void = mask_similarity(masks, tf.where(masks.pixel_is_labelled[:, :, None] == 1, probabilities, 1.0))
    np.testing.assert_allclose(other, dice, rtol=1e-6)
    assert (more_void.numpy() > void.numpy()).all()


def test_no_gradient_flows_through_the_matching_and_its_weights():
    masks = ground_truth_masks(scene(), (9, 9), SETTINGS, crop_masks=True)
    probabilities = tf.nn.softmax(tf.reshape(make_outputs()["pixel_space_mask_logits"], [2, 81, 6]))
    class_logits = make_outputs()["transformer_class_logits"]
    for backend in ("host", "xla"):
        with tf.GradientTape() as tape:
            tape.watch([probabilities, class_logits])
            slots = match_slots(masks, probabilities, class_logits, backend)
            weights = (slots.mask_dice, slots.void_ratio, slots.class_probability)
            total = tf.add_n([tf.reduce_sum(weight) for weight in weights])
        assert tape.gradient(total, [probabilities, class_logits]) == [None, None]


def test_the_least_similarity_decides_where_every_mask_can_have_a_slot():
    # One instance and two stuff classes may occur, and one does; slot 1 predicts it a little better than slot 0.
    targets = make_targets(np.full([1, 9, 9], 2), np.full([1, 9, 9], -1), [[-1]])
    masks = ground_truth_masks(targets, (9, 9), SETTINGS, crop_masks=True)
    probabilities = tf.constant([0.3, 0.30003, 0.1]) * tf.ones([1, 81, 1])
    for slots, best in ((3, 1), (2, 0)):
        matching = match_slots(masks, probabilities[:, :, :slots], tf.zeros([1, slots, 5]), "host")
        # With two slots for three masks DeepLab2 no longer tells the two similarities apart.
        assert np.flatnonzero(matching.slot_is_matched).tolist() == [best]


def test_crowds_ask_nothing_of_masks():
    # Their pixels are labelled and yet belong to no mask.
    targets = make_targets(np.full([2, 9, 9], 3), np.full([2, 9, 9], -1), np.full([2, 3], -1))
    terms = MaskTransformerLoss(SETTINGS)(targets, make_outputs())
    for name in ("mask_id_cross_entropy_loss", "pq_style_loss_mask_dice_term", "instance_discrimination_loss"):
        np.testing.assert_array_equal(terms[name], [0.0, 0.0], err_msg=name)


def test_slots_of_no_weight_count_in_the_mean_and_left_over_masks_as_empty_predictions():
    """The corners of the PQ-style loss: nothing overlaps, nothing is classified, and a mask of 9 pixels has no slot."""
    zeros = tf.zeros([1, 4])
    slots = SlotTargets(
        **{
            **dict.fromkeys(SlotTargets._fields),
            "slot_is_matched": tf.constant([[True, False, False, False]]),
            "slot_area": tf.constant([[5.0, 0.0, 0.0, 0.0]]),
            "slot_class": tf.constant([[0, 4, 4, 4]]),
            "class_probability": zeros,
            "mask_dice": zeros,
            "void_ratio": zeros,
            "left_over_area": tf.constant([[0.0, 9.0]]),
        }
    )
    # All five classes are equally likely. Weights of 0 become 1e-5, or slots would drop out of the mean of four.
    by_class = class_term(tf.zeros([1, 1, 4, 5]), slots, SETTINGS)
    np.testing.assert_allclose(by_class, [[3.0 * 1e-5 * (0.75 + 3 * 0.25) * np.log(5) / 4]], rtol=1e-5)
    # Dice is smoothed by 1: 1 / (5 + 1) for the slot, 1 / (9 + 1) for the mask that has none.
    nothing = MaskStatistics(None, predicted_area=zeros[None], overlap=zeros[None])
    by_mask = mask_dice_term(nothing, slots, SETTINGS)
    np.testing.assert_allclose(by_mask, [[3.0 * 0.75 / 4 * 1e-5 * ((1 - 1 / 6) + (1 - 1 / 10))]], rtol=1e-5)


def test_log_partition_over_several_blocks():
    rows = tf.math.l2_normalize(tf.random.stateless_normal([2, _BLOCK_ROWS * 2 + 5, 4], [3, 4]), axis=-1)
    upstream = tf.random.stateless_normal(rows.shape[:2], [5, 6])
    results = []
    for function in (log_partition, lambda x, t: tf.reduce_logsumexp(tf.matmul(x, x, transpose_b=True) / t, axis=2)):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            value = function(rows, 0.3)
            total = tf.reduce_sum(value * upstream)
        results.append((value, tape.gradient(total, rows)))
    for ours, expected in zip(*results):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_pixel_contrast_equals_its_definition():
    masks = ground_truth_masks(scene(), (9, 9), SETTINGS, crop_masks=True)
    features = tf.reshape(make_outputs()["pixel_space_normalized_feature"], [2, 81, 8])
    settings = dataclasses.replace(SETTINGS, instance_sample_k=81)
    loss = instance_discrimination_loss([features], masks, settings).numpy()
    one_hot, rows = masks.pixel_mask_one_hot.numpy()[0], features.numpy()[0].astype(np.float64)
    same = one_hot @ one_hot.T
    similarity = rows @ rows.T / 0.3
    log_probability = similarity - np.log(np.exp(similarity).sum(axis=1, keepdims=True))
    per_pixel = -(same / np.maximum(same.sum(axis=1, keepdims=True), 1.0) * log_probability).sum(axis=1)
    np.testing.assert_allclose(loss, [[per_pixel[per_pixel != 0].mean(), 0.0]], rtol=1e-5)


def test_sample_prefers_small_masks_and_spares_void():
    area = tf.constant([[1.0] * 10 + [90.0] * 90 + [0.0] * 50])
    labelled = tf.constant([[1.0] * 100 + [0.0] * 50])
    tf.random.set_seed(1)
    drawn = sample_pixels(area, labelled, 30, temperature=2.0).numpy()[0]
    assert len(set(drawn)) == 30 and drawn.max() < 100
    assert (drawn < 10).sum() == 10
    assert (sample_pixels(area, labelled, 120, 2.0).numpy() >= 100).sum() == 20


def test_pixels_are_drawn_by_chance_and_as_often_as_their_odds_say():
    tf.random.set_seed(1)
    # At temperature 1 the pixel of area 1 has the same odds as the nine of area 9 together.
    area = tf.constant([[1.0] + [9.0] * 9])
    drawn = sample_pixels(tf.tile(area, [4000, 1]), tf.ones([4000, 10]), 1, temperature=1.0).numpy()
    assert abs((drawn == 0).mean() - 0.5) < 0.04
    # At temperature 50 a mask of one pixel is drawn before one of two.
    area = tf.constant([[2.0, 2.0, 1.0]] * 20)
    assert (sample_pixels(area, tf.ones([20, 3]), 1, temperature=50.0).numpy() == 2).all()


@pytest.mark.parametrize("drawn_by", ["instance", "semantic"])
def test_draws_follow_the_temperature_of_their_own_term(drawn_by):
    """The crowd of 3 pixels and the things of 8 and 9 are drawn before the stuff of 43, and that before void."""
    field, output = {
        "instance": ("instance_discrimination", "pixel_space_normalized_feature"),
        "semantic": ("semantic", "semantic_logits"),
    }[drawn_by]
    semantic, outputs = scene()["semantic_gt"].numpy()[0], make_outputs(auxiliary=0)
    for count, temperature, expected in ((20, 50.0, np.isin(semantic, THINGS)), (63, 0.0, semantic != IGNORE)):
        draw = {f"{drawn_by}_sample_k": count, f"{drawn_by}_sample_temperature": temperature}
        loss = MaskTransformerLoss(
            LossSettings(THINGS, STUFF, IGNORE, 5, mask_id=TermSettings(1.0), **{field: TermSettings(1.0)}, **draw)
        )
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            total = loss(scene(), outputs)["total_loss"]
        gradient = tape.gradient(total, outputs)[output].numpy()[0]
        np.testing.assert_array_equal((gradient != 0).any(axis=-1), expected)


def test_more_semantic_samples_than_pixels_are_all_pixels():
    settings = LossSettings(THINGS, STUFF, IGNORE, 5, semantic=TermSettings(1.0))
    sampled = dataclasses.replace(settings, semantic_sample_k=82)
    outputs = make_outputs()
    losses = [MaskTransformerLoss(each)(scene(), outputs)["total_loss"] for each in (settings, sampled)]
    np.testing.assert_array_equal(*losses)


def test_semantic_loss_is_the_weighted_cross_entropy_of_pixels_of_known_classes():
    random = np.random.default_rng(0)
    # Void is 0; 4 is the last class, and -1, 5 and 200 are none.
    labels = random.choice([0, 1, 4, -1, 5, 200], size=[1, 9, 9])
    targets = make_targets(labels, np.full([1, 9, 9], -1), [[-1]])
    weights = random.choice([1.0, 3.0], size=[1, 9, 9])
    targets["semantic_loss_weight"] = tf.constant(weights, tf.float32)
    logits = random.normal(size=[1, 9, 9, 5])
    settings = LossSettings(THINGS, STUFF, IGNORE, 5, semantic=TermSettings(1.0))
    loss = MaskTransformerLoss(settings)(targets, {"semantic_logits": tf.constant(logits, tf.float32)})
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = [
        -weights[place] * log_probabilities[place][labels[place]]
        for place in np.ndindex(1, 9, 9)
        if labels[place] in (1, 4)
    ]
    np.testing.assert_allclose(loss["semantic_loss"], [np.mean(expected)], rtol=1e-5)


@pytest.mark.parametrize("term", ["mask_id", "instance_discrimination", "semantic"])
def test_weight_and_share_of_the_highest_losses_hold_for_each_term(term):
    outputs = make_outputs(auxiliary=0)

    def loss(weight, top_k):
        settings = LossSettings(THINGS, STUFF, IGNORE, 5, **{term: TermSettings(weight, top_k)})
        return MaskTransformerLoss(settings)(scene(), outputs)["total_loss"].numpy()[0]

    assert loss(2.0, 1.0) == pytest.approx(2.0 * loss(1.0, 1.0))
    # The highest loss of 81, the mean of the five highest, the mean of all.
    assert loss(1.0, 1 / 81) > loss(1.0, 5 / 81) > loss(1.0, 1.0)


def test_instances_without_a_known_class_are_not_told_apart():
    # Rows of stuff, of an instance, and of one that has no class; to be the same as if that were no instance.
    thing_id = np.repeat([-1, 0, 1], 3)[None, :, None] * np.ones([1, 9, 9], int)
    settings = LossSettings(THINGS, STUFF, IGNORE, 5, instance_discrimination=TermSettings(1.0))
    losses = []
    for instances in (thing_id, np.where(thing_id == 1, -1, thing_id)):
        targets = make_targets(np.where(thing_id < 0, 2, 1), instances, [[1, -1]])
        outputs = make_outputs(batch=1, auxiliary=0)
        losses.append(MaskTransformerLoss(settings)(targets, outputs)["total_loss"].numpy().item())
    assert losses[0] == losses[1] > 0.0


def test_a_single_sampled_pixel_has_nothing_to_differ_from():
    settings = LossSettings(THINGS, STUFF, IGNORE, 5, instance_discrimination=TermSettings(1.0), instance_sample_k=1)
    terms = MaskTransformerLoss(settings)(scene(), make_outputs(auxiliary=0))
    np.testing.assert_allclose(terms["total_loss"], [0.0, 0.0], atol=1e-5)


def test_sampled_pixels_without_a_mask_have_no_loss_and_yet_a_gradient():
    """As DeepLab2 computes it: the softmax cross-entropy of a row of zeros is 0, and its gradient the softmax."""
    masks = ground_truth_masks(scene(), (9, 9), SETTINGS, crop_masks=True)
    features = tf.reshape(make_outputs()["pixel_space_normalized_feature"], [2, 81, 8])
    settings = dataclasses.replace(SETTINGS, instance_sample_k=81)
    same = tf.matmul(masks.pixel_mask_one_hot, masks.pixel_mask_one_hot, transpose_b=True)
    same /= tf.maximum(tf.reduce_sum(same, axis=2, keepdims=True), 1.0)
    has_mask = tf.reduce_sum(masks.pixel_mask_one_hot, axis=2)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(features)
        loss = instance_discrimination_loss([features], masks, settings)[0, 0]
        similarity = tf.matmul(features, features, transpose_b=True) / 0.3
        log_sum = tf.reduce_logsumexp(similarity, axis=2)
        per_pixel = log_sum - tf.reduce_sum(same * similarity, axis=2)
        per_pixel = tf.where(has_mask > 0.0, per_pixel, log_sum - tf.stop_gradient(log_sum))
        expected = tf.reduce_sum(per_pixel[0]) / tf.reduce_sum(has_mask[0])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(*(tape.gradient(value, features) for value in (loss, expected)), atol=1e-6)


def test_sampled_semantic_loss_is_an_option():
    settings = dataclasses.replace(SETTINGS, semantic_sample_k=5)
    outputs = make_outputs()
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        total = tf.reduce_sum(MaskTransformerLoss(settings)(scene(), outputs)["semantic_loss"])
    gradient = tape.gradient(total, outputs)["semantic_logits"].numpy()
    assert (np.abs(gradient[0]).sum(axis=-1) > 0).sum() == 5


def test_pixels_are_sampled_where_the_semantic_loss_is_the_only_one():
    only_semantic = dataclasses.replace(SETTINGS, pq_style=None, mask_id=None, instance_discrimination=None)
    outputs = make_outputs()
    every = MaskTransformerLoss(dataclasses.replace(only_semantic, semantic_sample_k=81))(scene(), outputs)
    np.testing.assert_allclose(
        every["semantic_loss"], MaskTransformerLoss(only_semantic)(scene(), outputs)["semantic_loss"], rtol=1e-6
    )
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        terms = MaskTransformerLoss(dataclasses.replace(only_semantic, semantic_sample_k=5))(scene(), outputs)
    assert set(terms) == {"semantic_loss", "total_loss"}
    gradient = tape.gradient(terms["total_loss"], outputs)["semantic_logits"].numpy()
    assert (np.abs(gradient[0]).sum(axis=-1) > 0).sum() == 5


def test_unmatched_slots_have_the_weight_one_or_that_of_their_overlap_with_void():
    semantic = np.full([1, 9, 9], 2)
    targets = make_targets(semantic, np.full([1, 9, 9], -1), [[-1] * 3])
    outputs = make_outputs(batch=1, auxiliary=0)

    def void_gradient(settings):
        gradient = loss_and_gradient(settings)(targets, outputs)[1]["transformer_class_logits"].numpy()[0]
        return np.sort(np.abs(gradient[:, -1]))

    # Without a void pixel DeepLab2 hardly teaches the five unmatched slots to say void.
    assert void_gradient(SETTINGS)[:5].max() < 1e-4
    assert void_gradient(dataclasses.replace(SETTINGS, unmatched_slot_weight=ONE))[:5].min() > 1e-3


def test_mean_is_over_losses_other_than_zero():
    losses = tf.constant([[4.0, 0.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(mean_of_non_zero(losses), [7.0 / 3.0, 0.0])
    np.testing.assert_allclose(mean_of_non_zero(losses, 0.5), [3.0, 0.0])


def test_losses_below_zero_count_and_all_but_one_are_not_all():
    np.testing.assert_allclose(mean_of_non_zero(tf.constant([[-1.0, 0.0, 3.0]])), [1.0])
    np.testing.assert_allclose(mean_of_non_zero(tf.range(1.0, 101.0)[None], 0.99), [51.0])


@pytest.mark.parametrize(("fraction", "mean"), [(0.3, 4.0), (0.4, 3.5), (0.6, 3.5), (0.9, 2.5)])
def test_highest_losses_are_the_nearest_whole_number(fraction, mean):
    # Of four losses 0.3 is 1.2, so one; 0.4 is 1.6, so two; 0.6 is 2.4, two as well; 0.9 is 3.6, all four.
    np.testing.assert_allclose(mean_of_non_zero(tf.constant([[1.0, 4.0, 2.0, 3.0]]), fraction), [mean])


def test_masks_of_a_scene():
    for crop_masks in (True, False):
        masks = ground_truth_masks(scene(), (9, 9), SETTINGS, crop_masks)
        assert masks.exists.shape == [2, 3 if crop_masks else 5] and masks.most_masks == 5
        np.testing.assert_array_equal(masks.exists[:, :3], [[True] * 3, [False] * 3])
        np.testing.assert_array_equal(masks.area[0, :3], [9, 8, 63 - 9 - 8 - 3])
        # Classes in the order of the class head: things 1, 3, then stuff 2, 4.
        np.testing.assert_array_equal(masks.class_index[0, :3], [0, 1, 2])
        crowd = 6 * 9
        assert masks.pixel_mask[0, crowd] == -1 and masks.pixel_is_labelled[0, crowd] == 1
        assert masks.pixel_is_labelled[0, 80] == 0
        thing, background = 1 * 9 + 1, 0
        assert [masks.pixel_area[0, pixel] for pixel in (thing, background, crowd, 80)] == [9, 43, 0, 0]


@pytest.mark.parametrize("crop_masks", [True, False])
def test_a_single_pixel_is_a_mask_and_what_has_no_known_class_is_none(crop_masks):
    semantic, thing_id = np.full([1, 9, 9], 2, np.int32), np.full([1, 9, 9], -1, np.int32)
    # Classes the data set does not have: right after its last one, far beyond, and below zero.
    semantic[0, 0], semantic[0, 1], semantic[0, 2] = 5, 200, -2
    # Instance 0 is a single pixel, instances 1 and 2 have no known class, and instance 3 is not in the list.
    semantic[0, 3:6], semantic[0, 6, 0] = 1, 3
    thing_id[0, 6, 0], thing_id[0, 3], thing_id[0, 4], thing_id[0, 5] = 0, 1, 2, 3
    masks = ground_truth_masks(make_targets(semantic, thing_id, [[3, -1, 77]]), (9, 9), SETTINGS, crop_masks)
    there = np.flatnonzero(masks.exists)
    np.testing.assert_array_equal(there, [0, 1])
    np.testing.assert_array_equal(masks.area[0], [1, 26] + [0] * (masks.exists.shape[1] - 2))
    np.testing.assert_array_equal(masks.class_index[0, :2], [1, 2])
    expected = np.full([9, 9], -1)
    expected[6:], expected[6, 0] = 1, 0
    np.testing.assert_array_equal(masks.pixel_mask, expected.reshape(1, 81))


def test_labels_are_only_downsampled_by_a_whole_stride():
    labels = tf.reshape(tf.range(81), [1, 9, 9])
    np.testing.assert_array_equal(strided_downsample(labels, (3, 3))[0], [[0, 4, 8], [36, 40, 44], [72, 76, 80]])
    for size in ((4, 4), (5, 3), (3, 5), (10, 10)):
        with pytest.raises(ConfigError, match="crop_size"):
            strided_downsample(labels, size)
    # Every fourth row of ten makes three rows as well, but the last one is not the last of the labels.
    for height, width in ((10, 9), (9, 10), (10, 10)):
        with pytest.raises(
            ConfigError, match=f"cannot bring labels of {height} x {width} to the network's 3 x 3 by a whole stride"
        ):
            strided_downsample(tf.zeros([1, height, width]), (3, 3))


def test_heads_with_the_classes_of_another_data_set_are_refused_by_name():
    outputs = make_outputs(auxiliary=0)
    with pytest.raises(ConfigError, match="auxiliary_semantic_head.output_channels: expected .* 5 .*, got 4"):
        MaskTransformerLoss(SETTINGS)(scene(), {**outputs, "semantic_logits": outputs["semantic_logits"][..., :4]})
    narrow = outputs["transformer_class_logits"][..., :4]
    with pytest.raises(ConfigError, match="expected 5 channels .*, got 4"):
        MaskTransformerLoss(SETTINGS)(scene(), {**outputs, "transformer_class_logits": narrow})
    wide = tf.pad(outputs["transformer_class_logits"], [[0, 0], [0, 0], [0, 1]])
    with pytest.raises(ConfigError, match="expected 5 channels .*, got 6"):
        MaskTransformerLoss(SETTINGS)(scene(), {**outputs, "transformer_class_logits": wide})


def contrast_scene(count=400, masks=4):
    """Ground truth of 20 x 20 pixels in four stripes of stuff-like things, and settings that take all of them."""
    thing_id = np.repeat(np.arange(masks), count // masks).reshape(1, 20, 20)
    targets = make_targets(np.ones_like(thing_id), thing_id, [[1] * masks])
    return ground_truth_masks(targets, (20, 20), SETTINGS, crop_masks=True), dataclasses.replace(
        SETTINGS, instance_sample_k=count
    )


def test_pixel_contrast_is_about_log_k_for_random_features_and_falls_for_mask_ids():
    masks, settings = contrast_scene()
    random = tf.math.l2_normalize(tf.random.stateless_normal([1, 400, 128], [1, 2]), axis=-1)
    at_random = instance_discrimination_loss([random], masks, settings).numpy().item()
    assert abs(at_random - np.log(400)) < 0.05 * np.log(400)
    by_mask = instance_discrimination_loss([masks.pixel_mask_one_hot], masks, settings).numpy().item()
    # 100 pixels of the same mask at similarity 1, 300 others at 0, the pixel itself among the first.
    np.testing.assert_allclose(by_mask, np.log(100 * np.exp(1 / 0.3) + 300) - 1 / 0.3, rtol=1e-5)
    assert by_mask < at_random - 1.0


def test_more_samples_than_pixels_are_refused():
    masks, settings = contrast_scene()
    settings = dataclasses.replace(settings, instance_sample_k=401)
    with pytest.raises(ConfigError, match="instance_discrimination_sample_k: expected at most the 400 pixels"):
        instance_discrimination_loss([tf.ones([1, 400, 8])], masks, settings)
