"""Writes shards on the workers of an Apache Beam pipeline, for data sets that are too large for one machine.

Each worker writes one shard at a time, by the same function as without Beam, so the shards are the same. The folders of
the source and of the output have to be mounted at the same absolute paths on all workers, and this package has to be
installed there. `ShardedOutput` still does the rest: what resumes an interrupted run, and what keeps readers from
seeing a part of a data set.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import pickle
import shlex
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any

from deeplab2_kmax import files
from deeplab2_kmax.converters.writing.shard_writer import Receipt, ShardTask, begin_work, finished_receipt, write_shard
from deeplab2_kmax.errors import DataError, UserError

_TASK, _ERROR = ".task", ".error"


def require_beam() -> None:
    """Raises UserError unless Apache Beam can be imported; the message says how to install it."""
    try:
        import apache_beam  # noqa: F401
    except ImportError as error:
        raise UserError(f"beam: needs Apache Beam ({error}): pip install 'deeplab2_kmax[beam]'") from error


def write_shards(tasks: Sequence[ShardTask], options: str) -> list[tuple[Receipt, bool]]:
    """Writes the shards that an earlier run has not finished, each on one worker.

    Args:
        tasks: the shards, with absolute paths.
        options: the options of the pipeline as on a command line, such as "--runner=DirectRunner
            --direct_num_workers=1"; "" for Beam's defaults.

    Returns:
        For each task the receipt of the shard, and whether it was there already.

    Raises:
        UserError: Beam does not accept the options.
        DataError: `make_record` raises it (all other shards are written first, and the error is that of the first shard
            that has one); the pipeline fails; or a worker does not see the folders.
    """
    there = [finished_receipt(task) for task in tasks]
    missing = [task for task, receipt in zip(tasks, there) if receipt is None]
    if missing:
        with _task_files(missing):
            _run([task.path for task in missing], options)
    return [(receipt, True) if receipt else (_new_receipt(task), False) for task, receipt in zip(tasks, there)]


@contextlib.contextmanager
def _task_files(tasks: Sequence[ShardTask]) -> Iterator[None]:
    """Writes the tasks to files beside their shards, for the workers, and removes these files at the end.

    With the segments of each image, tasks are too large for the graph of a pipeline, which some runners limit to a few
    megabytes.
    """
    try:
        for task in tasks:
            files.remove(task.path + _ERROR)
            pickled = io.BytesIO()
            _Pickler(pickled).dump(task)
            try:
                files.write_bytes(task.path + _TASK, pickled.getvalue())
            except OSError as error:
                raise DataError(f"{task.path}{_TASK}: cannot write the file: {error.strerror}") from error
        yield
    finally:
        for task in tasks:
            files.remove(task.path + _TASK)


def _run(shards: list[str], options: str) -> None:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    try:
        pipeline = beam.Pipeline(options=PipelineOptions(shlex.split(options)))
    except (ValueError, SystemExit) as error:
        raise UserError(f"beam: expected options of a Beam pipeline, got {options!r}: {error}") from error
    # Without the reshuffle a runner may give all shards to one worker.
    pipeline | beam.Create(shards) | beam.Reshuffle() | beam.Map(_write_on_worker)
    try:
        state = pipeline.run().wait_until_finish()
    except Exception as error:  # Each runner raises errors of its own.
        raise DataError(f"beam: the pipeline failed: {error}") from error
    if state not in (None, "DONE"):
        raise DataError(f"beam: the pipeline ended in state {state}")


def _write_on_worker(shard: str) -> None:
    try:
        task = pickle.loads(files.read_bytes(shard + _TASK))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{shard}: no task there; the folder has to be mounted on all workers") from error
    begin_work(_Counter(), in_other_process=False)
    try:
        write_shard(task)
    except DataError as error:
        # If it were raised, the runner would try again in vain, and bury the message below tracebacks of its own.
        files.write_text(task.path + _ERROR, str(error))


class _Counter:
    """The progress of a worker (see `shard_writer.Progress`): a counter of images in Beam's monitoring."""

    def __init__(self) -> None:
        from apache_beam.metrics import Metrics

        self._images = Metrics.counter("deeplab2_kmax", "images")

    def advance(self, records: int) -> None:
        self._images.inc(records)

    def should_stop(self) -> bool:
        return False  # The runner ends its workers by itself.


def _new_receipt(task: ShardTask) -> Receipt:
    """The receipt of a shard after the pipeline has ended.

    Raises:
        DataError: the worker left an error, or no shard.
    """
    with contextlib.suppress(FileNotFoundError):
        raise DataError(files.read_text(task.path + _ERROR))
    receipt = finished_receipt(task)
    if receipt is None:
        raise DataError(f"{task.path}: expected a shard from a Beam worker, got none")
    return receipt


class _Pickler(pickle.Pickler):
    """Pickles functions and classes of the main module, a converter, by the name of that module.

    On a worker, another module is the main module.
    """

    def reducer_override(self, value: Any) -> Any:
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        if spec and isinstance(value, (type, types.FunctionType)) and value.__module__ == "__main__":
            return _named, (spec.name, value.__qualname__)
        return NotImplemented


def _named(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)
