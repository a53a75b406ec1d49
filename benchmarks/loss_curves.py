"""Compares the loss curves of one experiment in several precisions, from the same weights and on the same batches.

    python -m deeplab2_kmax.converters.shapes --output_dir=data/shapes
    python benchmarks/loss_curves.py [--config=shapes/kmax_tiny] [--steps=100] [--block=20]
        [--precision=mixed_bfloat16] [--override=field=value]

Each line is a block of steps: the mean total loss over the block in float32, and for each other precision its mean and
the relative difference from float32. Single steps are not compared: k-means decides by argmax, so two runs that round
differently drift apart step by step, and only their smoothed curves have to agree. `--precision=float32` shows how far
apart two runs in float32 are on this machine.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import functools
import time

SEED = 1


def build_trainer(config, dataset):
    """Puts model, loss and optimizers together for one CPU, as a run of `deeplab2_kmax.training` does.

    Args:
        config: the experiment.
        dataset: yields batches of images and targets, without end.

    Returns:
        The trainer; `train(tf.constant(steps))` trains and returns the mean of each loss term.
    """
    # Imported here, so that --help is quick and train_step.py times the imports.
    import orbit
    import tensorflow as tf

    from deeplab2_kmax.losses import build_loss
    from deeplab2_kmax.model import build_model
    from deeplab2_kmax.training.optimizers import SolverSettings, build_optimizers
    from deeplab2_kmax.training.step.loop import Trainer
    from deeplab2_kmax.training.step.loss_scale import build_loss_scale
    from deeplab2_kmax.training.step.seeding import Seeding
    from deeplab2_kmax.training.step.step import TrainStep

    options = config.trainer_options
    with tf.distribute.OneDeviceStrategy("device:CPU:0").scope():
        model, global_step = build_model(config), orbit.utils.create_global_step()
        # "auto" lets SciPy match masks on the host, which XLA cannot compile.
        loss = build_loss(config, "xla" if options.xla else "auto")
        settings = SolverSettings.from_options(options.solver_options)
        step = TrainStep(
            model=model,
            loss=loss,
            loss_names=loss.names,
            optimizers=build_optimizers(settings, model.trainable_variables, model.backbone_variables),
            draws=functools.partial(Seeding.from_options(options).draws, global_step),
            compiled=options.xla,
            micro_batches=options.gradient_accumulation_steps,
            loss_scale=build_loss_scale(config.model_options.precision),
        )
        return Trainer(step=step, dataset=dataset, global_step=global_step)


def loss_curve(config_path: str, overrides: list[str], steps: int) -> tuple[list[float], float]:
    """Trains on one CPU from a fixed seed; returns (total loss of each step, seconds per step without the first)."""
    import tensorflow as tf

    from deeplab2_kmax.config import load_config
    from deeplab2_kmax.input_pipeline import build_dataset

    seeds = [f"train_dataset_options.seed={SEED}", f"trainer_options.seed={SEED}"]
    config = load_config(config_path, [*seeds, *overrides])
    tf.keras.utils.set_random_seed(SEED)
    trainer = build_trainer(config, build_dataset(config.train_dataset_options, is_training=True))
    losses, start = [], 0.0
    for index in range(steps):
        if index == 1:  # The first step also traces.
            start = time.perf_counter()
        losses.append(float(trainer.train(tf.constant(1))["losses/train_total_loss"]))
    return losses, (time.perf_counter() - start) / max(steps - 1, 1)


def block_means(losses: list[float], block: int) -> list[float]:
    """The mean of each `block` steps; the last block may be shorter."""
    blocks = [losses[first : first + block] for first in range(0, len(losses), block)]
    return [sum(losses) / len(losses) for losses in blocks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="shapes/kmax_tiny", help="a config file, or the name of one of ours")
    parser.add_argument("--steps", type=int, default=100, help="steps of training in each precision")
    parser.add_argument("--block", type=int, default=20, help="steps that are averaged in a line")
    parser.add_argument(
        "--precision", action="append", default=[], help="compared with float32; may be given several times"
    )
    parser.add_argument("--override", action="append", default=[], help="field.sub_field=value")
    arguments = parser.parse_args()
    precisions = arguments.precision or ["mixed_bfloat16"]
    curves, names = [], ["float32", *precisions]
    for precision in names:
        overrides = [*arguments.override, f"model_options.precision={precision}"]
        losses, seconds = loss_curve(arguments.config, overrides, arguments.steps)
        curves.append(block_means(losses, arguments.block))
        print(f"{precision}: {seconds:.2f} s a step", flush=True)
    print(f"{'steps':>12}" + "".join(f"{name:>22}" for name in names))
    for index, (precise, *others) in enumerate(zip(*curves)):
        first = index * arguments.block
        line = f"{first + 1:>5} ..{min(first + arguments.block, arguments.steps):>5}{precise:>22.4f}"
        print(line + "".join(f"{other:>13.4f} {(other - precise) / precise:>+8.2%}" for other in others))
    for name, curve in zip(precisions, curves[1:]):
        largest = max(abs(other - precise) / precise for precise, other in zip(curves[0], curve))
        print(f"{name}: largest difference {largest:.2%}")


if __name__ == "__main__":
    main()
