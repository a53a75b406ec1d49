"""Soft clustering learns a scene by heart, and each of its losses falls."""

import numpy as np
import tensorflow as tf

from deeplab2_kmax.config import load_config
from deeplab2_kmax.losses import build_loss
from deeplab2_kmax.model import build_model

STEPS = 20


def scene():
    """(images, targets): two things of different classes on two kinds of stuff, 65 x 65."""
    semantic = np.full([2, 65, 65], 5, np.int32)
    semantic[:, 33:] = 6
    thing_id = np.full([2, 65, 65], -1, np.int32)
    for thing, (top, left) in enumerate(((8, 8), (36, 30))):
        semantic[:, top : top + 22, left : left + 22] = thing + 1
        thing_id[:, top : top + 22, left : left + 22] = thing
    images = np.stack([40.0 * semantic, 255.0 - 40.0 * semantic, 100.0 + 0.0 * semantic], -1)
    targets = {
        "semantic_gt": semantic,
        "thing_id_mask_gt": thing_id,
        "thing_id_class_gt": np.tile([[1, 2]], [2, 1]).astype(np.int32),
        "semantic_loss_weight": np.ones(semantic.shape, np.float32),
    }
    return tf.constant(images, tf.float32), {name: tf.constant(value) for name, value in targets.items()}


def test_losses_of_soft_clustering_fall(configs, tiny_overrides):
    config = load_config(str(configs / "shapes" / "cmt_tiny.textproto"), tiny_overrides)
    tf.random.set_seed(1)
    model, loss = build_model(config), build_loss(config)
    optimizer = tf.keras.optimizers.legacy.Adam(5e-3)
    images, targets = scene()

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            terms = loss(targets, model(images, training=True))
            total = tf.reduce_mean(terms["total_loss"])
        gradients = tape.gradient(total, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return {name: tf.reduce_mean(term) for name, term in terms.items()}

    history = [step() for _ in range(STEPS)]
    first, last = history[0], history[-1]
    assert set(first) == set(loss.names) and "mask_approximation_loss" in first
    for name in (
        "mask_id_cross_entropy_loss",
        "instance_discrimination_loss",
        "mask_approximation_loss",
        "semantic_loss",
    ):
        assert last[name] < 0.95 * first[name], name
    assert last["total_loss"] < 0.9 * first["total_loss"]
