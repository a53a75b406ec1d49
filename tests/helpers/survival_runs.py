"""Runs of a very small kMaX: in this process, or bitwise repeatable in processes of their own, to be killed."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import tensorflow as tf

from deeplab2_kmax.converters.shapes import convert_shapes

_ROOT = pathlib.Path(__file__).parents[2]
CONFIG = _ROOT / "configs/shapes/kmax_tiny.textproto"
NAME = "shapes_kmax_tiny"
_DECODER = "model_options.max_deeplab.transformer_decoder"
_SEEDED = (
    "train_dataset_options.seed=1",
    "trainer_options.seed=2",
    # All that draws random numbers in a step.
    f"{_DECODER}_drop_path_keep_prob=0.7",
    "model_options.backbone.drop_path_keep_prob=0.7",
    "model_options.max_deeplab.sample_semantic_loss=true",
    "model_options.max_deeplab.semantic_sample_k=20",
)


def write_records(folder, train=12, val=2):
    """Drawn scenes of 33 x 33 pixels; returns the folder they are in."""
    records = folder / "records"
    convert_shapes(str(records), num_train=train, num_val=val, size=33, num_processes=1)
    return records


def small_runs(records):
    """Overrides of CONFIG: records from `write_records` in batches of two, and a single decoder layer."""
    return [
        f"train_dataset_options.file_pattern={records}/train-*",
        f"eval_dataset_options.file_pattern={records}/val-*",
        "train_dataset_options.batch_size=2",
        "eval_dataset_options.batch_size=2",
        "train_dataset_options.crop_size=33,33",
        "eval_dataset_options.crop_size=33,33",
        f"{_DECODER}.num_blocks=0,0,1",
    ]


def overrides(records, tiny, steps, interval):
    """Overrides of CONFIG: a narrow model, seeds, a checkpoint every `interval` steps, a line of progress at each."""
    return [
        *tiny,
        *small_runs(records),
        "trainer_options.steps_per_loop=1",
        f"trainer_options.save_checkpoints_steps={interval}",
        f"trainer_options.solver_options.training_number_of_steps={steps}",
        "trainer_options.solver_options.warmup_steps=0",
        "trainer_options.num_summary_images=0",
        *_SEEDED,
    ]


class Process:
    """A run in a process of its own, whose lines are read as they come.

    Args:
        folder: `--model_dir`.
        fields: the overrides.
        mode: `--mode`.
        dies: moment and step of `dying_run.py`; None lives.
    """

    def __init__(self, folder, fields, mode="train", dies=None):
        flags = [f"--config_file={CONFIG}", f"--model_dir={folder}", f"--mode={mode}"]
        flags += [f"--override={field}" for field in fields]
        program = [_ROOT / "trainer/train.py"] if dies is None else [_ROOT / "tests/helpers/dying_run.py", *dies]
        self._process = subprocess.Popen(
            [sys.executable, *map(str, program), *flags],
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.pid = self._process.pid
        self.lines = []

    def wait_for(self, pattern):
        """Reads up to the first line that holds `pattern`; returns its match."""
        for line in self._process.stdout:
            self.lines.append(line.rstrip())
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no line holds {pattern!r}:\n{self.output}")

    def send(self, number):
        self._process.send_signal(number)

    def end(self):
        """Reads to the end; returns the exit status, -N where signal N ended it."""
        self.lines += [line.rstrip() for line in self._process.stdout]
        return self._process.wait(timeout=300)

    @property
    def output(self):
        return "\n".join(self.lines)

    @property
    def start(self):
        """The step of the checkpoint it went on from; 0 if it began anew."""
        found = re.search(r"^resumed from \S+ at step (\d+)$", self.output, re.MULTILINE)
        return int(found[1]) if found else 0

    @property
    def last_step(self):
        """The last step that it printed."""
        steps = [int(found[1]) for line in self.lines if (found := re.match(r"step +(\d+)/", line))]
        return steps[-1] if steps else self.start


def values(prefix):
    """All tensors of a checkpoint except the count of writes, which depends on how often the run was stopped."""
    reader = tf.train.load_checkpoint(str(prefix))
    keys = sorted(reader.get_variable_to_shape_map())
    return {key: reader.get_tensor(key) for key in keys if not key.startswith(("_CHECKPOINTABLE", "save_counter"))}


def require_same(prefix, other):
    """Fails where two checkpoints differ in any bit of any tensor."""
    ours, theirs = values(prefix), values(other)
    assert ours.keys() == theirs.keys()
    differ = [key for key, value in ours.items() if np.asarray(value).tobytes() != np.asarray(theirs[key]).tobytes()]
    assert not differ, f"{len(differ)} of {len(ours)} tensors differ, e.g. {differ[:3]}"
