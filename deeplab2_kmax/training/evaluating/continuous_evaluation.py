"""Evaluates the checkpoints of a run that another process trains, each once, as they appear."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping

import tensorflow as tf

from deeplab2_kmax.checkpoints.files import link_checkpoint
from deeplab2_kmax.checkpoints.integrity import fault_of
from deeplab2_kmax.terminal import say
from deeplab2_kmax.training.checkpoints.checkpointing import step_of
from deeplab2_kmax.training.evaluating.evaluation_results import EvaluationResults
from deeplab2_kmax.training.reporting.progress import duration
from deeplab2_kmax.training.run.run_folder import only_holder

_POLL_SECONDS = 1.0
# Within the run's folder.
_HELD = os.path.join("eval", "held")
_LOCK = os.path.join("eval", ".lock")


def evaluate_continuously(
    folder: str,
    evaluate: Callable[[str], Mapping[str, float]],
    results: EvaluationResults,
    last_step: int,
    timeout: float | None,
) -> Mapping[str, float]:
    """Evaluates each checkpoint in `folder` that has no result yet, the oldest first.

    Ends with the checkpoint of `last_step`, or when no new one comes for `timeout` seconds. The trainer may delete
    checkpoints meanwhile: what is being evaluated is held by links of its own.

    Args:
        folder: the run's folder.
        evaluate: restores the checkpoint at this prefix; returns its figures.
        results: takes the figures, and knows those of earlier processes.
        last_step: the step at which training ends.
        timeout: seconds to wait for another checkpoint; None: for ever.

    Returns:
        The figures of the last checkpoint; empty where there was none.

    Raises:
        ConfigError: another process evaluates the folder's checkpoints.
        CheckpointError: a checkpoint does not fit the experiment, or a result cannot be written.
    """
    say(f"waiting for checkpoints in {os.path.abspath(folder)}")
    figures: Mapping[str, float] = {}
    new = known = 0
    with _alone_in(folder):
        for path in _new_checkpoints(folder, timeout):
            with _held(path, os.path.join(folder, _HELD)) as held:
                fault = "deleted before it could be read" if held is None else fault_of(held)
                if fault is not None:
                    say(f"{path} skipped: {fault}")
                    continue
                step, earlier = step_of(held), results.figures_of(held)
                if earlier is None:
                    say(f"evaluating {path} at step {step}")
                    figures, new = evaluate(held), new + 1
                    results.add(held, step, figures)
                else:
                    say(f"{path} has its result already")
                    figures, known = earlier, known + 1
            if step >= last_step:
                say(f"step {step} is the last one")
                break
        else:
            say(f"no new checkpoint within {duration(timeout)}")
    say(
        f"{new} checkpoint(s) evaluated"
        + (f", {known} had their results" if known else "")
        + f"; best: {results.best_in_words()}"
    )
    return figures


@contextlib.contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    if "://" in folder:
        yield
        return
    lock = os.path.join(folder, _LOCK)
    os.makedirs(os.path.dirname(lock), exist_ok=True)
    place = os.path.abspath(folder)
    with only_holder(lock, lambda other: f"model_dir: {other} evaluates the checkpoints of {place} already"):
        yield


@contextlib.contextmanager
def _held(path: str, folder: str) -> Iterator[str | None]:
    """The checkpoint under another prefix, where no one else deletes it; None where it is gone already."""
    # A process that was killed leaves what it held.
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)
    try:
        held = link_checkpoint(path, folder)
    except FileNotFoundError:
        held = None
    try:
        yield held
    finally:
        if held:
            tf.io.gfile.rmtree(folder)


def _new_checkpoints(folder: str, timeout: float | None) -> Iterator[str]:
    """Yields each checkpoint once, the oldest first, until none comes for `timeout` seconds."""
    seen: set[tuple[str, float]] = set()
    waiting_since = time.monotonic()
    while True:
        fresh = [item for item in _listed(folder) if item not in seen]
        if fresh:
            seen.add(fresh[0])
            yield fresh[0][0]
            waiting_since = time.monotonic()
        elif timeout is not None and time.monotonic() - waiting_since >= timeout:
            return
        else:
            time.sleep(_POLL_SECONDS)


def _listed(folder: str) -> list[tuple[str, float]]:
    """(prefix, time of writing) of the checkpoints that the folder's state file lists, the oldest first.

    The time tells one that was written anew under the same name.
    """
    state = tf.train.get_checkpoint_state(folder)
    if state is None:
        return []
    paths, times = state.all_model_checkpoint_paths, state.all_model_checkpoint_timestamps
    return list(itertools.zip_longest(paths, times[: len(paths)], fillvalue=0.0))
