"""Mask transformers for panoptic segmentation that see object queries as cluster centers; compatible with DeepLab2."""

import os as _os

# Keras 2 is the Keras of this package; this has to be said before TensorFlow is imported.
_os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

# An installed copy holds protos/, evaluation/ and trainer/ inside this folder; in a checkout they lie beside it.
if not _os.path.isdir(_os.path.join(__path__[0], "protos")):
    __path__.append(_os.path.dirname(__path__[0]))
