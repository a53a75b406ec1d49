"""The lines that a run prints on the terminal or to its log file while it trains."""

from __future__ import annotations

import contextlib
import datetime
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orbit.controller
import tensorflow as tf

from deeplab2_kmax.losses.total import TOTAL
from deeplab2_kmax.terminal import ERASE_LINE, say, say_note
from deeplab2_kmax.training.reporting.step_clock import LoopTimes, StepClock
from deeplab2_kmax.wording import WIDTH, counted, some_of

_LOSS_PREFIX = "losses/train_"
SKIPPED_STEPS = "skipped_steps"
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
# Columns of a line in a log file.
_LOG_WIDTH = WIDTH
_INDENT = "    "


@contextlib.contextmanager
def quiet_orbit() -> Iterator[None]:
    """Silences the lines that orbit's controller prints; this module says the same, shorter."""
    original = orbit.controller._log
    orbit.controller._log = lambda message: None
    try:
        yield
    finally:
        orbit.controller._log = original


def duration(seconds: float) -> str:
    """Seconds as people write them: "42 s", "3 min 20 s", "5 h 12 min", "2 d 3 h"."""
    seconds = max(0, round(seconds))
    for unit, name, smaller_unit, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit:
            rest = seconds % unit // smaller_unit
            return f"{seconds // unit} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"


