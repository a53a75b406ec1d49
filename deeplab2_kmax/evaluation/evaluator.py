"""Measures a model on a data set: losses, panoptic quality and mean IoU at the images' original sizes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import orbit
import tensorflow as tf

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.distribution import sum_over_workers
from deeplab2_kmax.evaluation.mean_iou import MeanIoU
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQuality
from deeplab2_kmax.evaluation.prediction_files import PredictionFiles
from deeplab2_kmax.evaluation.report import quality_json, quality_table, write_json
from deeplab2_kmax.evaluation.summary_pictures import SummaryPictures
from deeplab2_kmax.postprocessing import undo_resize

_PREDICTIONS = ("panoptic_pred", "semantic_pred")
_LABELS = ("panoptic_raw", "semantic_raw")
_SIZES = ("size_resized", "size_raw", "image_name")
# At the images' own sizes, or strings: nothing for XLA, which compiles what runs on TPUs.
_ON_HOST_ONLY = {*_LABELS, "image_name", "is_crowd_raw", "resized_image"}
_PROGRESS_TERMINAL = 1.0
_PROGRESS_LOG = 30.0


class Evaluator(orbit.StandardEvaluator):
    """Evaluates with orbit's loop, any batch size on all replicas; the metrics run on the host, image by image.

    Several processes count their own images and add up the sums at the end, so that each has the figures of all.

    Args:
        model: `model(images [B, H, W, 3], training=False)` -> dict of outputs.
        loss: `loss(batch, outputs)` -> dict of [B] float32 terms.
        loss_names: the terms to report; those of the final output.
        postprocess: `f(outputs)` -> dict with `panoptic_pred` and `semantic_pred`, [B, H, W] int32 at crop size.
        descriptor: the data set.
        dataset: distributed data set of evaluation batches, see `input_pipeline.build_dataset`.
        global_step: int64 scalar variable; results are filed under its value.
        output_folder: `metrics-<step>.json` is written there.
        files: writes predictions of this process's images; None: none are wanted.
        pictures: writes pictures for TensorBoard; None: none are wanted.
        per_class: also returns PQ, SQ and RQ of each class that occurs.
        has_labels: False measures nothing and only writes predictions.
        use_tf_function: False runs the model eagerly, for debugging.
        say: takes lines of progress and the table of results.
    """

    def __init__(
        self,
        *,
        model: tf.keras.Model,
        loss: Callable[[Mapping, Mapping], Mapping[str, tf.Tensor]],
        loss_names: Sequence[str],
        postprocess: Callable[[Mapping], Mapping[str, tf.Tensor]],
        descriptor: DatasetDescriptor,
        dataset,
        global_step: tf.Variable,
        output_folder: str,
        files: PredictionFiles | None = None,
        pictures: SummaryPictures | None = None,
        per_class: bool = False,
        has_labels: bool = True,
        use_tf_function: bool = True,
        say: Callable[[str], None] = print,
    ):
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
        self._per_class = per_class
        self._has_labels = has_labels
        self._say = say
        self._loss_means = {name: tf.keras.metrics.Mean(f"eval_{name}") for name in loss_names if has_labels}

    @property
    def figure_names(self) -> tuple[str, ...]:
        """The names of the figures an evaluation yields; none without labels."""
        if not self._has_labels:
            return ()
        results = (MeanIoU(self._descriptor).result(), PanopticQuality(self._descriptor).result())
        losses = (f"losses/{mean.name}" for mean in self._loss_means.values())
        return (*losses, *(name for result in results for name in result.as_scalars()))

    def eval_begin(self):
        for mean in self._loss_means.values():
            mean.reset_state()
        self._panoptic_quality = PanopticQuality(self._descriptor)
        self._mean_iou = MeanIoU(self._descriptor)
        self._progress = _Progress(self._say)
        if self._files is not None:
            self._files.begin()
        if self._pictures is not None:
            self._pictures.begin()

    def eval_step(self, iterator):
        batch = next(iterator)
        for_replicas = {name: values for name, values in batch.items() if name not in _ON_HOST_ONLY}
        results = dict(self._strategy.run(self._replica_step, args=(for_replicas,)))
        results.update({name: batch[name] for name in (*_SIZES, *(_LABELS if self._has_labels else ()))})
        if self._pictures is not None or (self._files is not None and self._files.pictures):
            results["image"] = batch["image"]
        return {name: self._strategy.experimental_local_results(values) for name, values in results.items()}

    def _replica_step(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        images = tf.shape(batch["image"])[0]
        # The last images of a data set may be too few for all replicas.
        filled = _at_least_one(batch) if self._strategy.num_replicas_in_sync > 1 else batch
        outputs = self._model(filled["image"], training=False)
        if self._loss_means:
            terms = self._loss(filled, outputs)
            for name, mean in self._loss_means.items():
                mean.update_state(terms[name][:images])
        maps = self._postprocess(outputs)
        return {name: maps[name][:images] for name in _PREDICTIONS}

    def eval_reduce(self, state=None, step_outputs=None):
        for replica in range(len(step_outputs["panoptic_pred"])):
            batch = {name: values[replica].numpy() for name, values in step_outputs.items()}
            for index in range(len(batch["panoptic_pred"])):
                self._add({name: values[index] for name, values in batch.items()})
        self._progress.show()
        return state

    def _add(self, image: Mapping[str, np.ndarray]) -> None:
        """Counts one image, and writes its files."""
        height, width = (int(side) for side in image["size_raw"])
        maps = {name: image[name][np.newaxis] for name in _PREDICTIONS}
        maps = undo_resize(maps, image["size_resized"], image["size_raw"])
        prediction = {name: np.asarray(values)[0] for name, values in maps.items()}
        truth = None
        if self._has_labels:
            # Batches pad smaller images below and to the right.
            truth = image["panoptic_raw"][:height, :width]
            self._panoptic_quality.update(truth, prediction["panoptic_pred"])
            self._mean_iou.update(image["semantic_raw"][:height, :width], prediction["semantic_pred"])
        self._show(image, truth, prediction["panoptic_pred"])
        self._progress.images += 1

    def _show(self, image: Mapping[str, np.ndarray], truth: np.ndarray | None, prediction: np.ndarray) -> None:
        """Writes files and pictures of one image, where they are wanted."""
        name = image["image_name"].decode()
        rows, columns = image["size_resized"]
        if self._files is not None:
            picture = image["image"][:rows, :columns] if self._files.wants_picture() else None
            self._files.write(name, prediction, truth, picture)
        if self._pictures is not None and self._pictures.wants_picture():
            self._pictures.add(name, image["image"][:rows, :columns], truth, prediction)

    def eval_end(self):
        """Prints and files the results; returns them by DeepLab2's TensorBoard names, empty without labels."""
        self._progress.images = images = int(sum_over_workers(np.array(self._progress.images)))
        self._progress.end()
        if not self._has_labels:
            return {}
        quality, mean_iou = (self._of_all_workers(metric) for metric in (self._panoptic_quality, self._mean_iou))
        losses = {f"losses/{mean.name}": float(mean.result()) for mean in self._loss_means.values()}
        step = int(self._global_step.numpy())
        path = os.path.join(self._output_folder, f"metrics-{step}.json")
        write_json(quality_json(quality, mean_iou, step=step, images=images, losses=losses), path)
        self._say(f"{quality_table(quality, mean_iou)}\n\nstep {step}, {images} images; per class in {path}")
        of_classes = quality.class_scalars() if self._per_class else {}
        return {**losses, **mean_iou.as_scalars(), **quality.as_scalars(), **of_classes}

    def _of_all_workers(self, metric: PanopticQuality | MeanIoU):
        """The result over the images of all processes."""
        of_all = type(metric)(self._descriptor)
        of_all.merge(sum_over_workers(metric.state))
        return of_all.result()


def _at_least_one(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The batch, with a row of zeros where it has none."""

    def fill(values: tf.Tensor) -> tf.Tensor:
        missing = tf.maximum(0, 1 - tf.shape(values)[0])
        return tf.pad(values, [[0, missing], *[[0, 0]] * (values.shape.rank - 1)])

    return {name: fill(values) for name, values in batch.items()}


class _Progress:
    """Says how many images are done and how fast, now and then."""

    def __init__(self, say: Callable[[str], None]):
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
            print(f"\r\x1b[K{self._text()}", end="", flush=True)
        else:
            self._say(self._text())

    def end(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", flush=True)
        self._say(self._text())

    def _text(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-9)
        return f"evaluated {self.images} images in {seconds:.0f} s ({self.images / seconds:.3g} images/s)"
