"""The report of a checkpoint: its network runs once, so slots, calibration and thresholds can be told as well."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from deeplab2_kmax.checkpoints import resolve_checkpoint
from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset
from deeplab2_kmax.evaluation.panoptic_quality import Categories
from deeplab2_kmax.input_pipeline import build_dataset, data_errors
from deeplab2_kmax.postprocessing import build_postprocessor, undo_resize
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.results.report_data import LabelledMap, ReportImage, gather
from deeplab2_kmax.results.report_page import About, Sweep, report_page
from deeplab2_kmax.tuning.network_outputs import network_outputs
from deeplab2_kmax.tuning.raw_outputs import RawOutputs
from deeplab2_kmax.tuning.scoring import image_states, result_of
from deeplab2_kmax.tuning.search_space import Dimension, search_space, with_values
from deeplab2_kmax.wording import counted

_MAPS = ("panoptic_pred", "semantic_scores", "instance_scores")
_SWEEP_IMAGES = 100
_SWEEP_VALUES = 7


def checkpoint_report(
    config: config_pb2.ExperimentOptions,
    checkpoint: str | os.PathLike[str],
    command: str,
    *,
    outputs: str | None = None,
    most_images: int = 500,
    pictures: int = 6,
    sweeps: bool = True,
    say: Callable[[str], object] = print,
) -> str:
    """The page of a checkpoint on its evaluation images.

    Args:
        config: the experiment.
        checkpoint: a prefix, or a folder, of which the last whole checkpoint is taken.
        command: that makes the report.
        outputs: folder where raw outputs are kept, see `network_outputs`.
        most_images: how many images at most.
        pictures: how many of the best and of the worst images are shown.
        sweeps: whether PQ is measured under other thresholds.
        say: prints a line.

    Raises:
        UserError: as `network_outputs`.
    """
    prefix = resolve_checkpoint(os.fspath(checkpoint))
    kept = network_outputs(config, prefix, outputs, most_images, say)
    descriptor = load_dataset(config.eval_dataset_options.dataset)
    data = gather(_report_images(config, kept, descriptor), Categories(descriptor.name, descriptor.classes), pictures)
    found = _pictures(config, {judged.number for judged in (*data.worst(), *data.best())})
    measured = kept[:: -(-len(kept) // _SWEEP_IMAGES)]
    about = About(
        title=config.experiment_name or "Report",
        subtitle=f"{prefix} \N{MIDDLE DOT} {descriptor.name}",
        command=command,
        all_slots=len(kept[0].class_logits),
        sweeps=_sweeps(config, measured, say) if sweeps else (),
        sweep_images=len(measured),
    )
    return report_page(data, about, lambda judged: found.get(judged.number))


def _report_images(
    config: config_pb2.ExperimentOptions, images: Sequence[RawOutputs], descriptor: DatasetDescriptor
) -> Iterator[ReportImage]:
    """The maps of each image, with confidence and slot of each predicted segment."""
    postprocess = build_postprocessor(config)
    for image in images:
        outputs = image.outputs()
        maps = postprocess({name: values[np.newaxis] for name, values in outputs.items()})
        undone = undo_resize({name: maps[name] for name in _MAPS}, image.size_resized, image.truth.shape)
        panoptic, class_scores, mask_scores = (undone[name].numpy()[0] for name in _MAPS)
        yield ReportImage(
            image.name,
            _labelled(image.truth, descriptor),
            _labelled(panoptic, descriptor),
            _mean_by_segment(panoptic, class_scores * mask_scores),
            _slot_by_segment(maps["panoptic_pred"].numpy()[0], next(iter(outputs.values()))),
        )


def _labelled(panoptic: np.ndarray, descriptor: DatasetDescriptor) -> LabelledMap:
    index = {c.id: number for number, c in enumerate(descriptor.classes)}
    ids = np.unique(panoptic).tolist()
    classes = {i: index[i // descriptor.label_divisor] for i in ids if i // descriptor.label_divisor in index}
    crowds = {i for i in classes if descriptor.classes[classes[i]].is_thing and i % descriptor.label_divisor == 0}
    return LabelledMap(panoptic, classes, frozenset(crowds))


def _mean_by_segment(panoptic: np.ndarray, scores: np.ndarray) -> dict[int, float]:
    ids, index = np.unique(panoptic, return_inverse=True)
    index = index.reshape(-1)
    means = np.bincount(index, scores.reshape(-1)) / np.bincount(index)
    return dict(zip(ids.tolist(), means.tolist()))


def _slot_by_segment(panoptic: np.ndarray, mask_logits: np.ndarray) -> dict[int, int]:
    """The slot that is the strongest at most logit pixels of each segment of a map at the network's input size.

    Segments without such a pixel, smaller than the stride of the logits, have none. Of stuff, which several slots may
    find together, it is the slot with the largest part.
    """
    strongest = mask_logits.argmax(-1)
    rows, columns = (
        np.rint(np.linspace(0, side - 1, count)).astype(int) for side, count in zip(panoptic.shape, strongest.shape)
    )
    # Corners are aligned, so pixels of the logits are pixels of the map.
    pairs, counts = np.unique(
        np.stack([panoptic[rows][:, columns].reshape(-1), strongest.reshape(-1)]), axis=1, return_counts=True
    )
    order = np.argsort(counts, kind="stable")  # The last one of a segment stays.
    return dict(pairs[:, order].T.tolist())


def _pictures(config: config_pb2.ExperimentOptions, numbers: set[int]) -> dict[int, np.ndarray]:
    """The images at these places of the evaluation data, without padding, as the network sees them."""
    found: dict[int, np.ndarray] = {}
    options = config.eval_dataset_options
    start = 0
    with data_errors(options, is_training=False):
        for batch in build_dataset(options, is_training=False):
            sizes = batch["size_resized"].numpy()
            for number in sorted(numbers & set(range(start, start + len(sizes)))):
                height, width = sizes[number - start]
                pixels = batch["image"][number - start, :height, :width].numpy()
                found[number] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
            start += len(sizes)
            if len(found) == len(numbers):
                break
    return found


def _sweeps(
    config: config_pb2.ExperimentOptions, images: Sequence[RawOutputs], say: Callable[[str], object]
) -> list[Sweep]:
    """PQ under other values of each threshold."""
    say(f"measuring other thresholds on {counted(len(images), 'image')}")
    sweeps = []
    for dimension in search_space(config):
        present = dimension.value_in(config)
        values = sorted({*_spread(dimension), present})
        measured = []
        for value in values:
            tried = with_values(config, {dimension.path: value})
            measured.append((float(value), result_of(tried, image_states(tried, images)).all.pq))
        sweeps.append(Sweep(dimension.path, float(present), measured))
    return sweeps


def _spread(dimension: Dimension) -> list[float]:
    """Values that can be tried, over the whole range."""
    steps = round((dimension.high - dimension.low) / dimension.step)
    chosen = dict.fromkeys(round(k * steps / (_SWEEP_VALUES - 1)) for k in range(_SWEEP_VALUES))
    values = [dimension.low + step * dimension.step for step in chosen]
    return [int(value) for value in values] if dimension.is_whole else [round(value, 6) for value in values]