def rate(steps_per_second: float) -> str:
    """Speed with three significant digits, e.g. "2.12 step/s"; of slow steps the seconds per step, e.g. "4 s/step"."""
    if steps_per_second >= 0.5:
        return f"{_three_digits(steps_per_second)} step/s"
    return f"{1 / max(steps_per_second, 1e-9):.3g} s/step"


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def in_columns(parts: Sequence[str], width: int, separator: str = " | ", indent: str = _INDENT) -> str:
    """The parts in one line; if that is longer than `width`, in several lines, the later ones indented."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}{separator}{part}" if lines[-1].strip() else f"{lines[-1]}{part}"
        if len(longer) <= width or not lines[-1].strip():
            lines[-1] = longer
        else:
            lines.append(indent + part)
    return "\n".join(lines)


def main_terms(names: Iterable[str]) -> list[str]:
    """The loss terms to be printed: those of the final output, without auxiliary ones and the total."""
    return [name for name in names if name != TOTAL and not name.startswith("aux_")]


class Progress:
    """Prints a line or two for each training loop, and within long loops now and then the current step.

    Args:
        global_step: int64 scalar variable that counts steps.
        total_steps: the step at which training ends.
        clock: measures the times; this object tells it of steps and loops.
    """

    def __init__(self, global_step: tf.Variable, total_steps: int, clock: StepClock | None = None):
        self.clock = clock or StepClock()
        self._global_step = global_step
        self._total = total_steps
        self._terminal = sys.stdout.isatty()
        self._digits = len(str(total_steps))
        self._bottleneck_told = False
        self.start()

    def start(self) -> None:
        """Starts the clock; call it before each series of loops, so that evaluations in between do not count."""
        self.clock.start()
        self._begin_loop()

    def pause(self) -> None:
        """Stops the clock; call it after each series of loops, so that the checkpoint at its end counts."""
        self.clock.pause()

    def _begin_loop(self) -> None:
        self._step = int(self._global_step.numpy())
        self._steps = 0
        self._shown = time.monotonic()

    def on_traced(self, seconds: float, without_gradient: Sequence[str]) -> None:
        """Says how long tracing took, and names weights that are not trained. The speed is counted from here on.

        Args:
            seconds: spent on tracing.
            without_gradient: names of the trainable variables that the loss does not depend on.
        """
        say(f"training graph built in {duration(seconds)}")
        if without_gradient:
            named = some_of(without_gradient, _NAMED_AT_MOST)
            weights = counted(len(without_gradient), "weight")
            have, are = ("has", "is") if len(without_gradient) == 1 else ("have", "are")
            say_note(f"{weights} {have} no part in the loss and {are} not trained: {named}")
        self.clock.restart()
        self._begin_loop()

    def __call__(self, logs: Mapping[str, tf.Tensor]) -> None:
        """An action of orbit's, called with the logs of a loop that has just ended: prints its lines."""
        step = int(self._global_step.numpy())
        times = self.clock.end_loop(step - self._step)
        say(self._lines(step, times, logs))
        bottleneck = times.bottleneck()
        # Once for as long as it lasts.
        if bottleneck and not self._bottleneck_told:
            say_note(bottleneck)
        self._bottleneck_told = bool(bottleneck)
        self._begin_loop()

    def on_step(self) -> None:
        """Counts a step; prints step and speed if nothing has been printed for a while."""
        self.clock.on_step()
        self._steps += 1
        now = time.monotonic()
        if now - self._shown < (_PULSE_TERMINAL if self._terminal else _PULSE_LOG):
            return
        times = self.clock.so_far()
        if not times.steps:
            return
        self._shown = now
        step = self._step + self._steps
        text = f"{self._where(step)} | {rate(times.steps_per_second)} | {self._left(step, times)}"
        if self._terminal:
            # The next line overwrites it, which works only if it is shorter than the terminal is wide.
            print(f"{ERASE_LINE}{text[: self._width()]}", end="", flush=True)
        else:
            say(text)

    def _lines(self, step: int, times: LoopTimes, logs: Mapping[str, tf.Tensor]) -> str:
        """All in one line if there is room, else the loss terms in a second one.

        There are three variants of the rest, from long to short; the first one that fits is taken. Where none does, the
        first line has what people look for first, and all else follows below.
        """
        width = self._width()
        losses = {name[len(_LOSS_PREFIX) :]: v for name, v in logs.items() if name.startswith(_LOSS_PREFIX)}
        total = f"loss {float(losses[TOTAL]):.4g}"
        terms = [f"{_short(name)} {float(losses[name]):.4g}" for name in main_terms(losses)]
        # The full variant first; the others leave out the time of day, then shorten the words about input.
        variants = [self._parts(step, times, logs, **more) for more in ({"until": True}, {}, {"brief": True})]
        for parts in variants[:2]:
            parts = [parts[0], f"{total} ({', '.join(terms)})" if terms else total, *parts[1:]]
            if len(line := " | ".join(parts)) <= width:
                return line
        fitting = [parts for parts in variants if len(" | ".join([total, *parts])) <= width]
        if fitting:
            where, *rest = fitting[0]
            first, below = [where, total, *rest], terms
        else:
            where, learning_rate, speed, *rest, left = variants[1]
            first, below = [where, total, learning_rate, speed, left], [*rest, *terms]
        lines = [in_columns(first, width)]
        if below:
            lines.append(_INDENT + in_columns(below, width - len(_INDENT)))
        return "\n".join(lines)

    def _parts(
        self, step: int, times: LoopTimes, logs: Mapping[str, Any], *, until: bool = False, brief: bool = False
    ) -> list[str]:
        parts = [self._where(step), f"lr {float(logs['learning_rate']):.3g}", rate(times.steps_per_second)]
        if times.images_per_second is not None:
            # Comparable between runs with different batch sizes, which steps are not.
            parts.append(f"{_three_digits(times.images_per_second)} images/s")
        if times.waiting_share is not None:
            share = f"{100 * times.waiting_share:.0f} %"
            parts.append(f"input {share}" if brief else f"{share} waiting for input")
        if skipped := int(logs.get(SKIPPED_STEPS, 0)):
            parts.append(f"{counted(skipped, 'step')} skipped")
        return [*parts, self._left(step, times, until)]

    def _where(self, step: int) -> str:
        return f"step {step:>{self._digits}}/{self._total}"

    def _left(self, step: int, times: LoopTimes, until: bool = False) -> str:
        left = (self._total - step) / max(times.steps_per_second, 1e-9)
        end = datetime.datetime.now() + datetime.timedelta(seconds=left)
        return f"{duration(left)} left" + (f" (until {end:%a %H:%M})" if until and left > 3600 else "")

    def _width(self) -> int:
        return shutil.get_terminal_size().columns - 1 if self._terminal else _LOG_WIDTH


def _short(name: str) -> str:
    return _SHORT.get(name, name)
