"""What processes that train together have to agree on: who writes, when to stop, and at which step to begin."""

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
from deeplab2_kmax.stop_signals import StopSignals, Terminated
from deeplab2_kmax.training.distribution.cluster import Cluster

# Each question makes all processes wait for each other and for their devices.
_STEPS_BETWEEN_QUESTIONS = 10


@contextlib.contextmanager
def own_folder(cluster: Cluster | None, folder: str) -> Iterator[str]:
    """Yields the folder this process writes to: `folder` for the chief and for a process that works alone.

    The other processes print nothing but one line, and write to a temporary folder, which begins with the latest
    checkpoint of `folder` and is deleted when they end. They have to save checkpoints, since each process holds a part
    of the moving statistics, but only one may write to `folder`. What goes to stderr is shown from all processes.

    Args:
        cluster: the processes that train together; None: this one alone.
        folder: the run's folder.
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
    """Ends training after the same step in all processes of the strategy in scope.

    A checkpoint can only be saved by all processes together. If one of them stopped alone, the others would wait for it
    in the middle of the next step.

    Args:
        stop: the signals of this process.
    """

    def __init__(self, stop: StopSignals):
        self._stop = stop
        self._is_alone = is_alone(tf.distribute.get_strategy())
        self._steps = 0

    def __call__(self) -> None:
        """To be called after each step; raises the signal of this process, or `Terminated` for that of another one."""
        self._steps += 1
        if self._is_alone:
            self._stop.check()
        elif self._steps % _STEPS_BETWEEN_QUESTIONS == 0 and sum_over_workers(np.array(int(self._stop.has_come))):
            self._stop.check()
            raise Terminated()


def require_same_step(global_step: tf.Variable) -> None:
    """Checks that all processes of the strategy in scope begin at the same step; all of them have to call it.

    Raises:
        CheckpointError: they do not, because they do not share the run's folder.
    """
    step = int(global_step.numpy())
    # By the Cauchy-Schwarz inequality, n times the sum of squares exceeds the square of the sum unless all are equal.
    count, steps, squares = sum_over_workers(np.array([1, step, step * step])).tolist()
    if count * squares != steps * steps:
        raise CheckpointError(
            f"model_dir: the workers do not see the same checkpoint there; it leads this one to step {step}, and others"
            " elsewhere. It has to be a folder that all of them share"
        )
