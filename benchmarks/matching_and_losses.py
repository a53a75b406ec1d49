"""Times matching and losses beside DeepLab2's in one process, alternating, and prints the ratios.

    python benchmarks/matching_and_losses.py --deeplab2_path=DIR [--rounds=7]

DIR is the folder that holds DeepLab2's `deeplab2` package. Two cases: one image's matching of 181 ground-truth masks
with 128 slots (COCO), and the whole loss with its gradient at crop 321x321 (outputs 81x81), batch 1, for the final and
six auxiliary outputs, with the published recipe's 4096 pixels in the instance discrimination loss and without sampling.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import tensorflow as tf

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.losses import LossSettings, MaskTransformerLoss, TermSettings
from deeplab2_kmax.losses.matching import match

CROP, SIZE, SLOTS, CHANNELS, AUXILIARY, MAX_THINGS, MASKS = 321, 81, 128, 128, 6, 128, 20


def example(rng, data):
    """Targets of an image with twenty rectangles of things over stripes of stuff, and outputs that half know them."""
    stuff = np.asarray(data.stuff_class_ids)
    semantic = np.repeat(stuff[rng.choice(len(stuff), 6, replace=False)], -(-CROP // 6))[:CROP, None]
    semantic = np.tile(semantic, [1, CROP]).astype(np.int32)
    thing_id = np.full([CROP, CROP], -1, np.int32)
    thing_class = np.full([MAX_THINGS], -1, np.int32)
    for instance in range(MASKS):
        top, left = rng.integers(0, CROP - 40, 2)
        height, width = rng.integers(16, 120, 2)
        thing_class[instance] = rng.choice(data.thing_class_ids)
        thing_id[top : top + height, left : left + width] = instance
        semantic[top : top + height, left : left + width] = thing_class[instance]
    semantic[:20] = data.ignore_label
    thing_id[:20] = -1
    targets = {
        "semantic_gt": semantic[None],
        "thing_id_mask_gt": thing_id[None],
        "thing_id_class_gt": thing_class[None],
        "semantic_loss_weight": np.ones([1, CROP, CROP], np.float32),
    }
    classes = len(data.thing_class_ids) + len(data.stuff_class_ids) + 1

    def one():
        feature = rng.standard_normal([1, SIZE, SIZE, CHANNELS]).astype(np.float32)
        mask_logits = rng.standard_normal([1, SIZE, SIZE, SLOTS]).astype(np.float32) * 2
        instances = thing_id[::4, ::4]
        mask_logits[0] += 3.0 * (instances[..., None] == np.arange(SLOTS))
        return {
            "pixel_space_mask_logits": mask_logits,
            "pixel_space_normalized_feature": feature / np.linalg.norm(feature, axis=-1, keepdims=True),
            "transformer_class_logits": rng.standard_normal([1, SLOTS, classes]).astype(np.float32) * 2,
        }

    outputs = one()
    outputs["semantic_logits"] = rng.standard_normal([1, SIZE, SIZE, data.num_classes]).astype(np.float32)
    outputs["auxiliary_outputs_pred"] = tuple(one() for _ in range(AUXILIARY))
    return tf.nest.map_structure(tf.constant, (targets, outputs))


def with_gradient(loss):
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
    """181 rows, of which 26 are real, with 128 slots: DeepLab2 solves the padded problem, we the real rows."""
    from deeplab2.model.loss import max_deeplab_loss

    costs = -(rng.uniform(size=[1, 181, SLOTS]).astype(np.float32) ** 4)
    exists = np.arange(181)[None] < MASKS + 6
    padded = tf.constant(np.where(exists[:, :, None], costs, np.float32(999.0)))
    costs, exists = tf.constant(costs), tf.constant(exists)
    theirs = tf.function(max_deeplab_loss.nonsquare_hungarian_matching)
    host = tf.function(lambda: match(costs, exists, "host"))
    graph = tf.function(lambda: match(costs, exists, "xla"))
    compiled = tf.function(lambda: match(costs, exists, "xla"), jit_compile=True)
    return {"DeepLab2": lambda: theirs(padded), "host": host, "in graph": graph, "in graph, XLA": compiled}


def compare(title, functions, rounds):
    """Prints trace and median times of the functions, called in turn, and the ratio of the first to each."""
    print(title)
    first = {}
    for name, function in functions.items():
        start = time.perf_counter()
        function()
        first[name] = time.perf_counter() - start
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            tf.nest.map_structure(lambda t: t.numpy() if t.shape.rank == 0 else t, function())
            times[name].append(time.perf_counter() - start)
    base, base_first = (next(iter(x.values())) for x in (times, first))
    for name, values in times.items():
        median = np.median(values)
        print(
            f"  {name:14s} {median * 1000:9.1f} ms  {np.median(base) / median:6.1f} x"
            f"    first call {first[name]:6.2f} s  {base_first / first[name]:5.1f} x"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeplab2_path", required=True, help="folder that holds the package deeplab2")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    sys.path.append(arguments.deeplab2_path)

    rng = np.random.default_rng(0)
    compare("matching 181 x 128, one image", matching_pair(rng), arguments.rounds)
    data = load_dataset("coco_panoptic")
    targets, outputs = example(rng, data)
    for sample_k in (4096, 0):
        theirs, ours = deeplab2_loss(data, sample_k), our_loss(data, sample_k)
        compare(
            f"losses and gradients, 81x81, 7 outputs, instance_discrimination_sample_k {sample_k}",
            {
                "DeepLab2": lambda f=theirs: f(targets, outputs)[0],
                "deeplab2_kmax": lambda f=ours: f(targets, outputs)[0],
            },
            arguments.rounds,
        )


if __name__ == "__main__":
    main()
