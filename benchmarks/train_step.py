"""Times training steps and their memory beside DeepLab2's, a process for each side, taking turns.

    python benchmarks/train_step.py --deeplab2_path=PARENT_OF_DEEPLAB2 --config=FOLDER/kmax_meta_r50_os32.textproto \
        --case=321x1 --case=129x4 [--override=...]

Each side builds the model, loss and optimizer that the config describes and trains on one synthetic COCO batch, so that
no input pipeline is timed. Printed for each case: seconds from the start of the process to the end of its first step,
seconds of a step afterwards (median over the turns), and the peak of resident memory. Without --deeplab2_path only ours
is timed. --override changes ours alone, e.g. to see what a memory option costs.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time

ANSWER = "answer"
CLASSES, THINGS, IGNORE, MAX_THINGS, INSTANCES = 133, 80, 0, 128, 12


def batch(size: int, images: int):
    """Pictures of noise with instances as rectangles over stripes of stuff, as the input pipeline labels them."""
    import numpy as np

    rng = np.random.default_rng(0)

    def one():
        semantic = np.repeat(rng.integers(THINGS + 1, CLASSES + 1, 6), -(-size // 6))[:size, None]
        semantic = np.tile(semantic, [1, size]).astype(np.int32)
        thing_id = np.full([size, size], -1, np.int32)
        thing_class = np.full([MAX_THINGS], -1, np.int32)
        for instance in range(INSTANCES):
            top, left = rng.integers(0, size * 3 // 4, 2)
            height, width = rng.integers(size // 16, size // 3, 2)
            box = np.s_[top : top + height, left : left + width]
            thing_class[instance] = semantic[box] = rng.integers(1, THINGS + 1)
            thing_id[box] = instance
        semantic[: size // 16], thing_id[: size // 16] = IGNORE, -1
        return {
            "image": rng.uniform(0, 255, [size, size, 3]).astype(np.float32),
            "semantic_gt": semantic,
            "thing_id_mask_gt": thing_id,
            "thing_id_class_gt": thing_class,
            "semantic_loss_weight": np.ones([size, size], np.float32),
        }

    samples = [one() for _ in range(images)]
    return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}


def sample_k(size: int) -> int:
    """Pixels in the instance discrimination loss: the recipe's 4096, or half of the output where that is less."""
    return min(4096, ((size - 1) // 4 + 1) ** 2 // 2)


def ours(config_path: str, size: int, images: int, overrides: list[str]):
    """A function that trains our model for a number of steps."""
    from deeplab2_kmax.training.step.tracing import no_garbage_collection

    with no_garbage_collection():  # As `deeplab2_kmax.trainer.train.run` does.
        return _ours(config_path, size, images, overrides)


def _ours(config_path: str, size: int, images: int, overrides: list[str]):
    import orbit
    import tensorflow as tf

    from deeplab2_kmax.config import load_config
    from deeplab2_kmax.losses import build_loss
    from deeplab2_kmax.model import build_model
    from deeplab2_kmax.training.optimizers import SolverSettings, build_optimizers
    from deeplab2_kmax.training.step.loop import Trainer
    from deeplab2_kmax.training.step.step import TrainStep

    sides = [
        f"train_dataset_options.{option}"
        for option in (f"crop_size={size},{size}", f"batch_size={images}", "min_resize_value=", "max_resize_value=")
    ]
    sides.append(f"model_options.max_deeplab.instance_discrimination_sample_k={sample_k(size)}")
    config = load_config(config_path, [*sides, *overrides])
    with tf.distribute.OneDeviceStrategy("device:CPU:0").scope():
        model = build_model(config)
        loss = build_loss(config)
        solver = SolverSettings.from_options(config.trainer_options.solver_options)
        optimizers = build_optimizers(solver, model.trainable_variables, model.backbone_variables)
        trainer = Trainer(
            step=TrainStep(
                model=model,
                loss=loss,
                loss_names=loss.names,
                optimizers=optimizers,
                compiled=config.trainer_options.xla,
                micro_batches=config.trainer_options.gradient_accumulation_steps,
            ),
            dataset=tf.data.Dataset.from_tensors(batch(size, images)).repeat(),
            global_step=orbit.utils.create_global_step(),
        )
        return lambda steps: trainer.train(tf.constant(steps))


def deeplab2(config_path: str, size: int, images: int, overrides: list[str]):
    """The same for DeepLab2, put together as its `run_experiment` does."""
    del overrides
    import orbit
    import tensorflow as tf
    from deeplab2 import config_pb2
    from deeplab2.data import dataset
    from deeplab2.model.loss import loss_builder
    from deeplab2.trainer import runner_utils, train_lib
    from deeplab2.trainer import trainer as their_trainer
    from google.protobuf import text_format

    with open(config_path, encoding="utf-8") as file:
        config = text_format.Parse(file.read(), config_pb2.ExperimentOptions())
    config.model_options.backbone.ClearField("pretrained_weights")
    config.model_options.max_deeplab.instance_discrimination_sample_k = sample_k(size)
    config.train_dataset_options.crop_size[:] = [size, size]
    config.train_dataset_options.batch_size = images
    info = dataset.MAP_NAME_TO_DATASET_INFO[config.train_dataset_options.dataset]
    data = tf.data.Dataset.from_tensors(batch(size, images)).repeat()
    runner_utils.create_dataset = lambda *unused, **unused_too: data
    with tf.distribute.OneDeviceStrategy("device:CPU:0").scope():
        model = train_lib.create_deeplab_model(config, info)
        loss = loss_builder.DeepLabFamilyLoss(
            loss_options=config.trainer_options.loss_options,
            deeplab_options=config.model_options,
            num_classes=info.num_classes,
            ignore_label=info.ignore_label,
            ignore_depth=info.ignore_depth,
            thing_class_ids=info.class_has_instances_list,
            auxiliary_output_number=model.auxiliary_output_number,
        )
        trainer = their_trainer.Trainer(config, model, loss, orbit.utils.create_global_step())
        train_lib.build_deeplab_model(model, [size, size])
        return lambda steps: trainer.train(tf.constant(steps))


def work(arguments) -> None:
    """A side's process: takes numbers of steps from stdin, answers with seconds, and at the end with peak memory."""
    size, images = map(int, arguments.case[0].split("x"))
    make = ours if arguments.side == "ours" else deeplab2
    train = make(arguments.config, size, images, arguments.override)
    for line in sys.stdin:
        start = time.perf_counter()
        train(int(line))
        print(ANSWER, time.perf_counter() - start, flush=True)
    print(ANSWER, peak_memory(), flush=True)


def peak_memory() -> float:
    """Peak resident memory of this process, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


class Side:
    """The process of a side; `start` is the seconds from its start to the end of its first step."""

    def __init__(self, name: str, case: str, arguments):
        command = [sys.executable, __file__, f"--side={name}", f"--case={case}", f"--config={arguments.config}"]
        command += [f"--override={override}" for override in arguments.override]
        environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
        if name == "deeplab2":
            environment["PYTHONPATH"] = arguments.deeplab2_path
        start = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.train(1)
        self.start = time.perf_counter() - start

    def train(self, steps: int) -> float:
        """Seconds that `steps` steps take."""
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> float:
        """Ends the process; its peak memory in GB."""
        self._process.stdin.close()
        return self._answer()

    def _answer(self) -> float:
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                return float(line.split()[1])
        raise SystemExit(f"a side ended with code {self._process.wait()}")


def compare(case: str, arguments) -> dict[str, tuple[float, float, float]]:
    """{side: (seconds to the first step, seconds a step, GB)}."""
    names = ["ours", "deeplab2"] if arguments.deeplab2_path else ["ours"]
    sides = {name: Side(name, case, arguments) for name in names}
    for side in sides.values():
        side.train(2)
    times = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            times[name].append(side.train(arguments.steps) / arguments.steps)
    return {name: (side.start, statistics.median(times[name]), side.end()) for name, side in sides.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeplab2_path", help="folder that holds the package deeplab2")
    parser.add_argument("--config", required=True, help="a config that DeepLab2 can read")
    parser.add_argument("--case", action="append", default=[], help="SIZExBATCH; may be given several times")
    parser.add_argument("--override", action="append", default=[], help="field=value for ours")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps in a turn")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.case = arguments.case or ["321x1", "129x4"]
    if arguments.side:
        work(arguments)
        return
    print(f"{'case':10}{'':24}{'ours':>8}{'DeepLab2':>10}{'ratio':>8}")
    for case in arguments.case:
        results = compare(case, arguments)
        for index, what in enumerate(("start to first step, s", "step, s", "peak memory, GB")):
            line = f"{case:10}{what:24}{results['ours'][index]:8.2f}"
            if "deeplab2" in results:
                theirs = results["deeplab2"][index]
                line += f"{theirs:10.2f}{theirs / results['ours'][index]:8.2f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
