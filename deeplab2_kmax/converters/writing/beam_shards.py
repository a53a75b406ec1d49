"""Writes shards on the workers of an Apache Beam pipeline, for trees that are larger than one machine.

A worker writes one shard at a time with the function that processes here use, so the shards are the same. The folders
of the source and of the output have to be mounted at the same absolute paths on all workers, and this package has to
be installed there. Restart, whole data sets or nothing, and the manifest stay with `ShardedOutput`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import shlex
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from typing import Any

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
    """Writes those shards that an earlier run has not finished, each on one worker.

    Args:
        tasks: the shards, with absolute paths.
        options: of the pipeline, as on a command line: "--runner=DirectRunner --direct_num_workers=1". Empty: Beam's
            defaults.

    Returns:
        For each task its receipt, and whether the shard was there already.

    Raises:
        UserError: options that make no pipeline.
        DataError: what `make_record` raises, of the first such shard, after all others are written; the pipeline
            failed; a worker does not see the folders.
    """
    there = [finished_receipt(task) for task in tasks]
    missing = [task for task, receipt in zip(tasks, there) if receipt is None]
    if missing:
        with _task_files(missing):
            _run([task.path for task in missing], options)
    return [(receipt, True) if receipt else (_new_receipt(task), False) for task, receipt in zip(tasks, there)]


@contextlib.contextmanager
def _task_files(tasks: Sequence[ShardTask]) -> Iterator[None]:
    """Tasks lie beside their shards: with the segments of each image they are too large for a pipeline's graph, which
    some runners limit to a few MB."""
    try:
        for task in tasks:
            _remove(task.path + _ERROR)
            try:
                with open(task.path + _TASK, "wb") as file:
                    _Pickler(file).dump(task)
            except OSError as error:
                raise DataError(f"{task.path}{_TASK}: cannot write the file: {error.strerror}") from error
        yield
    finally:
        for task in tasks:
            _remove(task.path + _TASK)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def _run(shards: list[str], options: str) -> None:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    try:
        pipeline = beam.Pipeline(options=PipelineOptions(shlex.split(options)))
    except (ValueError, SystemExit) as error:
        raise UserError(f"beam: expected options of a Beam pipeline, came {options!r}: {error}") from error
    # Without the reshuffle a runner may give all shards to one worker.
    pipeline | beam.Create(shards) | beam.Reshuffle() | beam.Map(_write_on_worker)
    try:
        state = pipeline.run().wait_until_finish()
    except Exception as error:  # Runners raise what they like.
        raise DataError(f"beam: the pipeline failed: {error}") from error
    if state not in (None, "DONE"):
        raise DataError(f"beam: the pipeline ended in state {state}")


def _write_on_worker(shard: str) -> None:
    try:
        with open(shard + _TASK, "rb") as file:
            task = pickle.load(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{shard}: no task there; the folder has to be mounted on all workers") from error
    begin_work(_Counter(), in_other_process=False)
    try:
        write_shard(task)
    except DataError as error:
        # Raised, it would make the runner try again in vain, and reach the user below tracebacks of the runner.
        with open(task.path + _ERROR, "w", encoding="utf-8") as file:
            file.write(str(error))


class _Counter:
    """Takes the place of `shard_writer.Progress`: Beam's monitoring shows a counter of images."""

    def __init__(self):
        from apache_beam.metrics import Metrics

        self._images = Metrics.counter("deeplab2_kmax", "images")
        self.stop = threading.Event()

    def advance(self, records: int) -> None:
        self._images.inc(records)


def _new_receipt(task: ShardTask) -> Receipt:
    with contextlib.suppress(FileNotFoundError), open(task.path + _ERROR, encoding="utf-8") as file:
        raise DataError(file.read())
    receipt = finished_receipt(task)
    if receipt is None:
        raise DataError(f"{task.path}: expected the shard from a Beam worker, it is not there")
    return receipt


class _Pickler(pickle.Pickler):
    """Names functions and classes of a converter that runs as the main module by its own name: on a worker the main
    module is another."""

    def reducer_override(self, value: Any):
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        if spec and isinstance(value, (type, types.FunctionType)) and value.__module__ == "__main__":
            return _named, (spec.name, value.__qualname__)
        return NotImplemented


def _named(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)
