"""Where the time of training goes: waiting for input, steps, and what happens between loops."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

# Shares of the time from which on a cause is worth a sentence, and the steps and seconds it takes to tell.
_MUCH = 0.3
_STEPS_TO_JUDGE = 10
_SECONDS_TO_JUDGE = 10.0


@dataclasses.dataclass(frozen=True)
class LoopTimes:
    """The times of one loop of training, and of what happened since the loop before it.

    Attributes:
        steps: how many were made.
        seconds: all of the time.
        images_per_step: in the global batch; None where it is not known.
        waiting: seconds spent waiting for batches; None where batches are taken inside the graph.
        between: seconds spent between loops on checkpoints, summaries and the like; None where `waiting` is.
    """

    steps: int
    seconds: float
    images_per_step: int | None = None
    waiting: float | None = None
    between: float | None = None

    @property
    def steps_per_second(self) -> float:
        """Steps by all of the time."""
        return self.steps / max(self.seconds, 1e-9)

    @property
    def images_per_second(self) -> float | None:
        """Images by all of the time."""
        return None if self.images_per_step is None else self.images_per_step * self.steps_per_second

    @property
    def waiting_share(self) -> float | None:
        """Part of the time spent waiting for input, 0..1."""
        return None if self.waiting is None else self.waiting / max(self.seconds, 1e-9)

    def as_scalars(self) -> dict[str, float]:
        """`steps_per_second`, `images_per_second`, and seconds a step under `seconds_per_step/`."""
        scalars = {"steps_per_second": self.steps_per_second}
        if self.images_per_second is not None:
            scalars["images_per_second"] = self.images_per_second
        if self.waiting is not None:
            parts = {"input": self.waiting, "between_loops": self.between}
            parts["step"] = self.seconds - sum(parts.values())
            scalars.update({f"seconds_per_step/{name}": seconds / self.steps for name, seconds in parts.items()})
        return scalars

    def bottleneck(self) -> str | None:
        """What slows training down other than its steps, in words; None where nothing much does."""
        if self.waiting is None or self.steps < _STEPS_TO_JUDGE or self.seconds < _SECONDS_TO_JUDGE:
            return None
        if self.waiting_share >= _MUCH:
            return (
                f"input-bound: {100 * self.waiting_share:.0f} % of the time waiting for data;"
                " see deeplab2-kmax benchmark input"
            )
        share = self.between / self.seconds
        if share >= _MUCH:
            return (
                f"{100 * share:.0f} % of the time goes to checkpoints and summaries between loops;"
                " a larger steps_per_loop or save_checkpoints_steps saves some of it"
            )
        return None


class StepClock:
    """Measures on the host, by looking at the clock before and after a batch is taken; nothing waits for it.

    Where a device computes while the host takes the next batch, waiting counts all the same: it is the time for which
    the next step could not be given out.

    Args:
        images_per_step: in the global batch; None where it is not known.
    """

    def __init__(self, images_per_step: int | None = None):
        self._images_per_step = images_per_step
        self._first_step: float | None = None
        self._between = 0.0
        self.last: LoopTimes | None = None
        self.start()

    def start(self) -> None:
        """Starts counting; what has passed since `pause` does not count."""
        self._begin(carried=self._between)

    def pause(self) -> None:
        """Stops counting, after a loop: what has passed since its end counts, as time between loops."""
        if self._first_batch_pending:
            self._between += time.monotonic() - self._mark

    def restart(self) -> None:
        """Forgets what has been counted of this loop."""
        self._begin(carried=0.0)

    def _begin(self, carried: float) -> None:
        self._mark = time.monotonic()
        self._carried = self._between = carried
        self._first_batch_pending = True
        self._waiting, self._fetched, self._steps = 0.0, 0, 0

    def fetch(self, iterator: Iterator):
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
        """Counts a step. The very first, in which TensorFlow optimizes the graph, says nothing about the others."""
        if self._first_step is None:
            self._first_step = time.monotonic() - self._mark
            self._begin(carried=0.0)
            self._first_batch_pending = False
        else:
            self._steps += 1

    def so_far(self) -> LoopTimes:
        """Steps and seconds of the loop that is going on, without what happened before it."""
        return LoopTimes(self._steps, self._seconds() - self._between, self._images_per_step)

    def _seconds(self) -> float:
        return self._carried + time.monotonic() - self._mark

    def end_loop(self, steps: int) -> LoopTimes:
        """The times of the loop that ends now, also kept as `last`.

        Args:
            steps: how many it had; needed where `on_step` is not called.
        """
        times = LoopTimes(self._steps, self._seconds(), self._images_per_step)
        if self._fetched:
            times = dataclasses.replace(times, waiting=self._waiting, between=self._between)
        elif self._first_step is None:
            times = dataclasses.replace(times, steps=steps)
        else:
            times = dataclasses.replace(times, steps=1, seconds=self._first_step)
        self.last = times
        self._begin(carried=0.0)
        return times
