"""Pictures, labels and pinned draws of `tests/golden/augmentation.npz`, for its maker and for the tests against it."""

from typing import NamedTuple

import numpy as np

from deeplab2_kmax.input_pipeline.autoaugment import POLICIES

# Whole levels, and those that `simple_classification_policy_magnitude_scale_0.2` reaches.
LEVELS = (*range(11), 1 * 0.2, 7 * 0.2, 9 * 0.2)
CHOICES = ("random", "none", "all")
CROP = (33, 41)
MAX_THING_ID = 16
# Instances of fewer pixels weigh three times as much.
SMALL_AREA = 140


def picture(height, width, seed):
    """A gradient with noise [H, W, 3] uint8; the second channel has few values, the third one of 101 to 160."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.RandomState(seed).randint(-30, 30, (height, width, 3))
    base = np.stack([rows * 200 // height + 30, columns // 9 * 60, np.full_like(rows, 131)], -1)
    noise[..., 1] = noise[..., 1] // 15 * 15
    return np.clip(base + noise, 0, 255).astype(np.uint8)


# Left to right: void, stuff, a crowd of things, two instances of one class, one of another, stuff.
COCO_IDS = np.array([0, 100, 3 * 256, 3 * 256 + 1, 3 * 256 + 2, 17 * 256 + 1, 120]) * [1, 256, 1, 1, 1, 1, 256]
CITYSCAPES_IDS = np.array([255000, 0, 13000, 13001, 13002, 11003, 10000])
IDS = {"coco_panoptic": COCO_IDS, "cityscapes_panoptic": CITYSCAPES_IDS}


def segments(height, width, dataset, seed):
    """A panoptic label [H, W] int32 of upright, jagged strips and a few single pixels."""
    random = np.random.RandomState(seed)
    edges = np.arange(width) * 7 // width
    label = (edges + random.permutation(7)[:, None][np.arange(height) // 6 % 7]) % 7
    label = np.where(random.rand(height, width) < 0.02, random.randint(7, size=(height, width)), label)
    return IDS[dataset][label].astype(np.int32)


class Draws(NamedTuple):
    """How one picture becomes a crop: sizes, and what the random numbers come to.

    Attributes:
        size: of the picture.
        scale: the random factor.
        offset: rows and columns of padding above and to the left of a scaled picture smaller than the crop, cut away
            from a larger one.
        flip: mirrored or not.
        pair, taken: which pair of steps of the policy, and which of its steps.
    """

    size: tuple
    scale: float
    offset: tuple
    flip: bool
    pair: int = 0
    taken: tuple = (False, False)


class Case(NamedTuple):
    """One crop, and one to paste onto it."""

    draws: Draws
    source: Draws = None
    policy: str = ""
    min_resize: tuple = ()
    max_resize: tuple = ()
    factor: int = 0
    dataset: str = "coco_panoptic"
    kept: tuple = ()
    choices: tuple = ("random", "random", "none")


SIMPLE, WEAK = POLICIES
BOUNDS = {"min_resize": (33, 33), "max_resize": (33, 41), "factor": 4}

CASES = {
    "as it is": Case(Draws((24, 30), 1.0, (3, 7), False)),
    "smaller": Case(Draws((40, 50), 0.7, (2, 5), True)),
    "larger": Case(Draws((24, 30), 1.9, (11, 15), False)),
    "wide": Case(Draws((12, 50), 1.3, (9, 20), True)),
    "resized first": Case(Draws((47, 61), 1.3, (5, 7), True), **BOUNDS),
    "resized, shrunk": Case(Draws((20, 61), 0.6, (0, 3), False), **BOUNDS),
    "cut off": Case(Draws((24, 30), 1.45, (1, 2), True), policy=SIMPLE),
    "sharpness": Case(Draws((24, 30), 1.9, (11, 15), True, 0, (True, False)), policy=SIMPLE),
    "sharpness, brightness": Case(Draws((40, 50), 0.7, (4, 5), False, 0, (True, True)), policy=SIMPLE),
    "contrast": Case(Draws((24, 30), 1.9, (3, 1), True, 1, (False, True)), policy=WEAK, **BOUNDS),
    "sharpness, color": Case(Draws((24, 30), 1.6, (5, 6), False, 2, (True, True)), policy=WEAK),
    "solarize, equalize": Case(Draws((24, 30), 1.9, (0, 15), True, 3, (True, True)), policy=SIMPLE),
    "equalize": Case(Draws((24, 30), 1.7, (0, 0), False, 4, (False, True)), policy=SIMPLE, **BOUNDS),
    "pasted": Case(
        Draws((47, 61), 1.3, (5, 7), True, 3, (False, True)),
        Draws((50, 40), 0.65, (8, 10), False, 0, (False, True)),
        policy=SIMPLE,
        kept=(0, 2, 3, 5, 7),
        choices=("all", "random", "none"),
        **BOUNDS,
    ),
    "pasted on cityscapes": Case(
        Draws((24, 30), 0.9, (8, 4), False),
        Draws((20, 30), 1.2, (3, 2), True),
        dataset="cityscapes_panoptic",
        kept=(1, 2, 4),
        choices=("random", "random", "all"),
    ),
}
