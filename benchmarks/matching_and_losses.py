"""Times matching and losses beside DeepLab2's and prints the ratios.

    python benchmarks/matching_and_losses.py --deeplab2_path=DEEPLAB2 [--rounds=7]

There are two cases, in each of which both take turns in one process: matching the ground-truth masks of one image of
COCO, padded to 181, with 128 slots; and the whole loss with its gradient at a crop of 321 x 321 (outputs of 81 x 81),
batch 1, for the final and six auxiliary outputs. The loss is timed with the 4096 pixels that the published recipe
samples for the instance discrimination loss, and without sampling.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from beside_deeplab2 import add_deeplab2_path, argument_parser, import_deeplab2, take_turns, timed
from synthetic_coco import CLASSES, synthetic_targets

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.losses import LossSettings, MaskTransformerLoss, TermSettings
from deeplab2_kmax.losses.matching import match

CROP, SIZE, SLOTS, CHANNELS, AUXILIARY, THINGS_IN_IMAGE = 321, 81, 128, 128, 6, 20


def example(rng: np.random.Generator, data):
    """(targets, outputs) of one image, as tensors; the mask logits of each output agree with the things in part."""
    targets = {key: values[None] for key, values in synthetic_targets(rng, CROP, THINGS_IN_IMAGE).items()}
    instances = targets["thing_id_mask_gt"][0, ::4, ::4]

    def one():
        feature = rng.standard_normal([1, SIZE, SIZE, CHANNELS]).astype(np.float32)
        mask_logits = rng.standard_normal([1, SIZE, SIZE, SLOTS]).astype(np.float32) * 2
        mask_logits[0] += 3.0 * (instances[..., None] == np.arange(SLOTS))
        return {
            "pixel_space_mask_logits": mask_logits,
            "pixel_space_normalized_feature": feature / np.linalg.norm(feature, axis=-1, keepdims=True),
            "transformer_class_logits": rng.standard_normal([1, SLOTS, CLASSES + 1]).astype(np.float32) * 2,
        }

    outputs = one()
    outputs["semantic_logits"] = rng.standard_normal([1, SIZE, SIZE, data.num_classes]).astype(np.float32)
    outputs["auxiliary_outputs_pred"] = tuple(one() for _ in range(AUXILIARY))
    return tf.nest.map_structure(tf.constant, (targets, outputs))


def with_gradient(loss):
    """A tf.function from (targets, outputs) to the total loss and its gradients with respect to the outputs."""

    def function(targets, outputs):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            total = tf.reduce_mean(loss(targets, outputs)["total_loss"])
        return total, tape.gradient(total, outputs)

    return tf.function(function)


def our_loss(data, sample_k):
    settings = LossSettings(
        thing_class_ids=data.thing_class_ids,
        stuff_class_ids=data.stuff_class_ids,
        ignore_label=data.ignore_label,
        num_classes=data.num_classes,
        pq_style=TermSettings(3.0),
        mask_id=TermSettings(0.3),
        instance_discrimination=TermSettings(1.0),
        semantic=TermSettings(1.0),
        instance_sample_k=sample_k,
        instance_sample_temperature=1.5,
        auxiliary_outputs=AUXILIARY,
    )
    return with_gradient(MaskTransformerLoss(settings))


def deeplab2_loss(data, sample_k):
    from deeplab2 import config_pb2
    from deeplab2.model.loss import loss_builder
    from google.protobuf import text_format

    config = text_format.Parse(
        "model_options { max_deeplab { instance_discrimination_sample_temperature: 1.5 "
        f"instance_discrimination_sample_k: {sample_k} }} }} trainer_options {{ loss_options {{ "
        "semantic_loss { name: 'softmax_cross_entropy' weight: 1.0 } pq_style_loss { weight: 3.0 } "
        "mask_id_cross_entropy_loss { weight: 0.3 } instance_discrimination_loss { weight: 1.0 } } }",
        config_pb2.ExperimentOptions(),
    )
    layer = loss_builder.DeepLabFamilyLoss(
        config.trainer_options.loss_options,
        config.model_options,
        num_classes=data.num_classes,
        ignore_label=data.ignore_label,
        ignore_depth=None,
        thing_class_ids=tuple(data.thing_class_ids),
        auxiliary_output_number=AUXILIARY,
    )
    return with_gradient(layer)


def matching_pair(rng):
    """{name: a matching of 26 masks, padded to 181 (128 things and 53 stuff classes), with 128 slots}.

    DeepLab2 solves the padded problem, ours only its 26 real rows.
    """
    from deeplab2.model.loss import max_deeplab_loss

    costs = -(rng.uniform(size=[1, 181, SLOTS]).astype(np.float32) ** 4)
    exists = np.arange(181)[None] < THINGS_IN_IMAGE + 6
    padded = tf.constant(np.where(exists[:, :, None], costs, np.float32(999.0)))
    costs, exists = tf.constant(costs), tf.constant(exists)
    theirs = tf.function(max_deeplab_loss.nonsquare_hungarian_matching)
    host = tf.function(lambda: match(costs, exists, "host"))
    graph = tf.function(lambda: match(costs, exists, "xla"))
    compiled = tf.function(lambda: match(costs, exists, "xla"), jit_compile=True)
    return {"DeepLab2": lambda: theirs(padded), "host": host, "in graph": graph, "in graph, XLA": compiled}


def compare(title: str, functions: dict, rounds: int) -> None:
    """Prints for each function its median and its first call, which traces, and how the first function compares."""
    print(title)
    first = {name: timed(function)[0] for name, function in functions.items()}
    medians = {name: np.median(seconds) for name, seconds in take_turns(functions, rounds).items()}
    base = next(iter(functions))
    for name, median in medians.items():
        print(
            f"  {name:14s} {median * 1000:9.1f} ms  {medians[base] / median:6.1f} x"
            f"    first call {first[name]:6.2f} s  {first[base] / first[name]:5.1f} x"
        )


def main() -> None:
    parser = argument_parser(__doc__)
    add_deeplab2_path(parser, required=True)
    parser.add_argument("--rounds", type=int, default=7, help="timed calls of each function")
    arguments = parser.parse_args()
    import_deeplab2(arguments.deeplab2_path)

    rng = np.random.default_rng(0)
    compare("matching 181 x 128, one image", matching_pair(rng), arguments.rounds)
    data = load_dataset("coco_panoptic")
    targets, outputs = example(rng, data)
    for sample_k in (4096, 0):
        theirs, ours = deeplab2_loss(data, sample_k), our_loss(data, sample_k)
        compare(
            f"losses and gradients, {SIZE}x{SIZE}, 7 outputs, instance_discrimination_sample_k {sample_k}",
            {
                # As an array: TensorFlow may still be computing when a call returns.
                "DeepLab2": lambda f=theirs: f(targets, outputs)[0].numpy(),
                "deeplab2_kmax": lambda f=ours: f(targets, outputs)[0].numpy(),
            },
            arguments.rounds,
        )


if __name__ == "__main__":
    main()
