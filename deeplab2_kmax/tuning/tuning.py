"""Searches thresholds on one half of the images and measures what they gain on the other half."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deeplab2_kmax.errors import DataError, UserError
from deeplab2_kmax.evaluation.bootstrap import Difference, PairedBootstrap
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.tuning.raw_outputs import RawOutputs
from deeplab2_kmax.tuning.scoring import image_states, result_of
from deeplab2_kmax.tuning.search_space import Dimension, config_lines, search_space, with_values
from deeplab2_kmax.wording import counted, wrapped


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
        interval = f"95 % interval {100 * self.gain.low:+.2f} to {100 * self.gain.high:+.2f}"
        if not self.is_gain:
            lines.append(wrapped(f"no gain on the images that were held out ({interval}): leave the config as it is"))
        else:
            shown = "" if self.gain.is_shown else "; it holds zero, so more images are needed to be sure"
            lines += [
                wrapped(f"gain on the images that were held out: {100 * self.gain.value:+.2f} PQ ({interval}{shown})"),
                "\nfor the config:\n",
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
        UserError: Optuna is not installed, or there are no trials.
        DataError: there are fewer than two images.
    """
    optuna = require_optuna()
    if trials < 1:
        raise UserError(f"--trials: expected a number from 1, got {trials}")
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

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    # What is to be beaten.
    study.enqueue_trial({each.path: _nearest(each, each.value_in(config)) for each in space})
    study.optimize(quality, n_trials=trials)
    values = {each.path: study.best_params[each.path] for each in space}
    after = with_values(config, values)
    before_states, after_states = image_states(config, held_out), image_states(after, held_out)
    return Tuned(
        config,
        values,
        (len(tuned_on), len(held_out)),
        (result_of(config, image_states(config, tuned_on)).all.pq, study.best_value),
        (result_of(config, before_states).all.pq, result_of(config, after_states).all.pq),
        PairedBootstrap(before_states, after_states, seed=seed).of_mean(),
    )


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
