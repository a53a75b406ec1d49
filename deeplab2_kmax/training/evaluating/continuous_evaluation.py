"""Evaluates the checkpoints of a run that another process trains, each once, as they appear."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints.files import link_checkpoint
from deeplab2_kmax.checkpoints.integrity import fault_of
from deeplab2_kmax.terminal import say
from deeplab2_kmax.training.checkpoints.checkpointing import step_of
from deeplab2_kmax.training.evaluating.evaluation_results import EvaluationResults
from deeplab2_kmax.training.reporting.progress import duration
from deeplab2_kmax.training.run_folder import only_evaluator
from deeplab2_kmax.wording import counted

_POLL_SECONDS = 1.0
# Within the run's folder: the checkpoint that is being evaluated, under links of its own.
_HELD = "eval/held"


def evaluate_continuously(
    folder: str,
    evaluate: Callable[[str], Mapping[str, float]],
    results: EvaluationResults,
    last_step: int,
    timeout: float | None,
) -> Mapping[str, float]:
    """Evaluates each checkpoint in `folder` that has no result yet, the oldest first.

    Ends with the checkpoint of `last_step`, or when no new one appears for `timeout` seconds. The trainer may delete
    checkpoints meanwhile: the one that is being evaluated is kept by links of its own.

    Args:
        folder: the run's folder.
        evaluate: restores the checkpoint at a prefix and returns its figures.
        results: takes the figures, and knows those of earlier processes.
        last_step: the step at which training ends.
        timeout: seconds to wait for another checkpoint; None waits for ever.

    Returns:
        The figures of the last checkpoint; empty if there was none.

    Raises:
        ConfigError: another process evaluates the folder's checkpoints.
        CheckpointError: a checkpoint does not fit the experiment, or a result cannot be written.
    """
    say(f"waiting for checkpoints in {files.absolute(folder)}")
    figures: Mapping[str, float] = {}
    new = known = 0
    with only_evaluator(folder):
        for path in _new_checkpoints(folder, timeout):
            with _held(path, files.join(folder, _HELD)) as held:
                fault = "deleted before it could be read" if held is None else fault_of(held)
                if held is None or fault is not None:
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
            # Without a timeout there is always another checkpoint to wait for.
            say(f"no new checkpoint within {duration(timeout or 0.0)}")
    say(
        f"{counted(new, 'checkpoint')} evaluated"
        + (f", results of {known} were there already" if known else "")
        + f"\nbest: {results.best_in_words()}"
    )
    return figures


@contextlib.contextmanager
def _held(path: str, folder: str) -> Iterator[str | None]:
    """Yields the checkpoint under another prefix, where nobody else deletes it; None if it is gone already."""
    # A process that was killed leaves what it held.
    files.remove_tree(folder)
    try:
        held: str | None = link_checkpoint(path, folder)
    except FileNotFoundError:
        held = None
    try:
        yield held
    finally:
        # Also what was linked of a checkpoint that was deleted meanwhile.
        files.remove_tree(folder)


def _new_checkpoints(folder: str, timeout: float | None) -> Iterator[str]:
    """Yields each checkpoint once, the oldest first, until no new one appears for `timeout` seconds.

    The folder is listed anew after each, because the trainer goes on writing and deleting during an evaluation.
    """
    seen: set[tuple[str, float]] = set()
    waiting_since = time.monotonic()
    while True:
        fresh = [item for item in _listed(folder) if item not in seen]
        if fresh:
            seen.add(fresh[0])
            yield fresh[0][0]
            # The time that the evaluation took does not count as waiting.
            waiting_since = time.monotonic()
        elif timeout is not None and time.monotonic() - waiting_since >= timeout:
            return
        else:
            time.sleep(_POLL_SECONDS)


def _listed(folder: str) -> list[tuple[str, float]]:
    """(prefix, time of writing) of the checkpoints that the folder's state file lists, the oldest first.

    The time distinguishes a checkpoint from an older one of the same name.
    """
    state = tf.train.get_checkpoint_state(folder)
    if state is None:
        return []
    paths, times = list(state.all_model_checkpoint_paths), list(state.all_model_checkpoint_timestamps)
    # A state file may lack times.
    times += [0.0] * (len(paths) - len(times))
    return list(zip(paths, times))
