"""Weights & Biases (https://wandb.ai): the extra `wandb`. WANDB_MODE=offline keeps everything on this machine."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import Any

from deeplab2_kmax import files
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.training.reporting.loggers.run_ids import keep_run_id, run_id
from deeplab2_kmax.training.reporting.loggers.run_logger import RunFacts

NAME = "wandb"
_STEP = "step"
_PROJECT = "deeplab2_kmax"
_SECONDS_TO_LOG_IN = 15


def require() -> None:
    """Raises UserError, which says what to install, where the package is missing."""
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"trainer_options.loggers: wandb needs Weights & Biases ({error}): pip install 'deeplab2_kmax[wandb]'"
        ) from error


class WeightsAndBiases:
    """See `RunLogger`. Project, entity and mode are those of its environment variables, such as WANDB_PROJECT."""

    _run: Any = None

    def start(self, facts: RunFacts) -> str:
        import wandb

        known = run_id(facts.folder, NAME, facts.mode)
        identity = known or uuid.uuid4().hex[:12]
        # Who is not logged in is asked for a key in vain, as nobody sees this thread: not for long.
        settings = wandb.Settings(silent=True, console="off", login_timeout=_SECONDS_TO_LOG_IN)
        self._run = wandb.init(
            id=identity,
            resume="allow" if known else None,
            # What the environment says comes first.
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            name=os.environ.get("WANDB_NAME") or facts.name or None,
            dir=os.environ.get("WANDB_DIR") or (None if files.is_remote(facts.folder) else facts.folder),
            group=facts.name,
            job_type=facts.mode,
            config={"config": facts.config},
            settings=settings,
        )
        keep_run_id(facts.folder, NAME, facts.mode, identity)
        # W&B drops figures of earlier steps than the last one, as an evaluation may have; unless the step is a figure.
        self._run.define_metric(_STEP)
        self._run.define_metric("*", step_metric=_STEP)
        return f"offline in {self._run.dir}" if self._run.offline else str(self._run.url)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({_STEP: step, **values})

    def end(self, complete: bool) -> None:
        self._run.finish(exit_code=0 if complete else 1)
