"""The loggers by the names that configs call them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from deeplab2_kmax.training.reporting.loggers import mlflow_tracking, weights_and_biases
from deeplab2_kmax.training.reporting.loggers.background import BackgroundLogger, Loggers
from deeplab2_kmax.training.reporting.loggers.run_logger import RunFacts, RunLogger

# Name in `config.checks.LOGGERS` -> what refuses a missing package, and what makes the logger.
_KINDS: dict[str, tuple[Callable[[], None], Callable[[], RunLogger]]] = {
    weights_and_biases.NAME: (weights_and_biases.require, weights_and_biases.WeightsAndBiases),
    mlflow_tracking.NAME: (mlflow_tracking.require, mlflow_tracking.MlflowTracking),
}


def require_loggers(names: Iterable[str]) -> None:
    """Raises UserError, which says what to install, where a package is missing that one of these loggers needs."""
    for name in dict.fromkeys(names):
        _KINDS[name][0]()


def build_loggers(names: Iterable[str], facts: RunFacts) -> Loggers:
    """Starts the loggers of a run, each in a thread of its own; without names, none."""
    return Loggers([BackgroundLogger(name, _KINDS[name][1](), facts) for name in dict.fromkeys(names)])
