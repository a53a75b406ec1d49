"""Writes the splits of a data set as TFRecord shards, on several processes, all of them or none."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import glob
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tqdm

from deeplab2_kmax.converters.writing import beam_shards, manifest
from deeplab2_kmax.converters.writing.manifest import Origin
from deeplab2_kmax.converters.writing.shard_writer import Progress, Receipt, ShardTask, begin_work, write_shard
from deeplab2_kmax.errors import DataError, UserError
from deeplab2_kmax.folder_lock import hold_lock

__all__ = ["Origin", "ShardedOutput", "Split"]

# About 150 MB of COCO. DeepLab2 writes 1000 shards whatever the data, most of them empty for small sets.
_IMAGES_PER_SHARD = 128
_MAX_SHARDS = 1000
# A further process starts by importing TensorFlow, which takes as long as converting some hundred images.
_IMAGES_PER_PROCESS = 400
_UNFINISHED = ".unfinished"
_LOCK = "lock"
_POLL_SECONDS = 0.2


def _no_files(item: Any) -> Sequence[str]:
    return ()


@dataclasses.dataclass(frozen=True)
class Split:
    """One split to be written.

    Attributes:
        name: what the names of its shards begin with, such as "train".
        items: one per record, in the order of the records; values that JSON can hold, such as tuples of paths.
        make_record: turns an item into a serialized tf.train.Example. It runs in other processes, so it must be
            picklable: a function of a module, or a functools.partial of one.
        source_files: the files an item's record is made from; picklable as well.
        annotations: files that hold for the whole split; the manifest has their checksums.
    """

    name: str
    items: Sequence[Any]
    make_record: Callable[[Any], bytes]
    source_files: Callable[[Any], Sequence[str]] = _no_files
    annotations: tuple[str, ...] = ()


class ShardedOutput:
    """A folder that receives shards. As a context manager, it makes the folder and finds out whether it can be written
    before any work is done.

    Shards are written to a hidden folder inside the output folder and moved to their places once every split is
    complete, so that no reader ever sees part of a data set. What a failed, interrupted or killed run has finished
    stays in the hidden folder. The next run takes from there each shard that was made from the same items, files
    (name, size, time of change) and settings, and writes the others anew. Without finished shards a failed run leaves
    the folder as it was.

    Args:
        output_dir: a local folder; made if need be.
        num_shards: files a split; None chooses one per 128 images. Never more than there are images.
        num_processes: None chooses as many as pay off on this machine.
        beam: options of an Apache Beam pipeline that writes the shards instead, on its workers; see `beam_shards`.

    Raises:
        UserError: `beam` with `num_processes`, or without Apache Beam (on entering).
        DataError: the folder cannot be made or written, or another run is writing to it (on entering).
    """

    def __init__(
        self,
        output_dir: str,
        num_shards: int | None = None,
        num_processes: int | None = None,
        beam: str | None = None,
    ):
        self._output_dir = os.fspath(output_dir)
        self._beam = beam
        self._num_shards = num_shards
        self._num_processes = num_processes
        self._made: list[str] = []
        self._unfinished = os.path.join(self._output_dir, _UNFINISHED)
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> ShardedOutput:
        if self._beam is not None:
            beam_shards.require_beam()
            if self._num_processes:
                raise UserError("num_processes: expected none with beam, whose runner has an option for its workers")
        if "://" in self._output_dir:
            raise DataError(f"output_dir: expected a local folder (copy the shards later), came {self._output_dir}")
        self._made = _missing_folders(self._output_dir)
        try:
            os.makedirs(self._output_dir, exist_ok=True)
            os.makedirs(self._unfinished, exist_ok=True)
            self._lock.enter_context(hold_lock(os.path.join(self._unfinished, _LOCK)))
        except BlockingIOError as error:
            raise DataError(f"output_dir: another conversion is writing to {self._output_dir}") from error
        except OSError as error:
            self._remove_made_folders()
            raise DataError(f"output_dir: cannot write to {self._output_dir}: {error.strerror}") from error
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        finished = glob.glob(os.path.join(glob.escape(self._unfinished), "*.tfrecord"))
        if error_type is not None and finished:
            kept = f"finished shards kept in {self._unfinished}: {len(finished)}"
            print(f"{kept}; the same command goes on from there", file=sys.stderr)
        else:
            shutil.rmtree(self._unfinished, ignore_errors=True)
            if error_type is not None:
                self._remove_made_folders()
        self._lock.close()

    def write(self, splits: Sequence[Split], origin: Origin) -> list[str]:
        """Writes all splits and a manifest.

        The records of a split lie in the shards in order, as evenly as possible. Shards of an earlier run are
        replaced if there are as many of them.

        Args:
            splits: what to write.
            origin: what is the same for all records.

        Returns:
            The paths of the shards, `<split>-<number>-of-<count>.tfrecord`.

        Raises:
            DataError: what `make_record` raises; no items; shards of an earlier run that would stay between the new
                ones because their number is another; a disk that is full.
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
        try:
            return self._publish(shards, entries)
        except OSError as error:
            raise DataError(f"{self._output_dir}: cannot move the shards to their places: {error}") from error

    def _shards(self, split: Split) -> list[_Shard]:
        total = len(split.items)
        if not total:
            raise DataError(f"split {split.name}: expected at least one image, came none")
        wanted = self._num_shards or min(-(-total // _IMAGES_PER_SHARD), _MAX_SHARDS)
        count = min(wanted, total)
        self._refuse_leftovers(split.name, count)
        bounds = [number * total // count for number in range(count + 1)]
        return [
            _Shard(f"{split.name}-{number:05d}-of-{count:05d}.tfrecord", split, start, stop)
            for number, (start, stop) in enumerate(zip(bounds, bounds[1:]))
        ]

    def _refuse_leftovers(self, split_name: str, count: int) -> None:
        """A reader's pattern `train-*` would take both the old shards and the new ones."""
        pattern = os.path.join(glob.escape(self._output_dir), f"{split_name}-*.tfrecord")
        for path in sorted(glob.glob(pattern)):
            if not path.endswith(f"-of-{count:05d}.tfrecord"):
                raise DataError(
                    f"{path}: expected no shards of another run beside the {count} to be written; "
                    f"remove {split_name}-*.tfrecord or choose another output_dir"
                )

    def _task(self, shard: _Shard, origin: Origin) -> ShardTask:
        return ShardTask(
            # Absolute, as workers of Apache Beam may run in another folder.
            path=os.path.abspath(os.path.join(self._unfinished, shard.name)),
            moved_path=os.path.abspath(os.path.join(self._output_dir, shard.name)),
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
        context = multiprocessing.get_context("spawn")
        progress = Progress(context.Value("q", 0), context.Event())
        with _executor(min(processes, len(tasks)), context, progress) as executor:
            futures = [executor.submit(write_shard, task) for task in tasks]
            try:
                _show_progress(futures, progress, total)
            except concurrent.futures.process.BrokenProcessPool as error:
                raise DataError("a process that wrote shards was killed, perhaps for want of memory") from error
            except BaseException:
                progress.stop.set()
                executor.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def _say_done(self, split: Split, were_there: list[bool]) -> None:
        kept = f" ({sum(were_there)} from an interrupted run)" if any(were_there) else ""
        print(f"{split.name}: {len(split.items)} images in {len(were_there)} shards{kept} in {self._output_dir}")

    def _publish(self, shards: list[_Shard], entries: dict[str, Any]) -> list[str]:
        """Moves the shards to their places. While they are on their way, the manifest does not know of them."""
        others = {n: entry for n, entry in manifest.read_splits(self._output_dir).items() if n not in entries}
        manifest.write_splits(self._output_dir, others)
        paths = [os.path.join(self._output_dir, shard.name) for shard in shards]
        for path in paths:
            unfinished = os.path.join(self._unfinished, os.path.basename(path))
            if os.path.exists(unfinished):  # else an interrupted run has moved it
                os.replace(unfinished, path)
        manifest.write_splits(self._output_dir, {**others, **entries})
        return paths

    def _remove_made_folders(self) -> None:
        for folder in self._made:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


@dataclasses.dataclass(frozen=True)
class _Shard:
    name: str
    split: Split
    start: int
    stop: int


@contextlib.contextmanager
def _executor(processes: int, context, progress: Progress) -> Iterator[concurrent.futures.Executor]:
    """Other processes, or for one a thread of this one, which spares the start of Python and TensorFlow."""
    if processes == 1:
        with concurrent.futures.ThreadPoolExecutor(1, initializer=begin_work, initargs=(progress, False)) as executor:
            yield executor
        return
    # Every process would repeat what TensorFlow says of the machine; the parent has said it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with concurrent.futures.ProcessPoolExecutor(processes, context, begin_work, (progress, True)) as executor:
        yield executor


def _show_progress(futures: list[concurrent.futures.Future], progress: Progress, total: int) -> None:
    """Keeps a progress bar until all is done; raises the first error of any shard at once."""
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
    """The folders that have to be made so that `folder` exists, innermost first."""
    missing = []
    folder = os.path.abspath(folder)
    while not os.path.exists(folder) and folder != os.path.dirname(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing
