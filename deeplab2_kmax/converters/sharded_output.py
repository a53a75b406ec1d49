"""Writes the splits of a data set as TFRecord shards, on several processes, all of them or none."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import glob
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tqdm

from deeplab2_kmax.errors import DataError

# About 150 MB of COCO. DeepLab2 writes 1000 shards whatever the data, most of them empty for small sets.
_IMAGES_PER_SHARD = 128
_MAX_SHARDS = 1000
# A further process starts by importing TensorFlow, which takes as long as converting some hundred images.
_IMAGES_PER_PROCESS = 400
_UNFINISHED = ".unfinished-"
_POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Split:
    """One split to be written.

    Attributes:
        name: what the names of its shards begin with, such as "train".
        items: one per record, in the order of the records.
        make_record: turns an item into a serialized tf.train.Example. It runs in other processes, so it must be
            picklable: a function of a module, or a functools.partial of one.
    """

    name: str
    items: Sequence[Any]
    make_record: Callable[[Any], bytes]


class ShardedOutput:
    """A folder that receives shards. As a context manager, it makes the folder and finds out whether it can be written
    before any work is done; on the way out it removes all traces of an unfinished run.

    Shards are written to a hidden folder inside the output folder and moved to their places once every split is
    complete, so that no reader ever sees part of a data set, and a failed run leaves the folder as it was.

    Args:
        output_dir: a local folder; made if need be.
        num_shards: files a split; None chooses one per 128 images. Never more than there are images.
        num_processes: None chooses as many as pay off on this machine.

    Raises:
        DataError: the folder cannot be made or written (on entering).
    """

    def __init__(self, output_dir: str, num_shards: int | None = None, num_processes: int | None = None):
        self._output_dir = os.fspath(output_dir)
        self._num_shards = num_shards
        self._num_processes = num_processes
        self._made: list[str] = []
        self._unfinished = ""

    def __enter__(self) -> ShardedOutput:
        if "://" in self._output_dir:
            raise DataError(f"output_dir: expected a local folder (copy the shards later), came {self._output_dir}")
        self._made = _missing_folders(self._output_dir)
        try:
            os.makedirs(self._output_dir, exist_ok=True)
            self._unfinished = tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._output_dir)
        except OSError as error:
            self._remove_made_folders()
            raise DataError(f"output_dir: cannot write to {self._output_dir}: {error.strerror}") from error
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        shutil.rmtree(self._unfinished, ignore_errors=True)
        if error_type is not None:
            self._remove_made_folders()

    def write(self, splits: Sequence[Split]) -> list[str]:
        """Writes all splits and returns the paths of their shards, `<split>-<number>-of-<count>.tfrecord`.

        The records of a split lie in the shards in order, as evenly as possible. Shards of an earlier run are
        replaced if there are as many of them.

        Raises:
            DataError: what `make_record` raises; no items; shards of an earlier run that would stay between the new
                ones because their number is another; a disk that is full.
        """
        shards = [shard for split in splits for shard in self._shards(split)]
        self._write_all(shards)
        paths = [os.path.join(self._output_dir, shard.name) for shard in shards]
        for path in paths:
            os.replace(os.path.join(self._unfinished, os.path.basename(path)), path)
        for split in splits:
            count = sum(shard.split.name == split.name for shard in shards)
            print(f"{split.name}: {len(split.items)} images in {count} shards in {self._output_dir}")
        return paths

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

    def _write_all(self, shards: list[_Shard]) -> None:
        total = sum(shard.stop - shard.start for shard in shards)
        processes = self._num_processes or min(os.cpu_count() or 1, max(1, total // _IMAGES_PER_PROCESS))
        context = multiprocessing.get_context("spawn")
        progress = _Progress(context.Value("q", 0), context.Event())
        with _executor(min(processes, len(shards)), context, progress) as executor:
            futures = [
                executor.submit(
                    _write_shard,
                    os.path.join(self._unfinished, shard.name),
                    shard.split.items[shard.start : shard.stop],
                    shard.split.make_record,
                )
                for shard in shards
            ]
            try:
                _show_progress(futures, progress, total)
            except BaseException:
                progress.stop.set()
                executor.shutdown(wait=False, cancel_futures=True)
                raise

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


@dataclasses.dataclass(frozen=True)
class _Progress:
    """What workers and parent tell each other: records written so far, and whether to stop."""

    written: Any
    stop: Any


_progress: _Progress | None = None


def _begin_work(progress: _Progress, in_other_process: bool) -> None:
    global _progress
    _progress = progress
    if in_other_process:
        # Ctrl-C reaches every process; the parent answers it for all.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _executor(processes: int, context, progress: _Progress) -> Iterator[concurrent.futures.Executor]:
    """Other processes, or for one a thread of this one, which spares the start of Python and TensorFlow."""
    if processes == 1:
        with concurrent.futures.ThreadPoolExecutor(1, initializer=_begin_work, initargs=(progress, False)) as executor:
            yield executor
        return
    # Every process would repeat what TensorFlow says of the machine; the parent has said it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with concurrent.futures.ProcessPoolExecutor(processes, context, _begin_work, (progress, True)) as executor:
        yield executor


def _write_shard(path: str, items: Sequence[Any], make_record: Callable[[Any], bytes]) -> None:
    import tensorflow as tf  # Late, so that a mistake in the flags is told at once.

    try:
        with tf.io.TFRecordWriter(path) as writer:
            for item in items:
                if _progress.stop.is_set():
                    return
                writer.write(make_record(item))
                with _progress.written.get_lock():
                    _progress.written.value += 1
    except (OSError, tf.errors.OpError) as error:
        # Errors of TensorFlow cannot be sent between processes.
        raise DataError(f"{path}: cannot write the shard: {error}") from None


def _show_progress(futures: list[concurrent.futures.Future], progress: _Progress, total: int) -> None:
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
