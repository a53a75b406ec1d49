"""A worker that dies, or ends by an error, ends the others as well, each with one line on how to go on.

TensorFlow notices within a minute: the connection to a process that is gone breaks, and one that has ended sends no
more heartbeats. Whatever the others do together from then on fails.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import re
from collections.abc import Iterator

import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints.integrity import recorded_checkpoints
from deeplab2_kmax.errors import CheckpointError, WorkerError
from deeplab2_kmax.stop_signals import end_without_teardown
from deeplab2_kmax.training.distribution.cluster import Cluster

# TensorFlow has no type of its own for this; that of the error is one of these, and its text has one of the marks.
_TYPES = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,
)
_MARKS = ("Collective ops is aborted by", "from remote target /job:", "/tensorflow.CoordinationService/", "heartbeat")
_TASK = re.compile(r"/job:(chief|worker)/(?:replica:0/)?task:(\d+)")


@contextlib.contextmanager
def lost_workers(cluster: Cluster | None, folder: str) -> Iterator[None]:
    """Wraps the work of one of several processes, once it has joined the others.

    After an error, whichever it is, the process ends without TensorFlow's clearing up, and with status 1.

    Args:
        cluster: the processes that work together; None: this one alone.
        folder: the run's folder, which they share.

    Raises:
        WorkerError: in place of an error that comes from the loss of another worker. Others pass unchanged.
    """
    try:
        yield
    except Exception as error:
        if cluster is None:
            raise
        # Clearing up, TensorFlow takes leave of the other workers and waits for those that are lost: half a minute, and
        # with TensorFlow 2.20 until somebody ends it. The others may learn of the loss only then.
        atexit.register(functools.partial(end_without_teardown, 1))
        loss = _loss_in(error)
        if loss is None:
            raise
        raise WorkerError(
            f"{_lost(str(loss), cluster)} was lost: it was killed, cannot be reached, or ended by an error, which it"
            f" printed itself. Start all workers again with the same command; {_goes_on(folder)}"
        ) from error


def _loss_in(error: BaseException | None) -> BaseException | None:
    """The error, or the one that led to it, that TensorFlow raised because a worker is gone; None: there is none.

    What was being done together at that moment may have put an error of its own in its place, such as one about a
    checkpoint that could not be written.
    """
    while error is not None:
        if isinstance(error, _TYPES) and any(mark in str(error) for mark in _MARKS):
            return error
        error = error.__cause__ or error.__context__
    return None


def _lost(text: str, cluster: Cluster) -> str:
    """Which worker TensorFlow's message is about."""
    for job, index in _TASK.findall(text):
        number = int(index) + (cluster.has_chief_job and job == "worker")
        if number != cluster.number and number < len(cluster.addresses):
            return f"worker {number} ({cluster.addresses[number]})"
    return f"one of the other workers ({', '.join(cluster.addresses)})"


def _goes_on(folder: str) -> str:
    """From where a run goes on; whether its last checkpoint is whole is looked at then."""
    with contextlib.suppress(CheckpointError):
        if recorded := recorded_checkpoints(folder):
            return f"the run goes on from {recorded[0]}"
    return f"there is no checkpoint in {files.absolute(folder)} yet to go on from"
