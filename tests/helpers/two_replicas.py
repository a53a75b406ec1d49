"""Run by test_mirrored.py in processes of their own: TensorFlow must hear of its devices before it starts.

    python two_replicas.py                  two replicas on two logical CPUs
    TF_CONFIG=... python two_replicas.py    one of two workers, with one replica each

Trains one step and evaluates three images in batches of two replicas with one image each; prints what came out.
"""

import json
import os
import pathlib
import sys
import tempfile

import numpy as np
import tensorflow as tf

_IS_WORKER = "TF_CONFIG" in os.environ
if _IS_WORKER:
    STRATEGY = tf.distribute.MultiWorkerMirroredStrategy()
else:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
_TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(_TESTS / folder) for folder in ("training/step", "training/optimizers", "evaluation")]

from test_accumulation import train as train_in_parts  # noqa: E402
from test_evaluator import DESCRIPTOR, Answers, samples, sure_of  # noqa: E402
from test_loop import NAMES, make_trainer  # noqa: E402
from test_loss_scale import trainer_with  # noqa: E402
from test_non_finite import SKIP_TWO, images_of, poisoned, without  # noqa: E402
from test_non_finite import make_trainer as make_normalized  # noqa: E402
from test_radam_lookahead_and_lamb import KINDS, gradients, settings, toy_variables, train_anew  # noqa: E402

from deeplab2_kmax.evaluation.evaluator import Evaluator  # noqa: E402
from deeplab2_kmax.evaluation.metric_set import MetricSettings  # noqa: E402
from deeplab2_kmax.training.optimizers import (  # noqa: E402
    Schedule,
    SolverSettings,
    WeightAverages,
    build_optimizers,
)
from deeplab2_kmax.training.step.loss_scale import LossScale  # noqa: E402


def replica_batches(input_context):
    """One image a replica; the targets of the two are 1 and 3."""
    targets = tf.data.Dataset.from_tensor_slices([1.0, 3.0])
    targets = targets.shard(input_context.num_input_pipelines, input_context.input_pipeline_id).repeat()
    return targets.map(lambda target: {"image": tf.ones([1, 3, 3, 3]), "target": [target], "poison": [0.0]})


def train(strategy):
    with strategy.scope():
        trainer, model, step = make_trainer(strategy.distribute_datasets_from_function(replica_batches))
        logs = trainer.train(tf.constant(1))
        weight = float(model.weight.numpy())
        trainer, _, _ = make_trainer(
            strategy.distribute_datasets_from_function(
                lambda context: replica_batches(context).map(lambda b: {**b, "poison": b["target"] * float("nan")})
            )
        )
        try:
            trainer.train(tf.constant(2))
            message = ""
        except ValueError as error:
            message = str(error)
    return {
        "weight": weight,
        "step": int(step.numpy()),
        "losses": [float(logs[f"losses/train_{name}"]) for name in NAMES],
        "message": message,
    }


def clip(strategy, clip_sum):
    """The weight after a step whose gradients, -1 and -3 of the two replicas, are limited to 2."""
    with strategy.scope():
        dataset = strategy.distribute_datasets_from_function(replica_batches)
        trainer, model, _ = make_trainer(dataset, clip_norm=2.0, clip_sum=clip_sum)
        logs = trainer.train(tf.constant(1))
        return float(model.weight.numpy()), float(logs["gradient_norm"])


def train_normalized(strategy, data, steps, **options):
    """Training on batches of four images a replica: what each replica has, the steps, the optimizer's, those skipped.

    The records of a batch go to the replicas in turn, the first half to the first.
    """
    with strategy.scope():
        batches = tf.data.Dataset.from_tensor_slices(data).batch(8, drop_remainder=True).repeat()
        dataset = strategy.experimental_distribute_dataset(batches)
        trainer, model, step, optimizers = make_normalized(dataset, policy=SKIP_TWO, **options)
        logs = trainer.train(tf.constant(steps))
        variables = (*model.variables, *optimizers.main.variables())
        replicas = [
            [copy.numpy().tolist() for copy in strategy.experimental_local_results(variable)] for variable in variables
        ]
        return replicas, int(step.numpy()), float(logs["skipped_steps"])


def skip(strategy, **options):
    """Distances of all variables on all replicas from a run that never saw the second batch; steps; those skipped.

    That batch's last image, which the second replica has, is not finite.
    """
    data = images_of(steps=3, images=8)
    skipped, steps, count = train_normalized(strategy, poisoned(data, 2, images=8), 3, **options)
    never_seen, _, _ = train_normalized(strategy, without(data, 2, images=8), 2, **options)
    distances = [
        abs(np.subtract(ours, theirs)).max() for pair in zip(skipped, never_seen) for ours, theirs in zip(*pair)
    ]
    apart = [abs(np.subtract(copies[0], copies[-1])).max() for copies in skipped]
    return {"distance": float(max(distances)), "apart": float(max(apart)), "steps": steps, "skipped": count}


