"""Writes the splits of a data set as TFRecord shards, on several processes; readers see all of them or none."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import glob
import multiprocessing
import multiprocessing.context
import os
import re
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tqdm

from deeplab2_kmax import files
from deeplab2_kmax.converters.writing import beam_shards, manifest
from deeplab2_kmax.converters.writing.manifest import Origin
from deeplab2_kmax.converters.writing.shard_writer import (
    MakeRecord,
    NotedRecord,
    Receipt,
    ShardTask,
    begin_work,
    write_shard,
)
from deeplab2_kmax.datasets import write_descriptor
from deeplab2_kmax.errors import DataError, UserError
from deeplab2_kmax.folder_lock import hold_lock
from deeplab2_kmax.records.manifest import read_splits
from deeplab2_kmax.stop_signals import STOPPED, name_of, tell_how_to_go_on
from deeplab2_kmax.storage_errors import storage_fault
from deeplab2_kmax.wording import counted, first_line

__all__ = ["NotedRecord", "Origin", "ShardedOutput", "Split"]

# About 150 MB of COCO. DeepLab2 writes 1000 shards whatever the data, most of them empty for small sets.
_IMAGES_PER_SHARD = 128
_MAX_SHARDS = 1000
# Another process first has to import TensorFlow, which takes as long as converting some hundred images.
_IMAGES_PER_PROCESS = 400
_UNFINISHED = ".unfinished"
_LOCK = "lock"
_POLL_SECONDS = 0.2
# Shards are named by it, and found again by patterns.
_SPLIT_NAME = re.compile(r"\w[\w.-]*")
_SECONDS_TO_STOP = 2.0


def _no_files(item: Any) -> Sequence[str]:
    return ()


@dataclasses.dataclass(frozen=True)
class Split:
    """One split to be written.

    Attributes:
        name: what the names of its shards begin with, such as "train".
        items: one for each record, in the order of the records; values that JSON can hold, such as tuples of paths.
        make_record: makes the record, a serialized tf.train.Example, of an item. It runs in other processes, so it has
            to be picklable: a function of a module, or a functools.partial of one.
        source_files: the files that the record of an item is made from; has to be picklable as well.
        annotations: the annotation files that the whole split shares, whose checksums go into the manifest.
    """

    name: str
    items: Sequence[Any]
    make_record: MakeRecord
    source_files: Callable[[Any], Sequence[str]] = _no_files
    annotations: tuple[str, ...] = ()


class ShardedOutput:
    """A folder to write shards to. On entering its context, it makes the folder and checks that it can be written.

    Shards are written to a hidden folder inside the output folder, and moved to their places once all splits are
    complete, so that no reader ever sees a part of a data set. The shards that a failed, interrupted or killed run has
    finished stay in the hidden folder. The next run keeps those that were made from the same items, files (name, size,
    time of change) and settings, and writes the others again. A failed run without a finished shard leaves the folder
    as it was.

    Args:
        output_dir: a local folder; made where missing.
        num_shards: the number of shards of each split; None: one for every 128 images. There are never more shards than
            images.
        num_processes: the number of processes that write shards; None: one for every 400 images, at most one for each
            core.
        beam: the options of an Apache Beam pipeline, whose workers then write the shards; see `beam_shards`.

    Raises:
        UserError: on entering, `beam` is given with `num_processes`, or Apache Beam is not installed.
        DataError: on entering, the folder cannot be made or written, or another run is writing to it.
    """

    def __init__(
        self,
        output_dir: str,
        num_shards: int | None = None,
        num_processes: int | None = None,
        beam: str | None = None,
    ) -> None:
        self._output_dir = os.fspath(output_dir)
        self._beam = beam
        self._num_shards = num_shards
        self._num_processes = num_processes
        self._made: list[str] = []
        self._unfinished = files.join(self._output_dir, _UNFINISHED)
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> ShardedOutput:
        if self._beam is not None:
            beam_shards.require_beam()
            if self._num_processes:
                raise UserError("num_processes: expected none with beam, whose runner has an option for its workers")
        # A file cannot be locked, nor a folder of shards be renamed at once, on remote storage.
        if files.is_remote(self._output_dir):
            raise DataError(f"output_dir: expected a local folder (copy the shards later), got {self._output_dir}")
        self._made = _missing_folders(self._unfinished)
        try:
            files.make_folder(self._unfinished)
            self._lock.enter_context(hold_lock(files.join(self._unfinished, _LOCK)))
        except BlockingIOError as error:
            raise DataError(f"output_dir: another conversion is writing to {self._output_dir}") from error
        except OSError as error:
            self._remove_made_folders()
            raise DataError(f"output_dir: cannot write to {self._output_dir}: {error.strerror}") from error
        # Those in the hidden folder go away with it.
        _remove_parts(self._output_dir)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        finished = files.glob(files.join(glob.escape(self._unfinished), "*.tfrecord"))
        if error_type is not None and finished:
            if self._beam is None:  # A worker of Beam's, thought lost, may still be writing there.
                _remove_parts(self._unfinished)
            kept = f"{counted(len(finished), 'finished shard')} kept in {self._unfinished}"
            how_to_go_on = f"{kept}; the same command goes on from there"
            if isinstance(error, STOPPED):
                tell_how_to_go_on(error, f"stopped by {name_of(error)}: {how_to_go_on}")
            else:
                print(how_to_go_on, file=sys.stderr)
        else:
            with contextlib.suppress(OSError):
                files.remove_tree(self._unfinished)
            if error_type is not None:
                self._remove_made_folders()
        self._lock.close()

    def write(self, splits: Sequence[Split], origin: Origin) -> list[str]:
        """Writes all splits and a manifest, and the descriptor if it is new.

        The records of a split are spread over its shards in order, as evenly as possible. Shards of an earlier run are
        replaced if there are as many of them.

        Args:
            splits: what to write.
            origin: what all records are made from.

        Returns:
            The paths of the shards, `<split>-<number>-of-<count>.tfrecord`.

        Raises:
            ConfigError: the descriptor cannot be written.
            DataError: `make_record` raises it; a split has no items; shards of an earlier run, of which there were more
                or fewer, would lie among the new ones; or a shard cannot be written.
        """
        annotations = {split.name: manifest.checksums(split.annotations, origin.root) for split in splits}
        shards = [shard for split in splits for shard in self._shards(split)]
        results = self._write_all([self._task(shard, origin) for shard in shards])
        entries = {}
        for split in splits:
            own = {shard.name: result for shard, result in zip(shards, results) if shard.split.name == split.name}
            receipts = {name: receipt for name, (receipt, _) in own.items()}
            entries[split.name] = manifest.split_entry(origin, annotations[split.name], receipts)
            self._say_done(split, [was_there for _, was_there in own.values()])
            _say_losses(split, list(receipts.values()))
        if origin.new_descriptor is not None:
            # Not before all records could be made, so that a refused export leaves no file behind.
            write_descriptor(origin.new_descriptor, origin.descriptor)
            classes = counted(len(origin.descriptor.classes), "class", "classes")
            print(f"{origin.new_descriptor}: written, {classes}")
        try:
            return self._publish(shards, entries)
        except OSError as error:
            raise DataError(
                f"{self._output_dir}: cannot move the shards to their places: "
                f"{storage_fault(error) or first_line(error)}"
            ) from error

    def _shards(self, split: Split) -> list[_Shard]:
        if not _SPLIT_NAME.fullmatch(split.name):
            raise DataError(
                f"split: expected a name that files can have, of letters, digits, '_', '-' and '.', got {split.name!r}"
            )
        total = len(split.items)
        if not total:
            raise DataError(f"split {split.name}: expected at least one image, got none")
        wanted = self._num_shards or min(-(-total // _IMAGES_PER_SHARD), _MAX_SHARDS)
        count = min(wanted, total)
        self._refuse_leftovers(split.name, count)
        bounds = [number * total // count for number in range(count + 1)]
        return [
            _Shard(f"{split.name}-{number:05d}-of-{count:05d}.tfrecord", split, start, stop)
            for number, (start, stop) in enumerate(zip(bounds, bounds[1:]))
        ]

    def _refuse_leftovers(self, split_name: str, count: int) -> None:
        """Raises DataError for shards of another number, which a reader's pattern `train-*` would mix with the new."""
        pattern = files.join(glob.escape(self._output_dir), f"{split_name}-*.tfrecord")
        for path in files.glob(pattern):
            if not path.endswith(f"-of-{count:05d}.tfrecord"):
                raise DataError(
                    f"{path}: expected no shards of another run beside the {counted(count, 'shard')} to be written;"
                    f" remove {split_name}-*.tfrecord or choose another output_dir"
                )

    def _task(self, shard: _Shard, origin: Origin) -> ShardTask:
        return ShardTask(
            # Absolute, as the workers of Apache Beam may run in another folder.
            path=os.path.abspath(files.join(self._unfinished, shard.name)),
            moved_path=os.path.abspath(files.join(self._output_dir, shard.name)),
            items=shard.split.items[shard.start : shard.stop],
            make_record=shard.split.make_record,
            source_files=shard.split.source_files,
            identity=origin.identity(),
            label_divisor=origin.descriptor.label_divisor,
        )

    def _write_all(self, tasks: list[ShardTask]) -> list[tuple[Receipt, bool]]:
        if self._beam is not None:
            return beam_shards.write_shards(tasks, self._beam)
        total = sum(len(task.items) for task in tasks)
        processes = self._num_processes or min(os.cpu_count() or 1, max(1, total // _IMAGES_PER_PROCESS))
        # Not by fork, which would copy the threads and locks of TensorFlow in an undefined state.
        context = multiprocessing.get_context("spawn")
        progress = _SharedProgress(context.Value("q", 0), context.Event())
        others = set(multiprocessing.active_children())
        with _executor(min(processes, len(tasks)), context, progress) as executor:
            with _deaf_to_ctrl_c():
                futures = [executor.submit(write_shard, task) for task in tasks]
            try:
                _show_progress(futures, progress, total)
            except concurrent.futures.process.BrokenProcessPool as error:
                raise DataError("a process that wrote shards was killed, perhaps because memory ran out") from error
            except BaseException:
                progress.stop.set()
                executor.shutdown(wait=False, cancel_futures=True)
                # Those that are writing give up after the record they are at. Those that are still being started would
                # look for what they share with this process when it is gone, and print a traceback.
                concurrent.futures.wait(futures, _SECONDS_TO_STOP)
                for process in set(multiprocessing.active_children()) - others:
                    process.terminate()
                    process.join(_SECONDS_TO_STOP)
                raise
        return [future.result() for future in futures]

    def _say_done(self, split: Split, were_there: list[bool]) -> None:
        kept = f" ({sum(were_there)} from an interrupted run)" if any(were_there) else ""
        contents = f"{counted(len(split.items), 'image')} in {counted(len(were_there), 'shard')}"
        print(f"{split.name}: {contents}{kept} in {self._output_dir}")

    def _publish(self, shards: list[_Shard], entries: dict[str, Any]) -> list[str]:
        """Moves the shards to their places. Meanwhile, the manifest has no entry of their splits."""
        others = {n: entry for n, entry in read_splits(self._output_dir).items() if n not in entries}
        manifest.write_splits(self._output_dir, others)
        paths = [files.join(self._output_dir, shard.name) for shard in shards]
        for path in paths:
            unfinished = files.join(self._unfinished, os.path.basename(path))
            if files.exists(unfinished):  # Otherwise, an interrupted run has moved it already.
                files.rename(unfinished, path)
        manifest.write_splits(self._output_dir, {**others, **entries})
        return paths

    def _remove_made_folders(self) -> None:
        """Deletes the folders that were made on entering, unless there is something in them."""
        for folder in self._made:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _remove_parts(folder: str) -> None:
    """Deletes temporary files that killed processes have left."""
    for name in files.list_folder(folder):
        if files.is_unfinished(name):
            files.remove(files.join(folder, name))


def _say_losses(split: Split, receipts: Sequence[Receipt]) -> None:
    """Tells what the labels do not hold of the annotations: how much in all, and in which image most."""
    by_kind: dict[str, dict[str, int]] = {}
    for receipt in receipts:
        for name, losses in receipt.losses.items():
            for kind, count in losses.items():
                by_kind.setdefault(kind, {})[name] = count
    for kind, counts in by_kind.items():
        most = max(counts, key=lambda name: counts[name])
        where = f"in {len(counts):,} of {counted(len(split.items), 'image')}, most in {most} ({counts[most]:,})"
        print(f"{split.name}: {kind}: {sum(counts.values()):,} {where}; {manifest.MANIFEST} lists them by image")


@dataclasses.dataclass(frozen=True)
class _Shard:
    """The items `start` to `stop` - 1 of a split."""

    name: str
    split: Split
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class _SharedProgress:
    """The progress of all workers (see `shard_writer.Progress`): a number and an event in shared memory."""

    written: Any
    stop: Any

    def advance(self, records: int) -> None:
        with self.written.get_lock():
            self.written.value += records

    def should_stop(self) -> bool:
        return bool(self.stop.is_set())


@contextlib.contextmanager
def _executor(
    processes: int, context: multiprocessing.context.SpawnContext, progress: _SharedProgress
) -> Iterator[concurrent.futures.Executor]:
    """Runs work in other processes, or for `processes` = 1 in a thread: here Python and TensorFlow run already."""
    if processes == 1:
        with concurrent.futures.ThreadPoolExecutor(1, initializer=begin_work, initargs=(progress, False)) as executor:
            yield executor
        return
    # Every process would repeat what TensorFlow has logged about the machine in this one.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with concurrent.futures.ProcessPoolExecutor(processes, context, begin_work, (progress, True)) as executor:
        yield executor


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started here do not hear Ctrl-C, which reaches all processes of a terminal; this one does afterwards.

    They could ignore it by themselves only once they have imported what they need, which takes seconds.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _show_progress(
    futures: Sequence[concurrent.futures.Future[tuple[Receipt, bool]]], progress: _SharedProgress, total: int
) -> None:
    """Shows a progress bar until all shards are written; raises the first error of a shard at once."""
    pending = set(futures)
    with tqdm.tqdm(total=total, unit="image", desc="writing") as bar:
        while pending:
            done, pending = concurrent.futures.wait(
                pending, _POLL_SECONDS, return_when=concurrent.futures.FIRST_EXCEPTION
            )
            for future in done:
                future.result()
            bar.update(progress.written.value - bar.n)


def _missing_folders(folder: str) -> list[str]:
    """The folders that are missing on the way to `folder`, the innermost first."""
    missing = []
    folder = os.path.abspath(folder)
    while not os.path.exists(folder) and folder != os.path.dirname(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing
