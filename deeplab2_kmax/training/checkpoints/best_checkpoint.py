"""The best checkpoint of a run, kept where the deletion of old checkpoints does not reach it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping

import tensorflow as tf

from deeplab2_kmax.checkpoints.files import delete_checkpoint, is_whole, link_checkpoint, name_latest
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.evaluation.report import write_json

FOLDER = "best"
_FACTS = "best.json"
_LOSSES = "losses/"


class BestCheckpoint:
    """`best/ckpt-<step>` with `best/best.json`, which says its step and figures.

    The folder is one of checkpoints like any other: evaluation, export and restarts take it as they take the run's.
    A better checkpoint is complete before it counts, and the one before it is deleted after that.

    Args:
        run_folder: the run's folder.
        metric: name of the figure to choose by; the highest is the best, of losses the lowest.
        settings: what the figures depend on besides the checkpoint. A best under other settings stays until one under
            these replaces it, however good it was.
    """

    def __init__(self, run_folder: str, metric: str, settings: str = ""):
        self.folder = os.path.join(run_folder, FOLDER)
        self.metric = metric
        self._settings = settings
        self._facts = self._read()

    def _read(self) -> dict | None:
        path = os.path.join(self.folder, _FACTS)
        if not tf.io.gfile.exists(path):
            return None
        try:
            with tf.io.gfile.GFile(path) as file:
                facts = json.load(file)
            prefix = os.path.join(self.folder, facts["checkpoint"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is not what this program writes there ({error}); move it away") from error
        return facts if is_whole(prefix) else None

    @property
    def path(self) -> str | None:
        """Prefix of the best checkpoint, or None before the first."""
        return os.path.join(self.folder, self._facts["checkpoint"]) if self._facts else None

    @property
    def step(self) -> int | None:
        """The step of the best checkpoint, or None before the first."""
        return self._facts["step"] if self._facts else None

    @property
    def value(self) -> float | None:
        """What the best checkpoint reaches in `metric`; None before the first, and where it was measured otherwise."""
        if self._facts is None or self._facts.get("settings") != self._settings:
            return None
        return self._facts["figures"].get(self.metric)

    def is_better(self, figures: Mapping[str, float]) -> bool:
        """Whether these figures beat those of the best checkpoint so far; equal ones do not."""
        value = figures.get(self.metric, math.nan)
        if not math.isfinite(value):
            return False
        if self.value is None:
            return True
        return value < self.value if self.metric.startswith(_LOSSES) else value > self.value

    def offer(self, path: str, step: int, figures: Mapping[str, float]) -> bool:
        """Keeps the checkpoint `path` if it is the best so far; returns whether it is.

        Raises:
            CheckpointError: it cannot be kept: it is gone, or the folder cannot be written to.
        """
        if not self.is_better(figures):
            return False
        try:
            link_checkpoint(path, self.folder)
            self._facts = {
                "checkpoint": os.path.basename(path),
                "step": step,
                "metric": self.metric,
                "settings": self._settings,
                "figures": {name: float(value) for name, value in figures.items() if math.isfinite(value)},
            }
            write_json(self._facts, os.path.join(self.folder, _FACTS))
            name_latest(self.path)
            self._delete_others()
        except (OSError, tf.errors.OpError) as error:
            raise CheckpointError(f"cannot keep {path} as the best in {self.folder}: {error}") from error
        return True

    def _delete_others(self) -> None:
        """Deletes the best before this one, and what a run that was killed may have left."""
        for index in tf.io.gfile.glob(os.path.join(self.folder, "ckpt-*.index")):
            if (prefix := index[: -len(".index")]) != self.path:
                delete_checkpoint(prefix)
