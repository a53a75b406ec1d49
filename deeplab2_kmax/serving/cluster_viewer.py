"""Runs a trained model on a picture and keeps which cluster each decoder layer assigns each pixel to."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.input_pipeline.resizing import resize_for_inference
from deeplab2_kmax.postprocessing import build_postprocessor, undo_resize
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.serving.inference import InputSettings, restored_model
from deeplab2_kmax.serving.predictor import as_rgb
from deeplab2_kmax.visualization.clusters.layer_views import FINAL, ClusterViews, LayerView
from deeplab2_kmax.wording import did_you_mean

# Update rule in the config -> how the subtitle of a page calls it.
_RULES = {
    "kmax": "k-means clustering",
    "cmt": "CMT clustering (soft assignment)",
    "max": "MaX attention (each pixel in the color of the center it attends to most)",
}
_VOID_COLOR = (128, 128, 128)


class ClusterViewer:
    """Runs a model on single pictures and keeps each decoder layer's assignment of pixels to clusters.

        viewer = ClusterViewer.from_checkpoint(config, "ckpt-150000")
        cluster_page(viewer(rgb), "photo.jpg").save("clusters.png")

    Attributes:
        layer_names: names of all decoder layers, in the network's order.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        postprocess: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]],
        input_options: InputSettings,
        dataset: DatasetDescriptor,
        subtitle: str = "",
    ):
        self._model = model
        self._postprocess = postprocess
        self._input_options = input_options
        self._dataset = dataset
        self._subtitle = subtitle
        # Traced once, here, which also tells the names of the layers.
        self._run = tf.function(self._forward, autograph=False).get_concrete_function(
            tf.TensorSpec([1, *input_options.crop_size, 3], tf.float32)
        )
        self.layer_names = list(self._run.structured_outputs["assignment"])

    @classmethod
    def from_checkpoint(
        cls, config: config_pb2.ExperimentOptions, checkpoint: str | os.PathLike | None
    ) -> ClusterViewer:
        """Builds the model of a training config; arguments and errors are those of `restored_model`."""
        config, model, prefix = restored_model(config, checkpoint)
        dataset = load_dataset(config.eval_dataset_options.dataset)
        decoder = config.model_options.max_deeplab.transformer_decoder
        parts = [
            _RULES.get(decoder.update_rule, decoder.update_rule),
            config.model_options.backbone.name,
            dataset.name,
            "random weights" if prefix is None else os.path.basename(prefix),
        ]
        subtitle = "  \N{MIDDLE DOT}  ".join(parts)
        return cls(model, build_postprocessor(config), InputSettings.from_options(config), dataset, subtitle)

    def __call__(self, image: np.ndarray, layers: Sequence[str] | None = None) -> ClusterViews:
        """Runs the model on one picture.

        Args:
            image: [H, W, 3] uint8 RGB; also greyscale and RGBA, as in `Predictor.__call__`.
            layers: names of the layers to keep; None keeps all.

        Returns:
            The assignment of pixels to clusters in each chosen layer and in the final masks.

        Raises:
            DataError: the image has another shape or dtype.
            UserError: there is no layer of one of these names.
        """
        image = as_rgb(image)
        chosen = self.check_layers(layers)
        options = self._input_options
        prepared, size = resize_for_inference(
            tf.constant(image), options.crop_size, options.min_size, options.max_size, options.resize_factor
        )
        found = tf.nest.map_structure(lambda x: x.numpy()[0], self._run(prepared[tf.newaxis]))
        maps = undo_resize({"panoptic_pred": found["panoptic_pred"][None]}, size, image.shape[:2])
        views = [self._view(name, found["assignment"][name], found["centers"][name]) for name in chosen]
        views.append(self._view(FINAL, found["masks"], None))
        names, scores, colors = self._classes(found["classes"])
        return ClusterViews(
            image=image,
            panoptic=maps["panoptic_pred"][0].numpy(),
            dataset=self._dataset,
            layers=tuple(views),
            initial_centers=found["initial_centers"],
            class_names=names,
            class_scores=scores,
            class_colors=colors,
            extent=_extent(size.numpy(), options.crop_size),
            subtitle=self._subtitle,
        )

    def check_layers(self, layers: Sequence[str] | None) -> list[str]:
        """The names of the chosen layers in the network's order; raises UserError for a name that does not exist."""
        unknown = [name for name in layers or () if name not in self.layer_names]
        if unknown:
            meant = did_you_mean(unknown[0], self.layer_names)
            raise UserError(f"layers: expected some of {', '.join(self.layer_names)}; got {', '.join(unknown)}{meant}")
        return [name for name in self.layer_names if layers is None or name in layers]

    def _forward(self, images: tf.Tensor) -> dict[str, Any]:
        """Runs the network and keeps those of its intermediate tensors that are shown.

        Args:
            images: [1, h, w, 3] float32, the network's input.

        Returns:
            `assignment` and `centers` of each layer by its name, `initial_centers`, `masks` and `classes` as
            probabilities, and `panoptic_pred`.
        """
        # Names look like "transformer_decoder/stride32_layer1/assignment"; the decoder layer is the part before last.
        named = self._model.intermediates(images)
        places = [name.rsplit("/", 1)[0] for name in named if name.endswith("/assignment")]
        outputs = {name.split("/", 1)[1]: x for name, x in named.items() if name.startswith("outputs/")}
        return {
            "assignment": {place.rsplit("/", 1)[-1]: named[f"{place}/assignment"] for place in places},
            "centers": {place.rsplit("/", 1)[-1]: named[f"{place}/centers_after"] for place in places},
            "initial_centers": named[f"{places[0]}/centers_before"],
            "masks": tf.nn.softmax(outputs["pixel_space_mask_logits"]),
            "classes": tf.nn.softmax(outputs["transformer_class_logits"]),
            "panoptic_pred": self._postprocess(outputs)["panoptic_pred"],
        }

    def _view(self, name: str, assignment: np.ndarray, centers: np.ndarray | None) -> LayerView:
        """One layer with its stride, which is computed from the longer side: there, rounding matters least."""
        length, points = max(zip(self._input_options.crop_size, assignment.shape))
        return LayerView(name, max(1, round((length - 1) / max(points - 1, 1))), assignment, centers)

    def _classes(self, probabilities: np.ndarray) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """Name, probability and color of the most probable class of each cluster.

        Args:
            probabilities: [N, classes + 1] float; the last column is void, whose name is "".
        """
        classes = [self._dataset.by_id[i] for i in self._dataset.index_to_class_id]
        names = [*(c.name for c in classes), ""]
        colors = np.array([*(c.color for c in classes), _VOID_COLOR], np.uint8)
        best = probabilities.argmax(-1)
        return tuple(names[i] for i in best), probabilities.max(-1), colors[best]


def _extent(size: Sequence[int], crop_size: tuple[int, int]) -> tuple[float, float]:
    """Height and width of the resized picture as shares of the padded input, between centers of corner pixels."""
    (height, width), (whole_height, whole_width) = size, crop_size
    return (height - 1) / max(whole_height - 1, 1), (width - 1) / max(whole_width - 1, 1)
