"""The evaluation results of a run's checkpoints: a line for each in `eval/results.jsonl`, and the best one kept."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
from collections.abc import Collection, Mapping
from typing import Any

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints.files import fingerprint
from deeplab2_kmax.config.problems import choice_problems, refuse
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.terminal import say
from deeplab2_kmax.training.checkpoints.best_checkpoint import BestCheckpoint

# Within the run's folder.
_RECORD = "eval/results.jsonl"
# Beginnings of the names of figures that are fractions.
_PERCENT = ("PQ", "SQ", "RQ", "IoU", "AP", "AR")
_KEYS = {"step", "checkpoint", "fingerprint", "settings", "figures"}
# Fields of evaluator_options that do not change the figures: when to evaluate, and what else to compute or write.
_WITHOUT_EFFECT = (
    "best_checkpoint_metric",
    "boundary_ratio",
    "calibration",
    "cityscapes_ap",
    "continuous_eval_timeout",
    "convert_raw_to_eval_ids",
    "detailed_ap_metrics",
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
    """16 hexadecimal digits that identify how a config evaluates: data, post-processing, choice of weights."""
    options = config_pb2.ExperimentOptions()
    options.evaluator_options.CopyFrom(config.evaluator_options)
    options.eval_dataset_options.CopyFrom(config.eval_dataset_options)
    # A list of what to leave out, so that a field added later counts until somebody decides otherwise.
    for name in _WITHOUT_EFFECT:
        options.evaluator_options.ClearField(name)
    return hashlib.sha256(options.SerializeToString(deterministic=True)).hexdigest()[:16]


class EvaluationResults:
    """The evaluation results of a run, also those of the processes before this one.

    Args:
        run_folder: the run's folder.
        metric: the figure to choose the best checkpoint by; "" keeps none.
        names: the figures an evaluation yields.
        settings: identifies what the figures depend on besides the checkpoint, see `settings_fingerprint`; results
            under other settings do not count.

    Raises:
        ConfigError: `metric` is none of `names`.
    """

    def __init__(self, run_folder: str, metric: str, names: Collection[str], settings: str = ""):
        if metric and names:
            refuse(choice_problems("evaluator_options.best_checkpoint_metric", metric, sorted(names)))
        self._path = files.join(run_folder, _RECORD)
        self._settings = settings
        self._lines = _read(self._path)
        self.best = BestCheckpoint(run_folder, metric, settings) if metric and names else None

    def figures_of(self, path: str) -> dict[str, float] | None:
        """The figures of a checkpoint that has been evaluated, or None.

        Checkpoints are told apart by content: one that was written anew after a restart counts as another one only if
        its values differ.

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
        # The best first: a process that is killed between the two evaluates the checkpoint again. In the other order,
        # the checkpoint would have its result and never be kept.
        kept = self.best is not None and self.best.offer(path, step, figures)
        identity = fingerprint(path)
        line = {
            "step": step,
            "checkpoint": os.path.basename(path),
            "fingerprint": identity,
            "settings": self._settings,
            "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            # JSON knows no NaN; classes that do not occur have one.
            "figures": {name: float(value) for name, value in figures.items() if math.isfinite(value)},
        }
        try:
            files.append_line(self._path, json.dumps(line))
        except OSError as error:
            raise CheckpointError(f"cannot write the result of {path} to {self._path}: {error.strerror}") from error
        self._lines[identity, self._settings] = line
        if kept:
            say(f"best so far: {self.best_in_words()}")

    def best_in_words(self) -> str:
        """E.g. "PQ 41.32 at step 9000, kept as runs/shapes/best/ckpt-9000"; qualities in percent, as in the table."""
        if self.best is None or self.best.path is None:
            return "none"
        name, value = self.best.metric.rsplit("/", 1)[-1], self.best.value
        if value is None:
            return f"step {self.best.step}, kept as {self.best.path}, chosen under other settings"
        figure = f"{100 * value:.2f}" if name.startswith(_PERCENT) else f"{value:.4g}"
        return f"{name} {figure} at step {self.best.step}, kept as {self.best.path}"


def _read(path: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(fingerprint, settings) -> line of the record; a line that a killed process has cut short is left out."""
    if not files.exists(path):
        return {}
    lines = {}
    for text in files.read_bytes(path).splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        # Such a file may have been edited by hand.
        is_ours = isinstance(line, dict) and line.keys() >= _KEYS and isinstance(line["figures"], dict)
        if is_ours and isinstance(line["fingerprint"], str) and isinstance(line["settings"], str):
            lines[line["fingerprint"], line["settings"]] = line
    return lines
