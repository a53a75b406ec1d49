"""Writes scaled_images.npz, images as DeepLab2's model scales them for `eval_scales`.

    PYTHONPATH=FOLDER_WITH_deeplab2 python tests/golden/make_scaled_images.py

DeepLab2's protos have to be compiled. A method of its model does it, which needs nothing of the model itself.
"""

import pathlib

import numpy as np
import tensorflow as tf
from deeplab2.model.deeplab import DeepLab

SCALES = (0.5, 0.75, 1.1, 1.5, 2.0)


def main() -> None:
    """Stores every 5th value of each scaled image, beside its shape."""
    image = np.random.RandomState(3).uniform(-1, 1, (1, 33, 65, 3)).astype(np.float32)
    arrays = {"image": image}
    for scale in SCALES:
        scaled, _ = DeepLab._scale_images_and_pool_size(None, tf.constant(image), [None, None], scale)
        arrays[f"shape {scale}"] = np.array(scaled.shape)
        arrays[f"values {scale}"] = scaled.numpy().reshape(-1)[::5]
    np.savez_compressed(pathlib.Path(__file__).with_name("scaled_images.npz"), **arrays)


if __name__ == "__main__":
    main()
