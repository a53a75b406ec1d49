"""Loss curves of one experiment in several precisions, from the same weights, on the same batches, with the same draws.

    python -m deeplab2_kmax.converters.shapes --output_dir=data/shapes
    python benchmarks/loss_curves.py [--config=configs/shapes/kmax_tiny.textproto] [--steps=100] [--block=20]
        [--precision=mixed_bfloat16] [--override=field=value]

Each line is a block of steps: the mean total loss over the block in float32, and of each other precision with its
difference from float32's, relative to it. Single steps are not compared: k-means decides by argmax, so two runs that
round differently part ways step by step, and it is the smoothed curves that have to agree. `--precision=float32` shows
how far apart two runs of float32 lie on this machine.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SEED = 1


def loss_curve(config_path: str, overrides: list[str], steps: int) -> tuple[list[float], float]:
    """(total loss of each step, seconds a step without the first) of a seeded training run on one CPU."""
    import orbit
    import tensorflow as tf

    from deeplab2_kmax.config import load_config
    from deeplab2_kmax.input_pipeline import build_dataset
    from deeplab2_kmax.losses import build_loss
    from deeplab2_kmax.model import build_model
    from deeplab2_kmax.training.optimizers import SolverSettings, build_optimizers
    from deeplab2_kmax.training.step.loop import Trainer
    from deeplab2_kmax.training.step.seeding import Seeding
    from deeplab2_kmax.training.step.step import TrainStep

    config = load_config(config_path, [f"train_dataset_options.seed={SEED}", *overrides])
    tf.keras.utils.set_random_seed(SEED)
    with tf.distribute.OneDeviceStrategy("device:CPU:0").scope():
        model, loss, number = build_model(config), build_loss(config), orbit.utils.create_global_step()
        settings = SolverSettings.from_options(config.trainer_options.solver_options)
        seeding = Seeding(SEED)
        step = TrainStep(
            model=model,
            loss=loss,
            loss_names=loss.names,
            optimizers=build_optimizers(settings, model.trainable_variables, model.backbone_variables),
            draws=lambda part: seeding.draws(number, part),
        )
        dataset = build_dataset(config.train_dataset_options, is_training=True)
        trainer = Trainer(step=step, dataset=dataset, global_step=number)
        losses, start = [], 0.0
        for index in range(steps):
            if index == 1:
                start = time.perf_counter()
            losses.append(float(trainer.train(tf.constant(1))["losses/train_total_loss"]))
        return losses, (time.perf_counter() - start) / max(steps - 1, 1)


def block_means(losses: list[float], block: int) -> list[float]:
    """Mean of each `block` steps; what is left at the end forms a block of its own."""
    blocks = [losses[first : first + block] for first in range(0, len(losses), block)]
    return [sum(losses) / len(losses) for losses in blocks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(ROOT / "configs" / "shapes" / "kmax_tiny.textproto"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--block", type=int, default=20, help="steps that are averaged")
    parser.add_argument("--precision", action="append", default=[], help="may be given several times")
    parser.add_argument("--override", action="append", default=[], help="field=value")
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
