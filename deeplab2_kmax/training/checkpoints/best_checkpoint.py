"""The best checkpoint of a run, kept in a folder of its own, where old checkpoints are not deleted."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints.files import delete_checkpoint, is_whole, link_checkpoint, name_latest
from deeplab2_kmax.checkpoints.integrity import numbered_checkpoints
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.wording import first_line

FOLDER = "best"
_FACTS = "best.json"
_LOSSES = "losses/"


class BestCheckpoint:
    """Keeps `best/ckpt-<step>`, and `best/best.json` with its step and figures.

    The folder is one of checkpoints like any other: evaluation, export and restarts take it as they take the run's.

    Args:
        run_folder: the run's folder.
        metric: name of the figure to choose by; the highest is the best, of losses the lowest.
        settings: identifies what the figures depend on besides the checkpoint. A best checkpoint that was chosen under
            other settings stays until one under these replaces it, however good it was.

    Raises:
        CheckpointError: there is a `best.json` that this class did not write.
    """

    def __init__(self, run_folder: str, metric: str, settings: str = ""):
        self.folder = files.join(run_folder, FOLDER)
        self.metric = metric
        self._settings = settings
        self._facts = self._read()

    def _read(self) -> dict[str, Any] | None:
        path = files.join(self.folder, _FACTS)
        if not files.exists(path):
            return None
        try:
            facts = files.read_json(path)
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise CheckpointError(
                f"{path} is not what this program writes there ({first_line(error)}); move it away"
            ) from error
        if not _are_facts(facts):
            raise CheckpointError(
                f"{path} is not what this program writes there (expected checkpoint, step and figures); move it away"
            )
        return facts if is_whole(files.join(self.folder, facts["checkpoint"])) else None

    @property
    def path(self) -> str | None:
        """Prefix of the best checkpoint, or None before the first."""
        return files.join(self.folder, self._facts["checkpoint"]) if self._facts else None

    @property
    def step(self) -> int | None:
        """The step of the best checkpoint, or None before the first."""
        return self._facts["step"] if self._facts else None

    @property
    def value(self) -> float | None:
        """The best checkpoint's `metric`; None before the first, or if it was measured under other settings."""
        if self._facts is None or self._facts.get("settings") != self._settings:
            return None
        value: float | None = self._facts["figures"].get(self.metric)
        return value

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
        facts = {
            "checkpoint": os.path.basename(path),
            "step": step,
            "metric": self.metric,
            "settings": self._settings,
            "figures": {name: float(value) for name, value in figures.items() if math.isfinite(value)},
        }
        # A process may be killed at any point here. So the new checkpoint is there before best.json names it, and the
        # one before it is deleted after that: at each moment best.json names a checkpoint that is whole.
        try:
            kept = link_checkpoint(path, self.folder)
            files.write_json(files.join(self.folder, _FACTS), facts)
            name_latest(kept)
            self._facts = facts
            self._delete_others(kept)
        except (OSError, tf.errors.OpError) as error:
            raise CheckpointError(f"cannot keep {path} as the best in {self.folder}: {first_line(error)}") from error
        return True

    def _delete_others(self, kept: str) -> None:
        """Deletes the best one before this one, and what a run that was killed may have left."""
        for prefix in numbered_checkpoints(self.folder):
            if prefix != kept:
                delete_checkpoint(prefix)


def _are_facts(content: Any) -> bool:
    """Whether this is the content of a `best.json`, with all that is read from it."""
    if not isinstance(content, dict) or not isinstance(content.get("figures"), dict):
        return False
    name, step = content.get("checkpoint"), content.get("step")
    return (
        isinstance(name, str)
        and name == os.path.basename(name) != ""
        and isinstance(step, int)
        and all(isinstance(value, (int, float)) for value in content["figures"].values())
    )
