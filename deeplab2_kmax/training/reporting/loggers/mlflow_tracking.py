"""MLflow (https://mlflow.org): the extra `mlflow`. MLFLOW_TRACKING_URI names a server; else files are written."""

from __future__ import annotations

import os
import pathlib
import re
import time
from collections.abc import Mapping
from typing import Any

from deeplab2_kmax import files
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.training.reporting.loggers.run_ids import keep_run_id, run_id
from deeplab2_kmax.training.reporting.loggers.run_logger import RunFacts

NAME = "mlflow"
_SERVER = "MLFLOW_TRACKING_URI"
# All that MLflow takes in names on every system.
_NOT_IN_NAMES = re.compile(r"[^\w\-./ ]")
_MOST_AT_ONCE = 1000


def require() -> None:
    """Raises UserError, which says what to install, where the package is missing."""
    try:
        import mlflow  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"trainer_options.loggers: mlflow needs MLflow ({error}): pip install 'deeplab2_kmax[mlflow]'"
        ) from error


class MlflowTracking:
    """See `RunLogger`. The experiment is named as ours; without a server, files go to `mlruns` beside the run."""

    _client: Any = None
    _run = ""

    def start(self, facts: RunFacts) -> str:
        # Newer versions refuse to write files unless told so; a server is for more than one reader.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        uri = os.environ.get(_SERVER) or _store_beside(facts.folder)
        self._client = client = MlflowClient(tracking_uri=uri)
        known = run_id(facts.folder, NAME, facts.mode)
        try:
            self._run = client.get_run(known).info.run_id if known else ""
        except MlflowException:
            self._run = ""  # Of another server, or deleted there.
        if self._run:
            client.set_terminated(self._run, "RUNNING")
        else:
            name = facts.name or "deeplab2_kmax"
            found = client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else client.create_experiment(name)
            self._run = client.create_run(experiment, run_name=facts.mode).info.run_id
            keep_run_id(facts.folder, NAME, facts.mode, self._run)
        client.log_text(self._run, facts.config, "config.textproto")
        return f"run {self._run} at {uri}"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_NOT_IN_NAMES.sub("_", name), value, now, step) for name, value in values.items()]
        for start in range(0, len(metrics), _MOST_AT_ONCE):
            self._client.log_batch(self._run, metrics=metrics[start : start + _MOST_AT_ONCE])

    def end(self, complete: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if complete else "KILLED")


def _store_beside(folder: str) -> str:
    """The URI of a folder that all runs beside this one share; in the working directory if the run is remote."""
    above = "." if files.is_remote(folder) else files.parent(files.absolute(folder))
    return pathlib.Path(above, "mlruns").absolute().as_uri()