def postprocess(outputs):
    # Like the real one, it cannot do without an image.
    tf.debugging.assert_positive(tf.shape(outputs["answer"])[0])
    answer = outputs["answer"]
    return {"panoptic_pred": answer, "semantic_pred": answer // 256, **sure_of(answer)}


def own_samples(input_context):
    """The images of one process: of three, the second worker has one."""
    images = samples().shard(input_context.num_input_pipelines, input_context.input_pipeline_id)
    return images.padded_batch(1)


def evaluate(strategy):
    """The figures, and the file that holds them, with all metrics that there are."""
    folder = tempfile.mkdtemp()
    with strategy.scope():
        evaluator = Evaluator(
            model=Answers(),
            loss=lambda batch, outputs: {"total_loss": tf.cast(batch["size_raw"][:, 0], tf.float32)},
            loss_names=("total_loss",),
            postprocess=postprocess,
            descriptor=DESCRIPTOR,
            dataset=strategy.distribute_datasets_from_function(own_samples),
            global_step=tf.Variable(0, dtype=tf.int64),
            output_folder=folder,
            metrics=MetricSettings(cityscapes_ap=True, boundary_ratio=0.02, calibration=True),
            say=lambda text: None,
        )
        figures = evaluator.evaluate(tf.constant(-1))
    return {"figures": figures, "file": json.loads(pathlib.Path(folder, "metrics-0.json").read_text())}


def optimize(strategy, kind, period, aggregated):
    """Largest distance of a replica's variables from those of one device, after four steps with the same gradients."""
    solver = settings(kind, period, backbone_multiplier=0.1)
    with strategy.scope():
        variables = toy_variables()
        optimizers = build_optimizers(solver, variables, variables[:2])

    @tf.function
    def step_fn(gradients):
        share = 1.0 if aggregated else 1 / strategy.num_replicas_in_sync

        def on_replica():
            optimizers.apply([(share * g, v) for g, v in zip(gradients, variables)], aggregated=aggregated)

        strategy.run(on_replica)

    for step in range(4):
        step_fn(gradients(step))
    distances = [
        tf.reduce_max(tf.abs(copy - expected))
        for variable, expected in zip(variables, train_anew(solver, range(4)))
        for copy in strategy.experimental_local_results(variable)
    ]
    return float(max(distances))


def average(strategy):
    """Averages of a weight and of a statistic after two steps, as each replica sees them and as they are saved."""
    with strategy.scope():
        weight = tf.Variable(1.0, name="kernel")
        statistic = tf.Variable(
            1.0,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.MEAN,
        )
        averages = WeightAverages({"weight": weight, "statistic": statistic}, 0.999)
        solver = SolverSettings("sgd", Schedule(1.0, total_steps=10**9))
        optimizers = build_optimizers(solver, [weight], averages=averages)

    @tf.function
    def step_fn():
        def on_replica():
            # The replicas' statistics are 1 and 3 more than before.
            replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
            statistic.assign_add(1.0 + 2 * replica)
            optimizers.apply([(tf.constant(0.5), weight)])

        strategy.run(on_replica)

    for _ in range(2):
        step_fn()
    path = tf.train.Checkpoint(**averages.checkpoint_items).write(f"{tempfile.mkdtemp()}/ckpt")
    value = "averaged_weights/{}/.ATTRIBUTES/VARIABLE_VALUE".format
    saved = [float(tf.train.load_variable(path, value(name))) for name in ("weight", "statistic")]
    with strategy.scope(), averages.in_the_model():
        replicas = [float(copy) for copy in strategy.experimental_local_results(weight)]
        lent = float(statistic.read_value())
    return {"replicas": replicas, "saved": saved, "lent": lent, "back": float(weight.read_value())}


def accumulate(strategy):
    """The largest distance of the weights from those of one device, by the number of parts, and the images seen."""
    found = {}
    for parts in (1, 3):
        clipped = {"clip_norm": 0.5, "clip_sum": True}
        expected, expected_logs, _ = train_in_parts(1, **clipped)
        with strategy.scope():
            model, logs, _ = train_in_parts(parts, **clipped)
            distances = [
                tf.reduce_max(tf.abs(copy - variable))
                for ours, variable in zip(model.trainable_variables, expected.trainable_variables)
                for copy in strategy.experimental_local_results(ours)
            ]
            seen = float(model.images_seen.read_value())
        apart = [abs(float(logs[name]) / float(value) - 1) for name, value in expected_logs.items()]
        found[parts] = {"distance": float(max(distances)), "apart": max(apart), "images": seen}
    return found


def scale_losses(strategy):
    """After each of three steps: loss scale and weight of each replica here, and whether the step was skipped.

    At the first scale only the gradient of the second replica overflows, whose share is -3.
    """
    with strategy.scope():
        scale = LossScale(2.0**127, growth_steps=1)
        trainer, model, step = trainer_with(scale)
        steps = []
        for _ in range(3):
            logs = trainer.train(tf.constant(1))
            steps.append(
                {
                    "scales": [float(copy) for copy in strategy.experimental_local_results(scale._scale)],
                    "weights": [float(copy) for copy in strategy.experimental_local_results(model.weight)],
                    "skipped": float(logs["skipped_steps"]),
                }
            )
    assert int(step.numpy()) == 3
    return steps


def main():
    found = {
        "train": train(STRATEGY),
        "clip": {"each": clip(STRATEGY, False), "sum": clip(STRATEGY, True)},
        "skip": {
            "host": skip(STRATEGY),
            "graph": skip(STRATEGY, in_graph=True),
            "accumulated": skip(STRATEGY, micro_batches=2),
        },
        "accumulation": accumulate(STRATEGY),
        "loss_scale": scale_losses(STRATEGY),
        "eval": evaluate(STRATEGY),
    }
    if not _IS_WORKER:
        # Every kind with gradients to be summed, and around it Lookahead with gradients that are.
        found["optimizers"] = {
            f"{kind} {period}": optimize(STRATEGY, kind, period, period > 0) for kind, period in KINDS
        }
        found["averages"] = average(STRATEGY)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
