"""Runs loggers in a thread of their own: what they do takes no time of the run, and how they fail does not end it."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Mapping, Sequence

from deeplab2_kmax.terminal import say, say_warning
from deeplab2_kmax.training.reporting.loggers.run_logger import RunFacts, RunLogger
from deeplab2_kmax.wording import first_line

# What waits to be logged; a logger that falls further behind hangs, and gets no more.
_LONGEST_QUEUE = 1000
_SECONDS_TO_END = 30.0


class BackgroundLogger:
    """One logger in its thread; after the first failure it is told once, and left alone.

    Args:
        name: by which the config calls it.
        logger: what is run.
        facts: of the run.
        seconds_to_end: how long the end of the run waits for it.
    """

    def __init__(self, name: str, logger: RunLogger, facts: RunFacts, seconds_to_end: float = _SECONDS_TO_END) -> None:
        self._name = name
        self._logger = logger
        self._seconds_to_end = seconds_to_end
        self._alive = True
        self._waiting: queue.Queue[Callable[[], object] | None] = queue.Queue(_LONGEST_QUEUE)
        # A daemon: one that hangs does not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"logger {name}", daemon=True)
        self._put(lambda: say(f"{name}: {logger.start(facts)}"))
        self._thread.start()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Hands figures over and returns at once; those that are not finite are left out."""
        copied = dict(values)
        self._put(lambda: self._logger.scalars(step, _finite(copied)))

    def end(self, complete: bool) -> None:
        """Waits for what is left to be logged, but not for ever."""
        self._put(lambda: self._logger.end(complete))
        self._put(None)
        self._thread.join(self._seconds_to_end)
        if self._thread.is_alive() and self._alive:
            self._give_up(f"it has not ended within {self._seconds_to_end:.0f} s; what it had not sent yet is lost")

    def _put(self, job: Callable[[], object] | None) -> None:
        if not self._alive:
            return
        try:
            self._waiting.put_nowait(job)
        except queue.Full:
            self._give_up(f"it is {_LONGEST_QUEUE} entries behind")

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            try:
                job()
            # Libraries end threads of theirs by SystemExit, too; here it would end without a word.
            except BaseException as error:  # noqa: B036
                self._give_up(f"{type(error).__name__}: {first_line(error)}")
                return

    def _give_up(self, why: str) -> None:
        self._alive = False
        say_warning(f"logger {self._name} is given up, and the run goes on without it: {why}")


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    floats = {name: float(value) for name, value in values.items()}
    return {name: value for name, value in floats.items() if math.isfinite(value)}


class Loggers:
    """All loggers of a run; none of its methods raises anything.

    Args:
        loggers: may be empty.
    """

    def __init__(self, loggers: Sequence[BackgroundLogger] = ()) -> None:
        self._loggers = list(loggers)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs figures, which may be tensors of one number."""
        for logger in self._loggers:
            logger.scalars(step, values)

    def end(self, complete: bool) -> None:
        """Ends all loggers."""
        for logger in self._loggers:
            logger.end(complete)
        self._loggers = []
