"""Pairs of panoptic maps, true and predicted, with scores, drawn from a seed: for comparisons with other programs.

The golden files of the metrics hold what those programs say of the very same pairs, so what a seed gives must not
change. NumPy's `RandomState` never does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deeplab2_kmax.datasets import load_dataset

DATASET = load_dataset("cityscapes_panoptic")
DIVISOR = DATASET.label_divisor
VOID = DATASET.void_id
_THINGS, _STUFF = DATASET.thing_class_ids, DATASET.stuff_class_ids


class Pair(NamedTuple):
    """Maps of an image, [H, W]: panoptic ids int32, scores and confidences float32."""

    name: str
    truth: np.ndarray
    prediction: np.ndarray
    instance_scores: np.ndarray
    semantic_scores: np.ndarray


def generated_pairs(count: int, seed: int = 0) -> list[Pair]:
    """Pairs with found, missed, invented, split, merged and misnamed segments, crowds, void, and equal scores."""
    return [_pair(np.random.RandomState(1000 * seed + number), f"image{number:03d}") for number in range(count)]


def _pair(random: np.random.RandomState, name: str) -> Pair:
    height, width = random.randint(40, 230, 2)
    truth = np.full((height, width), VOID, np.int32)
    for column in np.array_split(np.arange(width), random.randint(1, 4)):
        truth[:, column] = random.choice(_STUFF) * DIVISOR
    if random.rand() < 0.6:
        truth[_blob(random, truth.shape, 0.3)] = VOID
    if random.rand() < 0.5:
        truth[_blob(random, truth.shape, 0.4)] = random.choice(_THINGS) * DIVISOR
    kinds = random.choice(_THINGS, random.randint(1, 4))
    for instance in range(1, random.randint(2, 12)):
        truth[_blob(random, truth.shape, 1.3 if random.rand() < 0.3 else 0.25)] = (
            random.choice(kinds) * DIVISOR + instance
        )
    return Pair(name, truth, *_predicted(random, truth, kinds))


def _predicted(random: np.random.RandomState, truth: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, ...]:
    """A prediction that is wrong in many ways, and its scores."""
    prediction = np.roll(truth, random.randint(-3, 4, 2), (0, 1))
    for number, segment in enumerate(np.unique(prediction).tolist()):
        mask, chance = prediction == segment, random.rand()
        if chance < 0.1:
            prediction[mask] = VOID
        elif chance < 0.2:
            prediction[mask & _blob(random, truth.shape, 0.8)] = random.choice(_STUFF) * DIVISOR
        elif chance < 0.3:
            prediction[mask] = random.choice(_THINGS) * DIVISOR + 50 + number
        elif chance < 0.4:
            prediction[mask & (np.arange(truth.shape[1]) % 2 > 0)] = random.choice(kinds) * DIVISOR + 100 + number
        elif segment != VOID and segment % DIVISOR == 0 and segment // DIVISOR in _THINGS:
            # No model predicts a crowd.
            prediction[mask] = segment + 150 + number
    if random.rand() < 0.5:
        prediction[_blob(random, truth.shape, 0.3)] = random.choice(kinds) * DIVISOR + 200
    scores = []
    for _ in range(2):
        ids, places = np.unique(prediction, return_inverse=True)
        # Rounded, so that some are equal.
        of_segments = np.round(random.uniform(0.4, 1.0, len(ids)), 1)[places.reshape(truth.shape)]
        scores.append((of_segments - 0.0625 * (random.rand(*truth.shape) < 0.25)).astype(np.float32))
    return prediction, *scores


def _blob(random: np.random.RandomState, shape: tuple[int, ...], largest: float) -> np.ndarray:
    """An ellipse or a rectangle whose sides are up to a fraction of the map's: bool [H, W]."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    center = random.uniform(0, shape)
    radii = np.maximum(1.5, random.uniform(0.05, largest, 2) * shape / 2)
    offsets = np.abs(y - center[0]) / radii[0], np.abs(x - center[1]) / radii[1]
    if random.rand() < 0.5:
        return offsets[0] ** 2 + offsets[1] ** 2 < 1
    return np.maximum(*offsets) < 1
