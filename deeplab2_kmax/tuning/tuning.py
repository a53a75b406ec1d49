"""Searches thresholds on one half of the images and measures what they gain on the other half."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deeplab2_kmax.errors import DataError, UserError
from deeplab2_kmax.evaluation.bootstrap import LEAST_IMAGES, Difference, PairedBootstrap
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.stop_signals import StopSignals
from deeplab2_kmax.tuning.raw_outputs import RawOutputs
from deeplab2_kmax.tuning.scoring import image_states, result_of
from deeplab2_kmax.tuning.search_space import Dimension, config_lines, override_flags, search_space, with_values
from deeplab2_kmax.wording import counted, wrapped

# Optuna's generator takes no larger seed.
_LARGEST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The result of a search.

    Attributes:
        config: the experiment as it was.
        values: the values that are best on the tuned half, by `Dimension.path`.
        images: the numbers of images that were tuned on and held out.
        tuned: PQ on the half that was tuned on, 0..1, before and after.
        held_out: PQ on the other half, before and after.
        gain: the difference on the other half, with its interval.
    """

    config: config_pb2.ExperimentOptions
    values: dict[str, Any]
    images: tuple[int, int]
    tuned: tuple[float, float]
    held_out: tuple[float, float]
    gain: Difference

    @property
    def is_gain(self) -> bool:
        """Whether the images that were held out are segmented better than before."""
        return self.gain.value > 0

    def report(self) -> str:
        """What to tell the user, with the lines to paste if they help."""
        lines = [f"{'PQ':<26}{'before':>8}{'after':>8}", "-" * 42]
        for name, number, qualities in zip(("tuned on", "held out"), self.images, (self.tuned, self.held_out)):
            cells = "".join(f"{100 * quality:>8.2f}" for quality in qualities)
            lines.append(f"{f'{name}, ' + counted(number, 'image'):<26}{cells}")
        lines.append("")
        has_interval = math.isfinite(self.gain.low)
        interval = f"95 % interval {100 * self.gain.low:+.2f} to {100 * self.gain.high:+.2f}"
        if not has_interval:
            interval = f"no interval, as fewer than {LEAST_IMAGES} images can show nothing; tune on more"
        if not self.is_gain:
            lines.append(wrapped(f"no gain on the images that were held out ({interval}): leave the config as it is"))
        else:
            shown = (
                ""
                if self.gain.is_shown or not has_interval
                else "; it holds zero, so more images are needed to be sure"
            )
            lines += [
                wrapped(f"gain on the images that were held out: {100 * self.gain.value:+.2f} PQ ({interval}{shown})"),
                "\nas flags:\n",
                override_flags(self.values),
                "\nor merged into evaluator_options of the config:\n",
                config_lines(self.config, self.values),
            ]
        return "\n".join(lines)


def tune(
    config: config_pb2.ExperimentOptions,
    images: Sequence[RawOutputs],
    trials: int = 100,
    seed: int = 0,
    say: Callable[[str], object] = print,
) -> Tuned:
    """Searches the thresholds with the highest PQ.

    Args:
        config: the experiment, with the thresholds to start from.
        images: raw outputs; a random half of them is tuned on.
        trials: how many sets of thresholds are tried, the config's own among them.
        seed: chooses the halves and what is tried.
        say: prints a line for each better set.

    Raises:
        UserError: Optuna is not installed, there are no trials, or the seed is out of range.
        KeyboardInterrupt, Terminated: a signal came; what is best until then has been measured and told.
        DataError: there are fewer than two images.
    """
    optuna = require_optuna()
    require_search(trials, seed)
    if len(images) < 2:
        raise DataError(
            f"expected at least two images, one to tune on and one to hold out; got {len(images)}. Tune on more"
        )
    order = np.random.default_rng(seed).permutation(len(images)).tolist()
    tuned_on = [images[i] for i in sorted(order[: len(order) // 2])]
    held_out = [images[i] for i in sorted(order[len(order) // 2 :])]
    space = search_space(config)
    start, best = time.monotonic(), 0.0

    def quality(trial: Any) -> float:
        nonlocal best
        tried = with_values(config, {each.path: _suggest(trial, each) for each in space})
        pq = result_of(config, image_states(tried, tuned_on)).all.pq
        if pq > best or trial.number == 0:
            best = pq
            say(f"trial {trial.number + 1} of {trials}: PQ {100 * pq:.2f} ({time.monotonic() - start:.0f} s)")
        return pq

    def measured() -> Tuned:
        values = {each.path: study.best_params[each.path] for each in space}
        before_states, after_states = (image_states(each, held_out) for each in (config, with_values(config, values)))
        return Tuned(
            config,
            values,
            (len(tuned_on), len(held_out)),
            (result_of(config, image_states(config, tuned_on)).all.pq, study.best_value),
            (result_of(config, before_states).all.pq, result_of(config, after_states).all.pq),
            PairedBootstrap(before_states, after_states, seed=seed).of_mean(),
        )

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    # What is to be beaten.
    study.enqueue_trial({each.path: _nearest(each, each.value_in(config)) for each in space})
    # A signal waits for the end of a trial, so that what has been found is not lost; it is raised at the end.
    with StopSignals() as stop, stop.held():
        study.optimize(quality, n_trials=trials, callbacks=[lambda *_: study.stop() if stop.has_come else None])
        found = measured()
        if stop.has_come:
            say(
                f"\nthe best of {counted(len(study.trials), 'trial')}, when the search was stopped:\n\n{found.report()}"
            )
    return found


def require_search(trials: int, seed: int) -> None:
    """Raises UserError where the number of trials or the seed is none that `tune` takes."""
    if trials < 1:
        raise UserError(f"--trials: expected a number from 1, got {trials}")
    if not 0 <= seed <= _LARGEST_SEED:
        raise UserError(f"--seed: expected a number from 0 to {_LARGEST_SEED}, got {seed}")


def require_optuna() -> Any:
    """The package Optuna; raises UserError, which says how to install it, where it is missing."""
    try:
        import optuna
    except ImportError as error:
        raise UserError(f"tune-postprocessing: needs Optuna ({error}): pip install 'deeplab2_kmax[tune]'") from error
    return optuna


def _suggest(trial: Any, dimension: Dimension) -> Any:
    suggest = trial.suggest_int if dimension.is_whole else trial.suggest_float
    value = suggest(dimension.path, dimension.low, dimension.high, step=dimension.step)
    return value if dimension.is_whole else round(value, 6)


def _nearest(dimension: Dimension, value: float) -> Any:
    """The value that can be tried that comes nearest to a config's."""
    steps = round((min(max(value, dimension.low), dimension.high) - dimension.low) / dimension.step)
    nearest = dimension.low + steps * dimension.step
    return int(nearest) if dimension.is_whole else round(nearest, 6)
