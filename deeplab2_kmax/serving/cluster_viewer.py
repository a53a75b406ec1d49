"""A trained model that shows, for a picture, which cluster each of its decoder layers gives each pixel to."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.input_pipeline.resizing import resize_for_inference
from deeplab2_kmax.postprocessing import build_postprocessor, undo_resize
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.serving.inference import InputOptions, restored_model
from deeplab2_kmax.serving.predictor import as_rgb
from deeplab2_kmax.visualization.clusters.layer_views import FINAL, ClusterViews, LayerView

_RULES = {
    "kmax": "k-means clustering",
    "cmt": "CMT clustering (soft assignment)",
    "max": "MaX attention (each pixel in the colour of the center it attends to most)",
}
_VOID_COLOR = (128, 128, 128)


class ClusterViewer:
    """Runs a model on single pictures and keeps the assignment of pixels to clusters of each decoder layer.

        viewer = ClusterViewer.from_checkpoint(config, "ckpt-150000")
        cluster_page(viewer(rgb), "photo.jpg").save("clusters.png")

    Attributes:
      layer_names: of all decoder layers, in their order.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        postprocess: Callable[[dict], dict],
        input_options: InputOptions,
        dataset: DatasetDescriptor,
        subtitle: str = "",
    ):
        self._model = model
        self._postprocess = postprocess
        self._input_options = input_options
        self._dataset = dataset
        self._subtitle = subtitle
        self._run = tf.function(self._forward, autograph=False).get_concrete_function(
            tf.TensorSpec([1, *input_options.crop_size, 3], tf.float32)
        )
        self.layer_names = list(self._run.structured_outputs["assignment"])

    @classmethod
    def from_checkpoint(
        cls, config: config_pb2.ExperimentOptions, checkpoint: str | os.PathLike | None
    ) -> ClusterViewer:
        """The viewer of a config with the weights of a checkpoint; arguments and errors of `restored_model`."""
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
        return cls(model, build_postprocessor(config), InputOptions.from_config(config), dataset, subtitle)

    def __call__(self, image: np.ndarray, layers: Sequence[str] | None = None) -> ClusterViews:
        """What the decoder layers make of one picture.

        Args:
          image: [H, W, 3] uint8 RGB; also greyscale and RGBA, as a Predictor takes.
          layers: names of the layers to show; None means all.

        Raises:
          DataError: another shape or dtype.
          UserError: a layer of that name does not exist.
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
            extent=tuple((part - 1) / max(whole - 1, 1) for part, whole in zip(size.numpy(), options.crop_size)),
            subtitle=self._subtitle,
        )

    def check_layers(self, layers: Sequence[str] | None) -> list[str]:
        """The names of the layers to show, in the network's order; raises UserError for one that does not exist."""
        unknown = [name for name in layers or () if name not in self.layer_names]
        if unknown:
            raise UserError(f"layers: expected some of {', '.join(self.layer_names)}, got {', '.join(unknown)}")
        return [name for name in self.layer_names if layers is None or name in layers]

    def _forward(self, images: tf.Tensor) -> dict:
        """What is shown of the network's intermediates; the rest is not kept."""
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
        length, points = max(zip(self._input_options.crop_size, assignment.shape))
        return LayerView(name, max(1, round((length - 1) / max(points - 1, 1))), assignment, centers)

    def _classes(self, probabilities: np.ndarray):
        """Name, probability and colour of the most probable class of each cluster, from [N, classes + 1]."""
        classes = [self._dataset.by_id[i] for i in self._dataset.index_to_class_id]
        names = [*(c.name for c in classes), ""]
        colors = np.array([*(c.color for c in classes), _VOID_COLOR], np.uint8)
        best = probabilities.argmax(-1)
        return tuple(names[i] for i in best), probabilities.max(-1), colors[best]
