"""Labels of made-up COCO images, for benchmarks of losses and training steps that read no records."""

from __future__ import annotations

import numpy as np

CLASSES, THINGS, IGNORE_LABEL, MAX_THINGS = 133, 80, 0, 128


def synthetic_targets(rng: np.random.Generator, size: int, things: int) -> dict[str, np.ndarray]:
    """Labels of one image, as the input pipeline makes them: rectangles of things over six stripes of stuff.

    Args:
        rng: draws places and classes.
        size: height and width of the image in pixels.
        things: number of rectangles; later ones cover earlier ones. At most `MAX_THINGS`.

    Returns:
        `semantic_gt` and `thing_id_mask_gt`, int32 [size, size] (the upper 1/16 is void); `thing_id_class_gt`, int32
        [MAX_THINGS]; `semantic_loss_weight`, float32 [size, size]. There is no batch dimension.
    """
    # COCO's contiguous ids: 1 to 80 are things, 81 to 133 stuff.
    stripes = np.repeat(rng.integers(THINGS + 1, CLASSES + 1, 6), -(-size // 6))[:size, None]
    semantic = np.tile(stripes, [1, size]).astype(np.int32)
    thing_id = np.full([size, size], -1, np.int32)
    thing_class = np.full([MAX_THINGS], -1, np.int32)
    for instance in range(things):
        top, left = rng.integers(0, size * 3 // 4, 2)
        height, width = rng.integers(size // 16, size // 3, 2)
        box = np.s_[top : top + height, left : left + width]
        thing_class[instance] = semantic[box] = rng.integers(1, THINGS + 1)
        thing_id[box] = instance
    semantic[: size // 16], thing_id[: size // 16] = IGNORE_LABEL, -1
    return {
        "semantic_gt": semantic,
        "thing_id_mask_gt": thing_id,
        "thing_id_class_gt": thing_class,
        "semantic_loss_weight": np.ones([size, size], np.float32),
    }
