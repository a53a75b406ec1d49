"""What processes that train together have to agree on: who writes, when to stop, where to begin."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from deeplab2_kmax.checkpoints.files import link_checkpoint, name_latest
from deeplab2_kmax.checkpoints.integrity import last_whole_checkpoint
from deeplab2_kmax.distribution import is_alone, sum_over_workers
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.training.distribution.cluster import Cluster
from deeplab2_kmax.training.run.stop_signals import StopSignals, Terminated

# Asking makes each process wait for the others and for its devices.
_STEPS_BETWEEN_QUESTIONS = 10


@contextlib.contextmanager
def own_place(cluster: Cluster | None, folder: str) -> Iterator[str]:
    """The folder this process writes to: `folder` for one that works alone and for the chief.

    The others say nothing, and write to a temporary folder that begins with the latest checkpoint of `folder` and goes
    when they end: saving takes all processes, since each holds a part of the moving statistics, but only one may write.
    What goes to stderr is seen from all.
    """
    if cluster is None or cluster.is_chief:
        yield folder
        return
    print(f"worker {cluster.number} of {len(cluster.addresses)}; {cluster.addresses[0]} tells how it goes", flush=True)
    with tempfile.TemporaryDirectory(prefix="deeplab2_kmax_worker_") as own, open(os.devnull, "w") as nowhere:
        latest = last_whole_checkpoint(folder)
        if latest:
            name_latest(link_checkpoint(latest, own))
        with contextlib.redirect_stdout(nowhere):
            yield own


class CommonStop:
    """Ends training between the same two steps in all processes of the strategy in scope, since saving takes all.

    Args:
        stop: what has come to this process.
    """

    def __init__(self, stop: StopSignals):
        self._stop = stop
        self._is_alone = is_alone(tf.distribute.get_strategy())
        self._steps = 0

    def __call__(self) -> None:
        """To be called after each step; raises where a signal has come to this process, or `Terminated` for others."""
        self._steps += 1
        if self._is_alone:
            self._stop.check()
        elif self._steps % _STEPS_BETWEEN_QUESTIONS == 0 and sum_over_workers(np.array(int(self._stop.has_come))):
            self._stop.check()
            raise Terminated()


def require_same_step(global_step: tf.Variable) -> None:
    """Checks that all processes of the strategy in scope begin at one step; all have to ask.

    Raises:
        CheckpointError: they do not.
    """
    step = int(global_step.numpy())
    count, steps, squares = sum_over_workers(np.array([1, step, step * step])).tolist()
    if count * squares != steps * steps:
        raise CheckpointError(
            f"model_dir: the workers do not see the same checkpoint there; it leads this one to step {step}, and others"
            " elsewhere. It has to be a folder that all of them share"
        )
