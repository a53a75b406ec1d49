"""Scores pairs of a true and a predicted label map, whatever files they lie in, in several processes.

What reads files stands elsewhere: `coco_format` for COCO's panoptic format, `scoring` for all others. It makes
`TrueImage`s and `PredictedImage`s, which say how to read a map and what the segments in it are.
"""

from __future__ import annotations

import collections
import concurrent.futures
import concurrent.futures.process
import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.panoptic_quality import Segments, compare_segments, overlap_table
from deeplab2_kmax.evaluation.per_image import ImageFigures
from deeplab2_kmax.stop_signals import end_with_parent

# A process gets so many pairs at once: a tenth of a second of work, against a millisecond to hand them over.
_PAIRS_AT_ONCE = 16
# For fewer images, starting processes takes longer than they save.
_IMAGES_PER_PROCESS = 25
# So many parts for each process wait for it, so that it never waits for the next one.
_PARTS_AHEAD = 4


class TrueImage(Protocol):
    """A label map of the truth. It is sent to other processes, so it holds what is needed to find the map."""

    @property
    def name(self) -> str:
        """What results call the image."""

    @property
    def path(self) -> str:
        """Where the map is, for messages."""

    def read(self) -> np.ndarray:
        """The map, [H, W] of whole numbers: ids of segments."""

    def segments(self, ids: np.ndarray, overlaps: np.ndarray) -> tuple[Segments, np.ndarray]:
        """The segments that count, void among them.

        Args:
            ids: int64 [T], the ids that occur in the map, ascending.
            overlaps: float64 [T, P], pixels that each shares with the predicted ids.

        Returns:
            The segments; float64 [S, P], pixels that each shares with the predicted ids.
        """


class PredictedImage(Protocol):
    """A predicted label map; see `TrueImage`."""

    @property
    def path(self) -> str:
        """Where the map is, for messages."""

    def read(self) -> np.ndarray:
        """The map, [H, W] of whole numbers: ids of segments."""

    def segments(self, ids: np.ndarray, areas: np.ndarray) -> Segments:
        """The segments of the ids int64 [P] that occur in the map, which have `areas` float64 [P] pixels."""


class Pair(NamedTuple):
    """Truth and prediction of one image."""

    truth: TrueImage
    prediction: PredictedImage


def score_pair(pair: Pair, num_classes: int) -> np.ndarray:
    """What one image adds to `PanopticQuality.state`, float64 [4, C].

    Raises:
        DataError: a map cannot be read, the sizes differ, or an id is not what it may be. The message names the file.
    """
    truth, prediction = pair
    true_ids, predicted_ids, overlaps = overlap_table(*read_maps(pair))
    predicted_segments = prediction.segments(predicted_ids, overlaps.sum(0))
    true_segments, overlaps = truth.segments(true_ids, overlaps)
    return compare_segments(true_segments, predicted_segments, overlaps, num_classes)


def read_maps(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """The ids in truth and prediction, both [H, W]; raises DataError as `score_pair` does."""
    truth, prediction = pair
    true_map, predicted_map = truth.read(), prediction.read()
    if true_map.shape != predicted_map.shape:
        raise DataError(
            f"{prediction.path}: expected the size of {truth.path}, {list(true_map.shape)}; "
            f"got {list(predicted_map.shape)}. Bring predictions to the size of their truth, by nearest neighbors"
        )
    return true_map, predicted_map


def score_pairs(
    figures: ImageFigures,
    pairs: Sequence[Pair],
    processes: int | None = 1,
    on_progress: Callable[[int], object] = lambda images: None,
) -> None:
    """Scores all pairs and adds them to `figures`, in their order.

    Args:
        figures: of the classes of the truth.
        pairs: the images.
        processes: how many processes to use; None: one for each core, or fewer if there are few images. The result does
            not depend on it.
        on_progress: called with a number of images that are done now.

    Raises:
        DataError: as for `score_pair`; of several images that are at fault, the first.
    """
    if processes is None:
        processes = min(os.cpu_count() or 1, len(pairs) // _IMAGES_PER_PROCESS)
    num_classes = len(figures.classes)
    at_once = max(1, min(_PAIRS_AT_ONCE, -(-len(pairs) // (_PARTS_AHEAD * max(1, processes)))))
    parts = [pairs[start : start + at_once] for start in range(0, len(pairs), at_once)]
    for part, states in zip(parts, _states(parts, num_classes, processes)):
        for pair, state in zip(part, states):
            figures.add(pair.truth.name, state)
        on_progress(len(part))


def _score_part(part: Sequence[Pair], num_classes: int) -> list[np.ndarray]:
    return [score_pair(pair, num_classes) for pair in part]


def _states(parts: Sequence[Sequence[Pair]], num_classes: int, processes: int) -> Iterator[list[np.ndarray]]:
    """The states of each part, in their order."""
    if processes <= 1:
        for part in parts:
            yield _score_part(part, num_classes)
        return
    with _executor(min(processes, len(parts))) as executor:
        # Not all at once: what waits takes memory.
        waiting: collections.deque[concurrent.futures.Future[list[np.ndarray]]] = collections.deque()
        rest = iter(parts)

        def submit(count: int) -> None:
            for part in itertools.islice(rest, count):
                waiting.append(executor.submit(_score_part, part, num_classes))

        try:
            with _deaf_to_ctrl_c():  # The processes start here, and stay deaf: this one tells them to stop.
                submit(_PARTS_AHEAD * processes)
            while waiting:
                yield waiting.popleft().result()
                submit(1)
        except concurrent.futures.process.BrokenProcessPool as error:
            raise DataError(
                "a process that scored images was killed, perhaps because memory ran out; use fewer processes"
            ) from error
        except BaseException:
            executor.shutdown(wait=True, cancel_futures=True)
            raise


def _executor(processes: int) -> concurrent.futures.ProcessPoolExecutor:
    # A fork is there at once, where a new Python would take longer to import what it needs than to score a hundred
    # images. But it would copy the locks of TensorFlow's threads in an undefined state.
    can_fork = sys.platform == "linux" and "tensorflow" not in sys.modules
    context = multiprocessing.get_context("fork" if can_fork else "spawn")
    return concurrent.futures.ProcessPoolExecutor(processes, context, _begin_work)


def _begin_work() -> None:
    """Prepares a process that scores images; what a copied main program does at signals is none of its business."""
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            signal.signal(number, signal.SIG_DFL)
    # Else it would wait for work for ever.
    end_with_parent()


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started here do not hear Ctrl-C, which reaches all processes of a terminal; this one does later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with warnings.catch_warnings():
            # Python warns of a fork while there are other threads: NumPy's, which are made for it, and the one that
            # waits for signals, which holds no lock that a copy needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
