"""Measures time and memory of training steps, beside DeepLab2's.

    python benchmarks/train_step.py [--deeplab2_path=DEEPLAB2] --config=FOLDER/kmax_meta_r50_os32.textproto
        [--case=321x1] [--case=129x4] [--override=...]

Each side is a process of its own, and they take turns. A side builds the model, loss and optimizers that the config
describes and trains on one synthetic COCO batch, so that no input pipeline is timed. For each case the table shows the
seconds from the start of the process to the end of its first step, the seconds of a later step (median over the turns),
and the peak of resident memory. --override changes ours alone, for instance to see what a memory option costs. Without
--deeplab2_path the config may also be one of ours.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
from beside_deeplab2 import add_deeplab2_path, argument_parser, import_deeplab2, read_deeplab2_config
from synthetic_coco import synthetic_targets

# Marks the lines of a side's stdout that answer a request; TensorFlow and DeepLab2 print others.
ANSWER = "answer"
THINGS_IN_IMAGE = 12


def batch(size: int, images: int) -> dict[str, np.ndarray]:
    """Images of noise, float32 [images, size, size, 3] from 0 to 255, with synthetic targets."""
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(images):
        targets = synthetic_targets(rng, size, THINGS_IN_IMAGE)
        samples.append({"image": rng.uniform(0, 255, [size, size, 3]).astype(np.float32), **targets})
    return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}


def sample_k(size: int) -> int:
    """Pixels that the instance discrimination loss samples: the recipe's 4096, or half of the output's if fewer."""
    return min(4096, ((size - 1) // 4 + 1) ** 2 // 2)


def ours(config_path: str, size: int, images: int, overrides: list[str]):
    """A function that trains our model for a number of steps."""
    from deeplab2_kmax.training.step.tracing import no_garbage_collection

    # As `deeplab2_kmax.training.run_experiment` does; it also has to cover the import of TensorFlow.
    with no_garbage_collection():
        import tensorflow as tf
        from loss_curves import build_trainer

        from deeplab2_kmax.config import load_config

        sides = [
            f"train_dataset_options.{option}"
            for option in (f"crop_size={size},{size}", f"batch_size={images}", "min_resize_value=", "max_resize_value=")
        ]
        sides.append(f"model_options.max_deeplab.instance_discrimination_sample_k={sample_k(size)}")
        config = load_config(config_path, [*sides, *overrides])
        trainer = build_trainer(config, tf.data.Dataset.from_tensors(batch(size, images)).repeat())
        return lambda steps: trainer.train(tf.constant(steps))


def deeplab2(config_path: str, size: int, images: int):
    """A function that trains DeepLab2's model for a number of steps, built as its `run_experiment` does."""
    import orbit
    import tensorflow as tf
    from deeplab2.data import dataset
    from deeplab2.model.loss import loss_builder
    from deeplab2.trainer import runner_utils, train_lib
    from deeplab2.trainer import trainer as deeplab2_trainer

    config = read_deeplab2_config(config_path)
    config.model_options.max_deeplab.instance_discrimination_sample_k = sample_k(size)
    config.train_dataset_options.crop_size[:] = [size, size]
    config.train_dataset_options.batch_size = images
    info = dataset.MAP_NAME_TO_DATASET_INFO[config.train_dataset_options.dataset]
    data = tf.data.Dataset.from_tensors(batch(size, images)).repeat()
    # DeepLab2's trainer makes its data set by itself and takes none from outside.
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
        trainer = deeplab2_trainer.Trainer(config, model, loss, orbit.utils.create_global_step())
        train_lib.build_deeplab_model(model, [size, size])
        return lambda steps: trainer.train(tf.constant(steps))


def build(side: str, arguments: argparse.Namespace):
    """A function that trains the model of a side for a number of steps."""
    size, images = map(int, arguments.case[0].split("x"))
    if side == "ours":
        return ours(arguments.config, size, images, arguments.override)
    import_deeplab2(arguments.deeplab2_path)
    return deeplab2(arguments.config, size, images)


def work(arguments: argparse.Namespace) -> None:
    """What a side's process does: reads numbers of steps from stdin and answers with the seconds that they took.

    When stdin ends, it answers with its peak memory.
    """
    train = build(arguments.side, arguments)
    for line in sys.stdin:
        start = time.perf_counter()
        train(int(line))
        print(ANSWER, time.perf_counter() - start, flush=True)
    print(ANSWER, peak_memory(), flush=True)


def peak_memory() -> float:
    """Peak resident memory of this process, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


class Side:
    """The process of a side, seen from the one that compares.

    Attributes:
        start: seconds from the start of the process to the end of its first step.
    """

    def __init__(self, name: str, case: str, arguments: argparse.Namespace):
        command = [sys.executable, __file__, f"--side={name}", f"--case={case}", f"--config={arguments.config}"]
        command += [f"--override={override}" for override in arguments.override]
        if name == "deeplab2":
            command.append(f"--deeplab2_path={arguments.deeplab2_path}")
        start = time.perf_counter()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.train(1)
        self.start = time.perf_counter() - start

    def train(self, steps: int) -> float:
        """Trains for `steps` steps; returns the seconds that they took."""
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> float:
        """Ends the process; returns its peak memory in GB."""
        self._process.stdin.close()
        return self._answer()

    def _answer(self) -> float:
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                return float(line.split()[1])
        raise SystemExit(f"error: the process of a side ended with status {self._process.wait()}; see above")


def compare(case: str, arguments: argparse.Namespace) -> dict[str, tuple[float, float, float]]:
    """Measures one case; returns {side: (seconds to the end of the first step, seconds per step, peak GB)}."""
    names = ["ours", "deeplab2"] if arguments.deeplab2_path else ["ours"]
    sides = {name: Side(name, case, arguments) for name in names}
    # A few more steps before any is timed: memory is still being allocated, caches are filled.
    for side in sides.values():
        side.train(2)
    times = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            times[name].append(side.train(arguments.steps) / arguments.steps)
    return {name: (side.start, statistics.median(times[name]), side.end()) for name, side in sides.items()}


def main() -> None:
    parser = argument_parser(__doc__)
    add_deeplab2_path(parser)
    parser.add_argument("--config", required=True, help="a config that DeepLab2 can read")
    parser.add_argument("--case", action="append", default=[], help="SIZExBATCH; may be given several times")
    parser.add_argument("--override", action="append", default=[], help="field.sub_field=value for ours")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
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
