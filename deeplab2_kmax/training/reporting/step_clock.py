"""How much time training spends waiting for input, in steps, and between loops."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import TypeVar

# A cause that takes this share of the time is worth a sentence; shorter loops than these are no basis for one.
_MUCH = 0.3
_STEPS_TO_JUDGE = 10
_SECONDS_TO_JUDGE = 10.0
_SHORTEST = 1e-9  # Seconds; so that nothing is divided by zero.

_Batch = TypeVar("_Batch")


@dataclasses.dataclass(frozen=True)
class LoopTimes:
    """The times of one loop of training and of the break before it.

    Attributes:
        steps: how many steps the loop had.
        seconds: the time from the end of the loop before to the end of this one.
        images_per_step: size of the global batch; None if it is not known.
        waiting: seconds spent waiting for batches; None if batches are taken inside the graph.
        between: seconds spent between the two loops on checkpoints, summaries and the like; None if `waiting` is.
    """

    steps: int
    seconds: float
    images_per_step: int | None = None
    waiting: float | None = None
    between: float | None = None

    @property
    def steps_per_second(self) -> float:
        """Steps by `seconds`."""
        return self.steps / max(self.seconds, _SHORTEST)

    @property
    def images_per_second(self) -> float | None:
        """Images by `seconds`; None if their number is not known."""
        return None if self.images_per_step is None else self.images_per_step * self.steps_per_second

    @property
    def waiting_share(self) -> float | None:
        """Share of the time spent waiting for input, in 0 .. 1; None if batches are taken inside the graph."""
        return None if self.waiting is None else self.waiting / max(self.seconds, _SHORTEST)

    def as_scalars(self) -> dict[str, float]:
        """TensorBoard's scalars: `steps_per_second`, `images_per_second`, and `seconds_per_step/...` for each part."""
        scalars = {"steps_per_second": self.steps_per_second}
        if self.images_per_second is not None:
            scalars["images_per_second"] = self.images_per_second
        if self.waiting is not None and self.between is not None:
            parts = {"input": self.waiting, "between_loops": self.between}
            parts["step"] = self.seconds - sum(parts.values())
            scalars.update({f"seconds_per_step/{name}": seconds / self.steps for name, seconds in parts.items()})
        return scalars

    def bottleneck(self) -> str | None:
        """What slows training down besides its steps, in words; None if nothing much does."""
        if self.waiting is None or self.between is None:
            return None
        if self.steps < _STEPS_TO_JUDGE or self.seconds < _SECONDS_TO_JUDGE:
            return None
        share = self.waiting / self.seconds
        if share >= _MUCH:
            return f"input-bound: {100 * share:.0f} % of the time waiting for data; see deeplab2-kmax benchmark input"
        share = self.between / self.seconds
        if share >= _MUCH:
            return (
                f"{100 * share:.0f} % of the time goes to checkpoints and summaries between loops;"
                " a larger steps_per_loop or save_checkpoints_steps saves some of it"
            )
        return None


class StepClock:
    """Measures on the host, by looking at the clock before and after a batch is taken; it delays nothing.

    If a device still computes while the host waits for the next batch, that counts as waiting all the same: it is time
    in which the next step could not be handed to the device.

    Args:
        images_per_step: size of the global batch; None if it is not known.

    Attributes:
        last: the times of the loop that ended last; None before.
    """

    def __init__(self, images_per_step: int | None = None):
        self._images_per_step = images_per_step
        self._first_step: float | None = None
        self._between = 0.0
        self.last: LoopTimes | None = None
        self.start()

    def start(self) -> None:
        """Starts measuring; the time since `pause` does not count."""
        self._begin(carried=self._between)

    def pause(self) -> None:
        """Stops measuring, after a loop; the time since the end of the loop counts as time between loops."""
        if self._first_batch_pending:
            self._between += time.monotonic() - self._mark

    def restart(self) -> None:
        """Forgets what has been measured of this loop."""
        self._begin(carried=0.0)

    def _begin(self, carried: float) -> None:
        self._mark = time.monotonic()
        self._carried = self._between = carried
        self._first_batch_pending = True
        self._waiting, self._fetched, self._steps = 0.0, 0, 0

    def fetch(self, iterator: Iterator[_Batch]) -> _Batch:
        """`next(iterator)`, timed."""
        before = time.monotonic()
        if self._first_batch_pending:
            self._between += before - self._mark
            self._first_batch_pending = False
        batch = next(iterator)
        self._waiting += time.monotonic() - before
        self._fetched += 1
        return batch

    def on_step(self) -> None:
        """Counts a step."""
        # Not the very first, in which TensorFlow optimizes the graph: it says nothing about the others.
        if self._first_step is None:
            self._first_step = time.monotonic() - self._mark
            self._begin(carried=0.0)
            self._first_batch_pending = False
        else:
            self._steps += 1

    def so_far(self) -> LoopTimes:
        """Steps and seconds of the loop that is going on, without the break before it."""
        return LoopTimes(self._steps, self._seconds() - self._between, self._images_per_step)

    def _seconds(self) -> float:
        return self._carried + time.monotonic() - self._mark

    def end_loop(self, steps: int) -> LoopTimes:
        """Ends a loop; returns its times and keeps them as `last`.

        Args:
            steps: how many steps it had, for loops inside the graph, which do not call `on_step`.
        """
        times = LoopTimes(self._steps, self._seconds(), self._images_per_step)
        # With `_fetched` at 0, either the steps are made inside the graph, or the loop had only the very first step.
        if self._fetched:
            times = dataclasses.replace(times, waiting=self._waiting, between=self._between)
        elif self._first_step is None:
            times = dataclasses.replace(times, steps=steps)
        else:
            times = dataclasses.replace(times, steps=1, seconds=self._first_step)
        self.last = times
        self._begin(carried=0.0)
        return times
