"""What a run says on the terminal or in its log file."""

from __future__ import annotations

import contextlib
import datetime
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import orbit.controller
import tensorflow as tf

from deeplab2_kmax.trainer.step import TOTAL_LOSS

_LOSS_PREFIX = "losses/train_"
_SHORT = {
    "semantic_loss": "semantic",
    "pq_style_loss_class_term": "class",
    "pq_style_loss_mask_dice_term": "dice",
    "mask_id_cross_entropy_loss": "mask id",
    "mask_approximation_loss": "reference masks",
    "instance_discrimination_loss": "discrimination",
}
_NAMED_AT_MOST = 5
# Seconds between signs of life while a loop runs.
_PULSE_TERMINAL = 1.0
_PULSE_LOG = 60.0


def say(text: str) -> None:
    """Prints a line at once, also where stdout is a pipe or a file."""
    print(text, flush=True)


@contextlib.contextmanager
def quiet_orbit() -> Iterator[None]:
    """Silences the lines orbit's controller prints for itself; this module says the same, shorter."""
    original = orbit.controller._log
    orbit.controller._log = lambda message: None
    try:
        yield
    finally:
        orbit.controller._log = original


def duration(seconds: float) -> str:
    """Seconds as people write them: 42 s, 3 min 20 s, 5 h 12 min, 2 d 3 h."""
    seconds = max(0, round(seconds))
    for unit, name, smaller_unit, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit:
            rest = seconds % unit // smaller_unit
            return f"{seconds // unit} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"


def rate(steps_per_second: float) -> str:
    """Speed with three significant digits; slow steps as seconds a step."""
    if steps_per_second >= 0.5:
        return f"{steps_per_second:.3g} step/s"
    return f"{1 / max(steps_per_second, 1e-9):.3g} s/step"


def main_terms(names) -> list[str]:
    """The loss terms worth a place on the line: those of the final output, without auxiliary ones and the total."""
    return [name for name in names if name != TOTAL_LOSS and not name.startswith("aux_")]


class Progress:
    """Prints one line a training loop, and signs of life within it.

    Args:
        global_step: the variable that counts steps.
        total_steps: the step at which training ends.
    """

    def __init__(self, global_step: tf.Variable, total_steps: int):
        self._global_step = global_step
        self._total = total_steps
        self._terminal = sys.stdout.isatty()
        self._width = len(str(total_steps))
        self._first_step: float | None = None
        self.start()

    def start(self) -> None:
        """Starts the clock; call it before each block of loops, so that evaluations in between do not count."""
        self._step = int(self._global_step.numpy())
        self._count = 0
        self._time = self._shown = time.monotonic()

    def on_traced(self, seconds: float, without_gradient: Sequence[str]) -> None:
        """Says how long tracing took, and keeps it out of the speed; names weights that are not trained."""
        say(f"training graph built in {duration(seconds)}")
        if without_gradient:
            more = ", ..." if len(without_gradient) > _NAMED_AT_MOST else ""
            named = ", ".join(without_gradient[:_NAMED_AT_MOST]) + more
            say(f"{len(without_gradient)} weights have no part in the loss and are not trained: {named}")
        self.start()

    def __call__(self, logs: Mapping[str, tf.Tensor]) -> None:
        """orbit's train action: prints the line of the loop that has just ended."""
        step = int(self._global_step.numpy())
        speed = self._speed(step)
        losses = {name[len(_LOSS_PREFIX) :]: v for name, v in logs.items() if name.startswith(_LOSS_PREFIX)}
        terms = ", ".join(f"{_short(name)} {float(losses[name]):.4g}" for name in main_terms(losses))
        parts = [
            self._where(step),
            rate(speed),
            f"loss {float(losses[TOTAL_LOSS]):.4g}" + (f" ({terms})" if terms else ""),
            f"lr {float(logs['learning_rate']):.3g}",
            self._left(step, speed),
        ]
        self._print(" | ".join(parts), final=True)
        self.start()

    def on_step(self) -> None:
        """Counts a step, and within long loops shows step and speed now and then."""
        now = time.monotonic()
        if self._first_step is None:
            # TensorFlow optimizes the graph in the first step, which says nothing about the others.
            self._first_step = now - self._time
            self._step, self._time = self._step + 1, now
            return
        self._count += 1
        if now - self._shown < (_PULSE_TERMINAL if self._terminal else _PULSE_LOG):
            return
        self._shown = now
        step = self._step + self._count
        speed = self._speed(step)
        self._print(f"{self._where(step)} | {rate(speed)} | {self._left(step, speed)}", final=False)

    def _speed(self, step: int) -> float:
        if step == self._step:
            return 1 / max(self._first_step or 0, 1e-9)
        return (step - self._step) / max(time.monotonic() - self._time, 1e-9)

    def _where(self, step: int) -> str:
        return f"step {step:>{self._width}}/{self._total}"

    def _left(self, step: int, speed: float) -> str:
        left = (self._total - step) / max(speed, 1e-9)
        end = datetime.datetime.now() + datetime.timedelta(seconds=left)
        return f"{duration(left)} left" + (f" (until {end:%a %H:%M})" if left > 3600 else "")

    def _print(self, text: str, final: bool) -> None:
        if self._terminal:
            # A sign of life is overwritten by whatever comes next.
            print(f"\r\x1b[K{text}", end="\n" if final else "", flush=True)
        else:
            say(text)


def _short(name: str) -> str:
    return _SHORT.get(name, name)
