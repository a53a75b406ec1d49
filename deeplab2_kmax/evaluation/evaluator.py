"""Measures a model on a data set: its losses, and panoptic, semantic and instance metrics at the images' own sizes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orbit
import tensorflow as tf

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.distribution import gather_from_workers, sum_over_workers
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.compared_maps import ComparedMaps
from deeplab2_kmax.evaluation.mean_iou import MeanIoU, MeanIoUResult
from deeplab2_kmax.evaluation.metric import MetricResult
from deeplab2_kmax.evaluation.metric_set import MetricSet, MetricSettings, scalars_of
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQuality
from deeplab2_kmax.evaluation.per_image import ImageFigures, figures_path
from deeplab2_kmax.evaluation.prediction_files import PredictionFiles
from deeplab2_kmax.evaluation.report import quality_json, quality_table, result_path
from deeplab2_kmax.evaluation.summary_pictures import SummaryPictures
from deeplab2_kmax.files import write_json
from deeplab2_kmax.postprocessing import LOGITS, undo_resize
from deeplab2_kmax.terminal import ERASE_LINE
from deeplab2_kmax.wording import counted

_PREDICTIONS = ("panoptic_pred", "semantic_pred")
_SCORES = ("instance_scores", "semantic_scores")
_LABELS = ("panoptic_raw", "semantic_raw")
_IMAGE_FACTS = ("size_resized", "size_raw", "image_name")
# Entries of a batch that the model does not get. They are strings, or as large as the original images: XLA, which
# compiles for TPUs, takes no strings and would compile anew for each size.
_HOST_ONLY = {*_LABELS, "image_name", "is_crowd_raw", "resized_image"}
# Seconds between lines of progress, on a terminal and elsewhere (a log file, say).
_PROGRESS_TERMINAL = 1.0
_PROGRESS_LOG = 30.0


class Evaluator(orbit.StandardEvaluator):
    """Evaluates with orbit's loop, with any batch size, on all replicas; metrics run on the host, image by image.

    The metrics run on the host because images are scored at their original sizes, which differ, and counting pixels by
    segment does not suit a GPU. With several processes each counts its own images; their sums are added up at the end,
    so that every process has the figures of all images.

    Args:
        model: `model(images [B, H, W, 3], training=False)` -> dict of outputs.
        loss: `loss(batch, outputs)` -> dict of float32 terms, [B] each.
        loss_names: the terms to report, those of the final output (evaluation has no auxiliary outputs).
        postprocess: `f(outputs)` -> dict of maps [B, H, W] at crop size: `panoptic_pred` and `semantic_pred` int32 and,
            if there are labels, `instance_scores` and `semantic_scores` float32.
        descriptor: the data set.
        dataset: evaluation batches, a tf.data.Dataset or a distributed one; see `input_pipeline.build_dataset`.
        global_step: int64 scalar variable, the step of the checkpoint under evaluation.
        output_folder: where `metrics-<step>.json` and `images-<step>.npz` are written; may be remote.
        files: writes predictions of this process's images; None: writes none.
        pictures: writes pictures for TensorBoard; None: writes none.
        metrics: which metrics there are beside panoptic quality and mean IoU.
        per_class: whether to return PQ, SQ and RQ of each class that occurs, too.
        has_labels: whether the data set has labels; without them nothing is measured, and only predictions are written.
        use_tf_function: whether to run the model as a graph; eager execution is for debugging.
        postprocess_on_host: whether maps are made outside of the replicas. XLA, which TPUs need, can compile neither
            the choice of the pixels that are contested nor the loops over as many as there are.
        settings: identifies what the figures depend on besides the checkpoint; results under other settings are kept.
        say: prints lines of progress and the table of results.
    """

    def __init__(
        self,
        *,
        model: Callable,
        loss: Callable[[Mapping, Mapping], Mapping[str, tf.Tensor]],
        loss_names: Sequence[str],
        postprocess: Callable[[dict[str, tf.Tensor]], Mapping[str, tf.Tensor]],
        descriptor: DatasetDescriptor,
        dataset: tf.data.Dataset | tf.distribute.DistributedDataset,
        global_step: tf.Variable,
        output_folder: str,
        files: PredictionFiles | None = None,
        pictures: SummaryPictures | None = None,
        metrics: MetricSettings | None = None,
        per_class: bool = False,
        has_labels: bool = True,
        use_tf_function: bool = True,
        postprocess_on_host: bool = False,
        settings: str = "",
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__(dataset, orbit.StandardEvaluatorOptions(use_tf_function))
        self._strategy = tf.distribute.get_strategy()
        self._model = model
        self._loss = loss
        self._postprocess = postprocess
        self._descriptor = descriptor
        self._global_step = global_step
        self._output_folder = output_folder
        self._files = files
        self._pictures = pictures
        self._metrics = metrics
        self._per_class = per_class
        self._has_labels = has_labels
        self._postprocess_on_host = postprocess_on_host
        self._settings = settings
        self._say = say
        self._loss_means = {name: tf.keras.metrics.Mean(f"eval_{name}") for name in loss_names if has_labels}

    @property
    def figure_names(self) -> tuple[str, ...]:
        """The names of the figures that an evaluation returns without `per_class`; none without labels."""
        if not self._has_labels:
            return ()
        # Results of no images have the same names as others.
        losses = (f"losses/{mean.name}" for mean in self._loss_means.values())
        iou, quality = MeanIoU(self._descriptor).result(), PanopticQuality(self._descriptor).result()
        others = scalars_of(self._no_others().results())
        return (*losses, *iou.as_scalars(), *quality.as_scalars(), *others)

    def eval_begin(self) -> None:
        """Starts an evaluation with all figures at zero; orbit calls it, and the methods below."""
        for mean in self._loss_means.values():
            mean.reset_state()
        self._panoptic_quality = PanopticQuality(self._descriptor)
        self._figures = self._no_figures()
        self._mean_iou = MeanIoU(self._descriptor)
        self._others = self._no_others()
        self._progress = _Progress(self._say)
        if self._files is not None:
            self._files.begin()
        if self._pictures is not None:
            self._pictures.begin()

    def eval_step(self, iterator: Any) -> dict[str, tuple[tf.Tensor, ...]]:
        """Predicts one batch; runs within the graph, once for all replicas.

        Args:
            iterator: over the data set.

        Returns:
            For `eval_reduce`: maps (or what they are made from), labels and facts of the images, a tensor [b, ...] for
            each replica of this process.
        """
        batch = next(iterator)
        for_replicas = {name: values for name, values in batch.items() if name not in _HOST_ONLY}
        results = dict(self._strategy.run(self._replica_step, args=(for_replicas,)))
        results.update({name: batch[name] for name in (*_IMAGE_FACTS, *(_LABELS if self._has_labels else ()))})
        if self._pictures is not None or (self._files is not None and self._files.pictures):
            results["image"] = batch["image"]
        # Only the results of this process's own replicas: no images travel between machines.
        return {name: self._strategy.experimental_local_results(values) for name, values in results.items()}

    def _replica_step(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        images = tf.shape(batch["image"])[0]
        # The last images of a data set may be too few for all replicas. A replica without any runs the model
        # on an image of zeros, so that no layer or loss has to cope with an empty batch; its results are cut off again.
        filled = _at_least_one(batch) if self._strategy.num_replicas_in_sync > 1 else batch
        outputs = self._model(filled["image"], training=False)
        if self._loss_means:
            terms = self._loss(filled, outputs)
            # Keras adds up over all replicas. There is one loss for each image, so the mean is over images, and
            # a smaller last batch weighs less.
            for name, mean in self._loss_means.items():
                mean.update_state(terms[name][:images])
        results, names = (outputs, LOGITS) if self._postprocess_on_host else (self._postprocess(outputs), self._maps)
        return {name: results[name][:images] for name in names}

    def eval_reduce(self, state: Any = None, step_outputs: Any = None) -> Any:
        """Scores the images of one step on the host.

        Args:
            state: orbit's, returned as it is; the metrics keep their own sums.
            step_outputs: what `eval_step` returned.
        """
        for replica in range(len(step_outputs["size_raw"])):
            results = {name: values[replica] for name, values in step_outputs.items()}
            if self._postprocess_on_host:
                maps = self._postprocess({name: results.pop(name) for name in LOGITS})
                results.update({name: maps[name] for name in self._maps})
            batch = {name: values.numpy() for name, values in results.items()}
            for index in range(len(batch["panoptic_pred"])):
                self._add({name: values[index] for name, values in batch.items()})
        self._progress.show()
        return state

    def _add(self, image: Mapping[str, Any]) -> None:
        """Scores one image and writes its files; `image` holds arrays, and `image_name` as bytes."""
        height, width = (int(side) for side in image["size_raw"])
        maps = {name: image[name][np.newaxis] for name in self._maps}
        maps = undo_resize(maps, image["size_resized"], image["size_raw"])
        prediction = {name: np.asarray(values)[0] for name, values in maps.items()}
        truth = semantic_truth = None
        if self._has_labels:
            # Batches pad smaller images below and to the right.
            truth, semantic_truth = (image[name][:height, :width] for name in _LABELS)
            instance_scores, semantic_scores = (prediction[name] for name in _SCORES)
            compared = ComparedMaps(
                truth,
                prediction["panoptic_pred"],
                instance_scores,
                semantic_scores,
                _name(image),
                semantic_truth,
                prediction["semantic_pred"],
            )
            state = self._panoptic_quality.add(*compared.segments(self._descriptor), compared.overlaps.pixels)
            self._figures.add(_name(image), state)
            self._mean_iou.update(semantic_truth, prediction["semantic_pred"])
            self._others.update(compared)
        self._write(image, truth, semantic_truth, prediction)
        self._progress.images += 1

    def _write(
        self,
        image: Mapping[str, Any],
        truth: np.ndarray | None,
        semantic_truth: np.ndarray | None,
        prediction: Mapping[str, np.ndarray],
    ) -> None:
        """Writes the files and the picture of one image, as far as they are wanted."""
        name = _name(image)
        # The rest of the network's input is padding.
        rows, columns = image["size_resized"]
        if self._files is not None:
            picture = image["image"][:rows, :columns] if self._files.wants_picture() else None
            panoptic, semantic = (prediction[name] for name in _PREDICTIONS)
            self._files.write(name, panoptic, truth, picture, semantic, semantic_truth)
        if self._pictures is not None and self._pictures.wants_picture():
            self._pictures.add(name, image["image"][:rows, :columns], truth, prediction["panoptic_pred"])

    def eval_end(self) -> dict[str, float]:
        """Prints the results; writes them to `metrics-<step>.json`, and those of each image to `images-<step>.npz`.

        Returns:
            The figures by DeepLab2's TensorBoard names, with `per_class` those of classes too; none without labels.

        Raises:
            DataError: there was no image.
            OSError: a file cannot be written.
        """
        # Every process has to take part in the sums, and in the same order, or the others would wait forever.
        self._progress.images = images = int(sum_over_workers(np.array(self._progress.images)))
        self._progress.end()
        if self._files is not None:
            self._files.end()
        if not images:
            raise DataError(
                "evaluation: expected at least one image, got none; the data set has no record that is read"
            )
        if not self._has_labels:
            return {}
        figures, mean_iou, others = self._results_of_all_workers()
        quality = figures.result()
        losses = {f"losses/{mean.name}": float(mean.result()) for mean in self._loss_means.values()}
        step = int(self._global_step.numpy())
        path = result_path(self._output_folder, step, images, self._settings)
        facts = {"step": step, "images": images, "settings": self._settings, "losses": losses}
        figures.save(figures_path(path))
        write_json(path, quality_json(quality, mean_iou, others, **facts))
        table = quality_table(quality, mean_iou, others=others)
        self._say(f"{table}\n\nstep {step}, {counted(images, 'image')}; per class in {path}")
        of_classes = quality.class_scalars() if self._per_class else {}
        return {**losses, **mean_iou.as_scalars(), **quality.as_scalars(), **scalars_of(others), **of_classes}

    @property
    def _maps(self) -> tuple[str, ...]:
        """The maps that are needed; scores are for metrics only."""
        return (*_PREDICTIONS, *_SCORES) if self._has_labels else _PREDICTIONS

    def _no_others(self) -> MetricSet:
        return MetricSet(self._descriptor, self._metrics)

    def _no_figures(self) -> ImageFigures:
        return ImageFigures(self._descriptor.name, self._descriptor.classes, self._settings)

    def _results_of_all_workers(self) -> tuple[ImageFigures, MeanIoUResult, dict[str, MetricResult]]:
        """The results over the images of all processes."""
        # New ones, so that what this process alone has counted stays as it is.
        figures, mean_iou, others = self._no_figures(), MeanIoU(self._descriptor), self._no_others()
        for number, content in enumerate(gather_from_workers(self._figures.to_bytes())):
            figures.extend(ImageFigures.from_bytes(content, f"figures of worker {number}"))
        mean_iou.merge(sum_over_workers(self._mean_iou.state))
        for content in gather_from_workers(self._others.to_bytes()):
            others.merge(content)
        return figures, mean_iou.result(), others.results()


def _name(image: Mapping[str, Any]) -> str:
    """The name of an image in its record, as text."""
    name: str = image["image_name"].decode(errors="backslashreplace")
    return name


def _at_least_one(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The batch itself, or one image of zeros where the batch is empty."""

    def fill(values: tf.Tensor) -> tf.Tensor:
        missing = tf.maximum(0, 1 - tf.shape(values)[0])
        return tf.pad(values, [[0, missing], *[[0, 0]] * (values.shape.rank - 1)])

    return {name: fill(values) for name, values in batch.items()}


class _Progress:
    """Tells from time to time how many images are done and how fast."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._terminal = sys.stdout.isatty()
        self._start = self._last = time.monotonic()
        self.images = 0

    def show(self) -> None:
        now = time.monotonic()
        if now - self._last < (_PROGRESS_TERMINAL if self._terminal else _PROGRESS_LOG):
            return
        self._last = now
        if self._terminal:
            # Each line of progress replaces the one before.
            print(f"{ERASE_LINE}{self._text()}", end="", flush=True)
        else:
            self._say(self._text())

    def end(self) -> None:
        if self._terminal:
            print(ERASE_LINE, end="", flush=True)
        self._say(self._text())

    def _text(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-9)
        return f"evaluated {counted(self.images, 'image')} in {seconds:.0f} s ({self.images / seconds:.3g} images/s)"
