"""A trained model as one function from pixels to panoptic maps, for pictures of any size and batches of any size."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable

import tensorflow as tf

from deeplab2_kmax.checkpoints import load_checkpoint, resolve_checkpoint
from deeplab2_kmax.config import require_supported
from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset
from deeplab2_kmax.input_pipeline.resizing import resize_for_inference
from deeplab2_kmax.input_pipeline.settings import size_bound
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.averaged_passes import in_passes
from deeplab2_kmax.model.frozen import for_inference, frozen, is_freezable, variables_of
from deeplab2_kmax.model.layers.folding import fold_batch_norms
from deeplab2_kmax.postprocessing import LOGITS, build_postprocessor, undo_resize
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.serving.exif import orientation_of, upright

# A PNG of one black pixel.
_PICTURE = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0:~\x9bU\0\0\0\nIDATx\x9cc`\0\0\0\2\0\1H\xaf\xa4q"
    b"\0\0\0\0IEND\xaeB`\x82"
)
# The outputs of post-processing that are returned, with their types.
MAPS = {
    "panoptic_pred": tf.int32,
    "semantic_pred": tf.int32,
    "instance_pred": tf.int32,
    "semantic_scores": tf.float32,
    "instance_scores": tf.float32,
}


def inference_config(config: config_pb2.ExperimentOptions) -> config_pb2.ExperimentOptions:
    """A copy of `config` for the same network without everything that only training needs.

    No residual branch is dropped, neither in the encoder nor in the transformer decoder; no loss samples pixels; no
    file of pretrained weights and no initial checkpoint is asked for.
    """
    result = config_pb2.ExperimentOptions()
    result.CopyFrom(config)
    model = result.model_options
    model.ClearField("initial_checkpoint")
    model.backbone.ClearField("pretrained_weights")
    model.backbone.drop_path_keep_prob = 1.0
    model.max_deeplab.transformer_decoder_drop_path_keep_prob = 1.0
    model.max_deeplab.instance_discrimination_sample_k = 0
    model.max_deeplab.semantic_sample_k = 0
    return result


def restored_model(
    config: config_pb2.ExperimentOptions, checkpoint: str | os.PathLike | None
) -> tuple[config_pb2.ExperimentOptions, tf.keras.Model, str | None]:
    """Builds the network of a training config for inference and loads its weights.

    Args:
        config: from `load_config`. With `evaluator_options.use_averaged_weights`, the checkpoint's averaged weights
            are loaded.
        checkpoint: prefix, or a folder, of which the last whole checkpoint is taken; None leaves the weights random.

    Returns:
        The config for inference, the model with its batch norms folded into the convolutions, and the prefix of the
        checkpoint, or None without one.

    Raises:
        ConfigError: the model of `config` is not supported.
        CheckpointError: there is no checkpoint, or it does not fit the model.
    """
    require_supported(config)
    prefix = None if checkpoint is None else resolve_checkpoint(os.fspath(checkpoint))
    config = inference_config(config)
    model = build_model(config)
    if prefix is not None:
        # Before folding: the checkpoint holds the weights of convolutions and batch norms separately.
        load_checkpoint(model, prefix, averaged=config.evaluator_options.use_averaged_weights)
    fold_batch_norms(model)
    return config, model, prefix


@dataclasses.dataclass(frozen=True)
class InputSettings:
    """How pictures are resized and padded to the network's input size; fields as in `PipelineSettings`."""

    crop_size: tuple[int, int]
    min_size: tuple[int, int] | None = None
    max_size: tuple[int, int] | None = None
    resize_factor: int = 0

    @classmethod
    def from_options(cls, config: config_pb2.ExperimentOptions) -> InputSettings:
        """Takes the sizes of evaluation, so that pictures are treated here as when the metrics were computed."""
        options = config.eval_dataset_options
        height, width = options.crop_size
        return cls(
            crop_size=(height, width),
            min_size=size_bound(options.min_resize_value),
            max_size=size_bound(options.max_resize_value),
            resize_factor=options.resize_factor,
        )

    def prepare(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Resizes and pads a batch of pictures as evaluation does.

        Args:
            images: [B, H, W, 3] uint8.

        Returns:
            The network's input [B, h, w, 3] float32, and [2] int32, the size of the pictures in it without padding.
        """
        return resize_for_inference(images, self.crop_size, self.min_size, self.max_size, self.resize_factor)


class InferenceModel:
    """Resizes and pads pictures as evaluation does, runs the network and maps its result back to the original pixels.

    The result is a dict of maps: `panoptic_pred`, `semantic_pred`, `instance_pred` ([B, H, W] int32) and
    `semantic_scores`, `instance_scores` ([B, H, W] float32, 0..1). Few weights are constants of the network's graph,
    many are variables (see `model/frozen.py`).

    Attributes:
        dataset: the classes in the maps.
        weights: the variables that the maps depend on; none where the weights are constants.
        input_settings: how pictures become the network's input.
        checkpoint: prefix of the checkpoint that the weights are from; None: they are random.
    """

    def __init__(
        self,
        model: Callable,
        postprocess: Callable[[dict], dict],
        input_settings: InputSettings,
        dataset: DatasetDescriptor,
        checkpoint: str | None = None,
    ):
        self.input_settings = input_settings
        self.dataset = dataset
        self.checkpoint = checkpoint
        # Both are traced once, here; otherwise saving would trace them again for each signature.
        spec = tf.TensorSpec([None, *input_settings.crop_size, 3], tf.float32, name="images")
        logits = tf.function(lambda images: only(LOGITS, model(images, training=False)), autograph=False)
        self._traced = logits.get_concrete_function(spec)
        # Only variables that the logits depend on are captured; those of an auxiliary semantic branch are not.
        self._variables = variables_of(self._traced, model)
        self._logits, self.weights = for_inference(self._traced, model)
        network = tf.function(lambda images: only(MAPS, postprocess(self._logits(images))), autograph=False)
        self._network = network.get_concrete_function(spec)

    @classmethod
    def from_checkpoint(
        cls, config: config_pb2.ExperimentOptions, checkpoint: str | os.PathLike | None
    ) -> InferenceModel:
        """Builds the model of a training config; arguments and errors are those of `restored_model`."""
        config, model, prefix = restored_model(config, checkpoint)
        dataset = load_dataset(config.eval_dataset_options.dataset)
        network = in_passes(model, config.evaluator_options)
        return cls(network, build_postprocessor(config), InputSettings.from_options(config), dataset, prefix)

    def constant_logits(self) -> Callable[[tf.Tensor], dict[str, tf.Tensor]] | None:
        """`logits_of` with the weights as constants, for other runtimes; None where they do not fit a graph."""
        return frozen(self._traced, self._variables) if is_freezable(self._variables) else None

    def logits_of(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The outputs `LOGITS` of the network for pictures at its input size, [B, h, w, 3] float32, 0..255."""
        return self._logits(images)

    def maps_of(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The maps, at the network's input size, of pictures at that size, [B, h, w, 3] float32, 0..255."""
        return self._network(images)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="input_tensor")])
    def segment(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments a batch of pictures of one size.

        Args:
            input_tensor: [B, H, W, 3] uint8 RGB.

        Returns:
            The maps described at the class.
        """
        count = tf.shape(input_tensor)[0]
        pictures = _padded_batch(input_tensor, count)
        images, resized_size = self.input_settings.prepare(pictures)
        maps = undo_resize(self._network(images), resized_size, tf.shape(pictures)[1:3])
        return {name: values[:count] for name, values in maps.items()}

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="input_tensor")])
    def raw(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        """The logits of a batch of pictures of one size, for post-processing of one's own.

        Args:
            input_tensor: [B, H, W, 3] uint8 RGB.

        Returns:
            `pixel_space_mask_logits` [B, h, w, N] and `transformer_class_logits` [B, N, C + 1], float32, the last class
            being void; and `resized_size` [2] int32, height and width of the part of the network's input, at crop size,
            that the pictures fill; the rest is padding.
        """
        count = tf.shape(input_tensor)[0]
        images, resized_size = self.input_settings.prepare(_padded_batch(input_tensor, count))
        logits = {name: values[:count] for name, values in self._logits(images).items()}
        return {**logits, "resized_size": resized_size}

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string, name="encoded")])
    def segment_encoded(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments a batch of picture files, which may differ in size.

        Args:
            encoded: [B] string, contents of JPEG or PNG files, which EXIF orientation turns upright.

        Returns:
            The maps described at the class, padded on the right and at the bottom, with void and score 0, to the size
            of the largest picture; and `image_size`, [B, 2] int32, height and width of each picture, upright, before
            padding.
        """
        count = tf.shape(encoded)[0]
        encoded = tf.concat([encoded, tf.fill([_one_if_none(count)], _PICTURE)], 0)
        # Decoding and undoing the resize go picture by picture, as sizes differ; the network runs once on the batch.
        images, resized_sizes, image_sizes = tf.map_fn(
            self._decode,
            encoded,
            fn_output_signature=(
                tf.TensorSpec([*self.input_settings.crop_size, 3], tf.float32),
                tf.TensorSpec([2], tf.int32),
                tf.TensorSpec([2], tf.int32),
            ),
        )
        maps = self._network(images)
        largest = tf.reduce_max(image_sizes, 0)
        result = tf.map_fn(
            lambda one: self._undo_and_pad(one[0], one[1], one[2], largest),
            (maps, resized_sizes, image_sizes),
            fn_output_signature={name: tf.TensorSpec([None, None], dtype) for name, dtype in MAPS.items()},
        )
        return {name: values[:count] for name, values in {**result, "image_size": image_sizes}.items()}

    def _decode(self, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image = upright(tf.io.decode_image(content, channels=3, expand_animations=False), orientation_of(content))
        image.set_shape([None, None, 3])
        images, resized_size = self.input_settings.prepare(image[None])
        return images[0], resized_size, tf.shape(image)[:2]

    def _undo_and_pad(self, maps: dict, resized_size: tf.Tensor, image_size: tf.Tensor, largest: tf.Tensor) -> dict:
        """Brings the maps [h, w] of one picture to the picture's own size, then pads them to the size `largest`."""
        maps = undo_resize({name: value[None] for name, value in maps.items()}, resized_size, image_size)
        fill = {"panoptic_pred": self.dataset.void_id, "semantic_pred": self.dataset.ignore_label}
        missing = largest - image_size
        paddings = [[0, missing[0]], [0, missing[1]]]
        return {name: tf.pad(value[0], paddings, constant_values=fill.get(name, 0)) for name, value in maps.items()}


def _one_if_none(count: tf.Tensor) -> tf.Tensor:
    """How many pictures to add to a batch for the network, whose kernels do not take empty ones."""
    return tf.cast(tf.equal(count, 0), tf.int32)


def _padded_batch(pictures: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Adds a black picture to an empty batch [B, H, W, 3]."""
    return tf.pad(pictures, [[0, _one_if_none(count)], [0, 0], [0, 0], [0, 0]])


def only(names: Iterable[str], outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Keeps the outputs that are returned; TensorFlow does not run the parts of the graph that only others need."""
    return {name: outputs[name] for name in names}
