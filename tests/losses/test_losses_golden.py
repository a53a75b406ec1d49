"""Values and gradients of the losses equal DeepLab2's (figures in tests/golden)."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.losses import LossSettings, MaskTransformerLoss, TermSettings

GOLDEN = Path(__file__).parents[1] / "golden"


def draw_outputs(meta):
    seed, auxiliary, batch, height, width, slots, channels, classes, semantic = meta
    rs = np.random.RandomState(seed + 1)

    def one():
        mask = (rs.standard_normal((batch, height, width, slots)) * 2).astype("float32")
        feature = rs.standard_normal((batch, height, width, channels)).astype("float32")
        feature /= np.linalg.norm(feature, axis=-1, keepdims=True)
        class_logits = (rs.standard_normal((batch, slots, classes)) * 2).astype("float32")
        return {
            "pixel_space_mask_logits": tf.constant(mask),
            "pixel_space_normalized_feature": tf.constant(feature),
            "transformer_class_logits": tf.constant(class_logits),
        }

    outputs = one()
    outputs["semantic_logits"] = tf.constant(rs.standard_normal((batch, height, width, semantic)).astype("float32"))
    if auxiliary:
        outputs["auxiliary_outputs_pred"] = tuple(one() for _ in range(auxiliary))
    return outputs


@pytest.mark.parametrize("backend", ["host", "xla"])
@pytest.mark.parametrize("case", ["loss_kmax_coco", "loss_max_coco"])
def test_values_and_gradients_equal_deeplab2(case, backend):
    golden = np.load(GOLDEN / f"{case}.npz")
    outputs = draw_outputs(golden["meta"])
    targets = {name: tf.constant(golden[name]) for name in golden.files if name.endswith(("_gt", "_weight"))}
    data = load_dataset("coco_panoptic")
    settings = LossSettings(
        thing_class_ids=data.thing_class_ids,
        stuff_class_ids=data.stuff_class_ids,
        ignore_label=data.ignore_label,
        num_classes=data.num_classes,
        pq_style=TermSettings(3.0),
        mask_id=TermSettings(0.3),
        instance_discrimination=TermSettings(1.0),
        semantic=TermSettings(1.0),
        auxiliary_outputs=int(golden["meta"][1]),
    )
    loss = MaskTransformerLoss(settings, backend)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        terms = loss(targets, outputs)
        total = tf.reduce_mean(terms["total_loss"])
    expected = {name[5:]: golden[name] for name in golden.files if name.startswith("loss/")}
    assert set(terms) == set(expected) == set(loss.names)
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-4, err_msg=name)

    gradients = tape.gradient(total, outputs)
    for name in golden.files:
        kind, _, key = name.partition("/")
        if kind not in ("grad", "gradnorm"):
            continue
        owner, field = gradients, key
        if key.startswith("aux_"):
            owner, field = gradients["auxiliary_outputs_pred"][int(key[4])], key.split("/")[1]
        gradient = owner[field].numpy()
        if kind == "gradnorm":
            np.testing.assert_allclose(np.linalg.norm(gradient), golden[name], rtol=1e-4, err_msg=name)
        else:
            sample = strided(gradient, golden[name].shape)
            np.testing.assert_allclose(sample, golden[name], rtol=1e-4, atol=1e-9, err_msg=name)


def strided(array, shape):
    if array.ndim == 4:
        return array[:1, ::4, ::4][:, : shape[1], : shape[2]]
    return array[:1]
