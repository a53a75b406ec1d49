"""What the checkpoints of a run are worth: a line for each in `eval/results.jsonl`, and the best of them kept."""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Collection, Mapping

import tensorflow as tf

from deeplab2_kmax.errors import CheckpointError, ConfigError
from deeplab2_kmax.trainer.best_checkpoint import BestCheckpoint
from deeplab2_kmax.trainer.checkpoint_files import fingerprint
from deeplab2_kmax.trainer.progress import say

_RECORD = os.path.join("eval", "results.jsonl")
_PERCENT = ("PQ", "SQ", "RQ", "IoU")
_KEYS = {"step", "checkpoint", "fingerprint", "figures"}


class EvaluationResults:
    """The evaluations of a run, also those of the processes before this one.

    Args:
        run_folder: the run's folder.
        metric: the figure to choose the best checkpoint by; "" keeps none.
        names: the figures an evaluation yields.

    Raises:
        ConfigError: `metric` is none of `names`.
    """

    def __init__(self, run_folder: str, metric: str, names: Collection[str]):
        if metric and names and metric not in names:
            raise ConfigError(
                f"evaluator_options.best_checkpoint_metric: expected one of {', '.join(sorted(names))}; came {metric!r}"
            )
        self._path = os.path.join(run_folder, _RECORD)
        self._lines = _read(self._path)
        self.best = BestCheckpoint(run_folder, metric) if metric and names else None

    def figures_of(self, path: str) -> dict[str, float] | None:
        """The figures of a checkpoint that has been evaluated, or None.

        Checkpoints are told apart by content: one that was written anew after a restart counts as another if it is.

        Raises:
            FileNotFoundError: there is no such checkpoint.
        """
        line = self._lines.get(fingerprint(path))
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
            "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "figures": {name: float(value) for name, value in figures.items() if math.isfinite(value)},
        }
        try:
            _append(self._path, json.dumps(line))
        except (OSError, tf.errors.OpError) as error:
            raise CheckpointError(f"cannot write the result of {path} to {self._path}: {error}") from error
        self._lines[line["fingerprint"]] = line
        if kept:
            say(f"best so far: {self.best_in_words()}")

    def best_in_words(self) -> str:
        """E.g. "PQ 41.32 at step 9000, kept as runs/shapes/best/ckpt-9000"; qualities in percent, as in the table."""
        if self.best is None or self.best.path is None:
            return "none"
        name = self.best.metric.rsplit("/", 1)[-1]
        value = f"{100 * self.best.value:.2f}" if name in _PERCENT else f"{self.best.value:.4g}"
        return f"{name} {value} at step {self.best.step}, kept as {self.best.path}"


def _read(path: str) -> dict[str, dict]:
    """Fingerprint -> line of the record; a line cut short by the end of its process is left out."""
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
                lines[line["fingerprint"]] = line
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
