"""The color operations that the policies of `autoaugment` are made of (Cubuk et al., CVPR 2019, as in DeepLab2).

Each takes and returns pixels [H, W, 3] uint8; labels do not change. They follow Pillow's operations, but compute in
float32 and truncate instead of rounding, so that values equal DeepLab2's to the bit. `OPERATIONS` lists them under
DeepLab2's names. DeepLab2 has three more, which none of its policies uses: AutoContrast, Invert and Posterize.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

HIGHEST_LEVEL = 10
_VALUES = 256
# Weights of a pixel's neighborhood in Pillow's SMOOTH filter; they sum to 13.
_SMOOTH = [[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]


def equalize(image: tf.Tensor, level: float) -> tf.Tensor:
    """Makes the values of each channel about equally frequent. `level` has no effect."""
    shape = tf.shape(image)
    # One table for all channels: channel c has entries 256 * c to 256 * c + 255. The offsets are repeated over a whole
    # row of the image, because broadcasting three values at a time is slow.
    channels = tf.tile([0, _VALUES, 2 * _VALUES], [shape[1]])
    entries = tf.cast(tf.reshape(image, [shape[0], -1]), tf.int32) + channels
    counts = tf.reshape(tf.math.bincount(entries, minlength=3 * _VALUES, maxlength=3 * _VALUES), [3, _VALUES])
    highest = _VALUES - 1 - tf.argmax(tf.cast(counts[:, ::-1] > 0, tf.int32), 1, tf.int32)
    # As in Pillow, pixels with the highest value present are not counted, so that this value can become 255.
    step = (tf.reduce_sum(counts, 1) - tf.gather(counts, highest, batch_dims=1))[:, tf.newaxis] // (_VALUES - 1)
    below = tf.cumsum(counts, axis=1, exclusive=True)
    table = tf.clip_by_value((below + step // 2) // tf.maximum(step, 1), 0, _VALUES - 1)
    table = tf.where(step == 0, tf.range(_VALUES), table)
    return tf.reshape(tf.gather(tf.reshape(tf.cast(table, tf.uint8), [-1]), entries), shape)


def solarize(image: tf.Tensor, level: float) -> tf.Tensor:
    """Inverts the values from `level / 10 * 256` on.

    At level 10 this threshold is 256, which DeepLab2 stores in a byte as 0, so that all values are inverted; they are
    here too. No policy has that level.
    """
    threshold = int(level / HIGHEST_LEVEL * _VALUES) % _VALUES
    return tf.where(image < threshold, image, 255 - image)


def color(image: tf.Tensor, level: float) -> tf.Tensor:
    """Less color at levels below 5, at level 0 almost grey; more color above."""
    return _blend(tf.image.rgb_to_grayscale(image), image, level)


def contrast(image: tf.Tensor, level: float) -> tf.Tensor:
    """Less contrast at levels below 5, more above.

    Pillow moves values towards the mean grey of the image or away from it. DeepLab2 means to, but in place of that mean
    takes the sum of the grey histogram divided by its 256 bins, which is the number of pixels / 256: white for every
    image of 65280 pixels or more. So do we.
    """
    grey = tf.minimum(tf.reduce_prod(tf.shape(image)[:2]) // _VALUES, _VALUES - 1)
    return _blend(grey, image, level)


def brightness(image: tf.Tensor, level: float) -> tf.Tensor:
    """Darker at levels below 5, brighter above."""
    return _blend(tf.constant(0), image, level)


def sharpness(image: tf.Tensor, level: float) -> tf.Tensor:
    """Smoother at levels below 5, sharper above. The outermost pixels stay as they are."""
    kernel = tf.tile(tf.constant(_SMOOTH, shape=[3, 3, 1, 1]) / 13.0, [1, 1, 3, 1])
    pixels = tf.cast(image, tf.float32)[tf.newaxis]
    smooth = _to_bytes(tf.nn.depthwise_conv2d(pixels, kernel, [1, 1, 1, 1], "SAME")[0])
    inside = _blend(smooth[1:-1, 1:-1], image[1:-1, 1:-1], level)
    # The slices also fit images of one or two rows or columns, which have no inner pixels.
    lines = tf.concat([image[1:-1, :1], inside, image[1:-1, 1:][:, -1:]], 1)
    return tf.concat([image[:1], lines, image[1:][-1:]], 0)


OPERATIONS: dict[str, Callable[[tf.Tensor, float], tf.Tensor]] = {
    "Equalize": equalize,
    "Solarize": solarize,
    "Color": color,
    "Contrast": contrast,
    "Brightness": brightness,
    "Sharpness": sharpness,
}


def _blend(least: tf.Tensor, image: tf.Tensor, level: float) -> tf.Tensor:
    """least + f * (image - least), where f is 0.1 at level 0, 1.0 (the image itself) at level 5, 1.9 at level 10."""
    factor = level / HIGHEST_LEVEL * 1.8 + 0.1
    if factor == 1.0:
        return image
    least = tf.cast(least, tf.float32)
    return _to_bytes(least + factor * (tf.cast(image, tf.float32) - least))


def _to_bytes(values: tf.Tensor) -> tf.Tensor:
    # The cast truncates, as DeepLab2's does.
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0), tf.uint8)
