"""Names for what a model returns (DeepLab2's) and for its intermediates, the same for both skeletons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

import tensorflow as tf

from deeplab2_kmax.model.heads import Prediction
from deeplab2_kmax.model.layers.precision import as_float32
from deeplab2_kmax.model.layers.resize import resize_like
from deeplab2_kmax.model.transformer_decoder import LayerOutput
from deeplab2_kmax.model.transformer_decoder.location import reference_masks
from deeplab2_kmax.wording import did_you_mean


def model_outputs(
    prediction: Prediction, layers: Sequence[LayerOutput], semantic_logits: tf.Tensor, training: bool
) -> dict[str, tf.Tensor]:
    """Collects the outputs of a model; `MaskTransformer` documents them.

    Args:
        prediction: the final one.
        layers: outputs of the decoder layers, in order.
        semantic_logits: [B, h, w, semantic classes].
        training: whether the outputs that only losses need are among them.
    """
    outputs = prediction_outputs(prediction)
    outputs["semantic_logits"] = as_float32(semantic_logits)
    auxiliary = [layer.prediction for layer in layers if layer.prediction is not None]
    if training and auxiliary:
        outputs["auxiliary_outputs_pred"] = tuple(prediction_outputs(_resized(each, prediction)) for each in auxiliary)
    located = [layer for layer in layers if layer.reference_boxes is not None]
    if training and located:
        outputs["reference_masks"] = tuple(reference_masks(layer.reference_boxes, layer.pixels) for layer in located)
    return outputs


def prediction_outputs(prediction: Prediction) -> dict[str, tf.Tensor]:
    """A prediction under DeepLab2's names."""
    return {
        "pixel_space_mask_logits": prediction.mask_logits,
        "transformer_class_logits": prediction.class_logits,
        "pixel_space_normalized_feature": prediction.pixel_feature,
    }


class Intermediates(dict[str, tf.Tensor]):
    """A dict of tensors that suggests a name where one does not exist."""

    def __missing__(self, name: str) -> NoReturn:
        meant = did_you_mean(name, self) or f"; there are {', '.join(self)}"
        raise KeyError(f"no intermediate tensor {name!r}{meant}")


def layer_intermediates(
    names: Iterable[str], initial_centers: tf.Tensor, layers: Iterable[LayerOutput]
) -> dict[str, tf.Tensor]:
    """Names the intermediates of the decoder layers `transformer_decoder/<layer>/<what>`.

    Args:
        names: of the layers, in order.
        initial_centers: [B, N, C], the centers before the first layer.
        layers: outputs of the layers, in order.

    Returns:
        Float32 tensors by name; `MaskTransformer.intermediates` lists them.
    """
    named: dict[str, tf.Tensor] = {}
    centers = initial_centers
    for name, output in zip(names, layers):
        place = f"transformer_decoder/{name}"
        named[f"{place}/centers_before"] = centers
        named[f"{place}/centers_after"] = centers = output.centers
        for what in ("assignment", "assignment_logits", "pixels", "reference_boxes"):
            if getattr(output, what) is not None:
                named[f"{place}/{what}"] = getattr(output, what)
    return {name: as_float32(x) for name, x in named.items()}


def _resized(prediction: Prediction, final: Prediction) -> Prediction:
    """`prediction` with its maps resized to those of `final`, so that the same targets serve both."""
    return prediction._replace(
        mask_logits=resize_like(prediction.mask_logits, final.mask_logits),
        pixel_feature=resize_like(prediction.pixel_feature, final.pixel_feature),
    )
