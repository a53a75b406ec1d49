"""A worker that is gone ends the others, each with one line and in bounded time."""

import signal
import time
from types import SimpleNamespace

import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints.integrity import fault_of, last_whole_checkpoint
from deeplab2_kmax.errors import CheckpointError, DataError, WorkerError
from deeplab2_kmax.training.distribution import lost_workers as module
from deeplab2_kmax.training.distribution.cluster import Cluster
from deeplab2_kmax.training.distribution.lost_workers import lost_workers
from helpers.strategy_cases import write_case
from helpers.workers import finish, start_trainers

NAME = "shapes_kmax_tiny"
# What TensorFlow 2.15 and 2.20 say.
RESET = """Graph execution error:
Detected at node CollectiveReduceV2_1 defined at (most recent call last):
  File "train.py", line 50, in <module>
Collective ops is aborted by: Connection reset by peer
Additional GRPC error information from remote target /job:worker/replica:0/task:1 while calling /tensorflow.RecvBuf:
:{"created":"@1795987469.078697558","grpc_message":"Connection reset by peer","grpc_status":14}"""
HEARTBEAT = """Collective ops is aborted by: Error reported from /job:worker/task:2: Task /job:worker/replica:0/task:2
heartbeat timeout. This indicates that the remote task has failed, got preempted, or crashed unexpectedly."""
UNHEALTHY = """Collective ops is aborted by: Error reported from /job:worker/task:0: The following tasks are unhealthy
(stopped sending heartbeats):
/job:worker/replica:0/task:1
The tasks have crashed."""
UNNAMED = "Collective ops is aborted by: Socket closed"


def error_of(error, tmp_path, cluster):
    with pytest.raises(Exception) as raised, lost_workers(cluster, str(tmp_path)):
        raise error
    return raised.value


@pytest.fixture(autouse=True)
def at_exit(monkeypatch):
    """What is to be done when this process ends, which must not be done here."""
    registered = []
    monkeypatch.setattr(module, "atexit", SimpleNamespace(register=registered.append))
    return registered


def cluster(number=0, has_chief_job=False):
    return Cluster(("a:1", "b:2", "c:3"), number, has_chief_job)


@pytest.mark.parametrize(
    "text, has_chief_job, lost",
    [
        (RESET, False, "worker 1 (b:2) was lost"),
        (RESET, True, "worker 2 (c:3) was lost"),
        (HEARTBEAT, False, "worker 2 (c:3) was lost"),
        (UNHEALTHY, False, "worker 1 (b:2) was lost"),
        (UNNAMED, False, "one of the other workers (a:1, b:2, c:3) was lost"),
    ],
)
def test_the_line_names_the_worker(text, has_chief_job, lost, tmp_path, at_exit):
    error = error_of(tf.errors.UnavailableError(None, None, text), tmp_path, cluster(0, has_chief_job))
    assert isinstance(error, WorkerError)
    assert str(error) == (
        f"{lost}: it was killed, cannot be reached, or ended by an error, which it printed itself. Start all workers"
        f" again with the same command; there is no checkpoint in {tmp_path} yet to go on from"
    )
    assert len(at_exit) == 1


def test_what_failed_because_of_it_is_not_reported_instead(tmp_path):
    with pytest.raises(CheckpointError) as failed:
        try:
            raise tf.errors.InternalError(None, None, RESET)
        except tf.errors.OpError as error:
            raise CheckpointError("cannot write a checkpoint") from error
    assert isinstance(error_of(failed.value, tmp_path, cluster()), WorkerError)


@pytest.mark.parametrize(
    "error",
    [
        DataError("a record is broken"),
        tf.errors.UnavailableError(None, None, "gs://bucket: try again later"),
        tf.errors.ResourceExhaustedError(None, None, "Collective ops is aborted by: OOM when allocating tensor"),
    ],
)
def test_a_workers_own_errors_pass_and_end_it_as_quickly(error, tmp_path, at_exit):
    assert error_of(error, tmp_path, cluster()) is error
    assert len(at_exit) == 1


def test_a_process_that_works_alone_is_left_as_it_is(tmp_path, at_exit):
    error = tf.errors.UnavailableError(None, None, RESET)
    assert error_of(error, tmp_path, None) is error
    assert at_exit == []


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_overrides, golden_value):
    return write_case(tmp_path_factory.mktemp("case"), "kmax", tiny_overrides, golden_value)


def start_long_run(config, folder):
    """Two workers that would train for hours, once they have saved a checkpoint."""
    workers = start_trainers(
        config,
        "train",
        folder,
        "trainer_options.solver_options.training_number_of_steps=100000",
        "trainer_options.save_checkpoints_steps=5",
        "trainer_options.num_checkpoints_to_keep=2",
    )
    while not (folder / NAME / "checkpoint").exists() and all(worker.poll() is None for worker in workers):
        time.sleep(0.2)
    return workers


@pytest.mark.parametrize(
    "victim",
    [pytest.param(0, marks=pytest.mark.slow), 1],
    ids=["the chief", "another"],
)
def test_a_worker_that_is_killed_ends_the_other_with_one_line(config, tmp_path, victim):
    workers = start_long_run(config, tmp_path)
    workers[victim].send_signal(signal.SIGKILL)
    status, _, stderr = finish(workers)[1 - victim]
    assert status == 1
    lines = [line for line in stderr.splitlines() if not is_of_libraries(line)]
    assert len(lines) == 1, stderr[-3000:]
    last = last_whole_checkpoint(str(tmp_path / NAME))
    assert f"worker {victim} (127.0.0.1:" in lines[0] and lines[0].endswith(f"the run goes on from {last}")
    assert fault_of(last) is None


def is_of_libraries(line):
    """Lines that TensorFlow and others print when a process starts."""
    return "absl::InitializeLog" in line or "grpc_server_lib" in line or "Warning" in line or "warnings.warn" in line


@pytest.mark.slow
def test_a_worker_that_ends_by_an_error_ends_both_with_one_line_each(config, tmp_path):
    workers = start_long_run(config, tmp_path)
    # The chief cannot save its next checkpoint there.
    (tmp_path / NAME).rename(tmp_path / "moved")
    (tmp_path / NAME).write_text("a file")
    for number, (status, _, stderr) in enumerate(finish(workers)):
        assert status == 1, stderr[-3000:]
        (line,) = [line for line in stderr.splitlines() if not is_of_libraries(line)]
        assert ("cannot write a checkpoint" if number == 0 else "worker 0 (127.0.0.1:") in line
