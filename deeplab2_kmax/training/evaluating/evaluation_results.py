"""What the checkpoints of a run are worth: a line for each in `eval/results.jsonl`, and the best of them kept."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
from collections.abc import Collection, Mapping

import tensorflow as tf

from deeplab2_kmax.checkpoints.files import fingerprint
from deeplab2_kmax.errors import CheckpointError, ConfigError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.terminal import say
from deeplab2_kmax.training.checkpoints.best_checkpoint import BestCheckpoint

_RECORD = os.path.join("eval", "results.jsonl")
_PERCENT = ("PQ", "SQ", "RQ", "IoU")
_KEYS = {"step", "checkpoint", "fingerprint", "settings", "figures"}
# Of evaluator_options: what says when to evaluate, and what to write beside the figures.
_NO_PART_IN_FIGURES = (
    "best_checkpoint_metric",
    "continuous_eval_timeout",
    "convert_raw_to_eval_ids",
    "eval_interval",
    "num_summary_images",
    "num_vis_samples",
    "override_save_dir",
    "per_class_summaries",
    "raw_panoptic_format",
    "save_predictions",
    "save_raw_predictions",
    "use_tf_function",
)


def settings_fingerprint(config: config_pb2.ExperimentOptions) -> str:
    """16 hexadecimal digits that differ where a config evaluates differently: other data, post-processing, weights."""
    options = config_pb2.ExperimentOptions()
    options.evaluator_options.CopyFrom(config.evaluator_options)
    options.eval_dataset_options.CopyFrom(config.eval_dataset_options)
    for name in _NO_PART_IN_FIGURES:
        options.evaluator_options.ClearField(name)
    return hashlib.sha256(options.SerializeToString(deterministic=True)).hexdigest()[:16]


class EvaluationResults:
    """The evaluations of a run, also those of the processes before this one.

    Args:
        run_folder: the run's folder.
        metric: the figure to choose the best checkpoint by; "" keeps none.
        names: the figures an evaluation yields.
        settings: what they depend on besides the checkpoint; results under other settings do not count.

    Raises:
        ConfigError: `metric` is none of `names`.
    """

    def __init__(self, run_folder: str, metric: str, names: Collection[str], settings: str = ""):
        if metric and names and metric not in names:
            raise ConfigError(
                f"evaluator_options.best_checkpoint_metric: expected one of {', '.join(sorted(names))}; came {metric!r}"
            )
        self._path = os.path.join(run_folder, _RECORD)
        self._settings = settings
        self._lines = _read(self._path)
        self.best = BestCheckpoint(run_folder, metric, settings) if metric and names else None

    def figures_of(self, path: str) -> dict[str, float] | None:
        """The figures of a checkpoint that has been evaluated, or None.

        Checkpoints are told apart by content: one that was written anew after a restart counts as another if it is.

        Raises:
            FileNotFoundError: there is no such checkpoint.
        """
        line = self._lines.get((fingerprint(path), self._settings))
        return line["figures"] if line else None

    def add(self, path: str, step: int, figures: Mapping[str, float]) -> None:
        """Files the figures of the checkpoint `path`, and keeps it if it is the best.

        Raises:
            CheckpointError: the result cannot be written, or the checkpoint cannot be kept.
        """
        kept = self.best is not None and self.best.offer(path, step, figures)
        line = {
            "step": step,
            "checkpoint": os.path.basename(path),
            "fingerprint": fingerprint(path),
            "settings": self._settings,
            "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "figures": {name: float(value) for name, value in figures.items() if math.isfinite(value)},
        }
        try:
            _append(self._path, json.dumps(line))
        except (OSError, tf.errors.OpError) as error:
            raise CheckpointError(f"cannot write the result of {path} to {self._path}: {error}") from error
        self._lines[line["fingerprint"], self._settings] = line
        if kept:
            say(f"best so far: {self.best_in_words()}")

    def best_in_words(self) -> str:
        """E.g. "PQ 41.32 at step 9000, kept as runs/shapes/best/ckpt-9000"; qualities in percent, as in the table."""
        if self.best is None or self.best.path is None:
            return "none"
        name = self.best.metric.rsplit("/", 1)[-1]
        value = f"{100 * self.best.value:.2f}" if name in _PERCENT else f"{self.best.value:.4g}"
        return f"{name} {value} at step {self.best.step}, kept as {self.best.path}"


def _read(path: str) -> dict[tuple[str, str], dict]:
    """(fingerprint, settings) -> line of the record; a line cut short by the end of its process is left out."""
    if not tf.io.gfile.exists(path):
        return {}
    lines = {}
    with tf.io.gfile.GFile(path) as file:
        for text in file.read().splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and line.keys() >= _KEYS:
                lines[line["fingerprint"], line["settings"]] = line
    return lines


def _append(path: str, text: str) -> None:
    """Adds a line; the break before it ends one that was cut short, and empty lines do not count."""
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "a") as file:
        file.write(f"\n{text}\n" if _is_cut_short(path) else f"{text}\n")


def _is_cut_short(path: str) -> bool:
    if not tf.io.gfile.exists(path):
        return False
    with tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    return bool(content) and not content.endswith(b"\n")
