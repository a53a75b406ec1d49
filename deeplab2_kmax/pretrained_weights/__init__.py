"""Loads pretrained weights of the pixel encoder from a file that the user has; nothing is downloaded.

    report = load_pretrained_weights(model, "convnext_tiny_imagenet_22k_1k_384/ckpt", "kmax_convnext_tiny")

Building a model never needs them. A run that trains from scratch loads them if the config's
`model_options.backbone.pretrained_weights` names a file; resuming, evaluation and export do not look for it.

Start reading at `loading`, which compares a file with the encoder and assigns the weights. `tensorflow_checkpoints` and
`keras_applications` read files of these two kinds, as `stored` weights. Whole models are loaded by `checkpoints`, and
weights of the PyTorch port are converted by `checkpoint_conversion`.
"""

from deeplab2_kmax.pretrained_weights.loading import load_pretrained_weights, require_pretrained_weights

__all__ = ["load_pretrained_weights", "require_pretrained_weights"]
