"""How far a training step moves the weights and what goes with them, read from the checkpoints before and after it."""

from __future__ import annotations

import collections
import re

import numpy as np
import tensorflow as tf

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT = re.compile(rf"/\.OPTIMIZER_SLOT/(?:\w+/)*(\w+){_SUFFIX}$")
_LOSS = re.compile(r"^step +\d+/\d+ \| loss ([-+.\de]+) ", re.MULTILINE)
# What a checkpoint holds besides network and averages: counters and rates.
_OTHERS = ("optimizer", "backbone_optimizer", "weight_averaging", "global_step", "save_counter")


def length_of_step(before: str, after: str) -> np.ndarray:
    """How far each weight went from one checkpoint to the next, in the order of their keys.

    Moving statistics are left out: they follow the pictures, whatever the state of the optimizer.
    """
    first, second = tf.train.load_checkpoint(before), tf.train.load_checkpoint(after)
    names = [name for name in sorted(first.get_variable_to_shape_map()) if _kind(name) == "weights"]
    lengths = [np.linalg.norm(second.get_tensor(name) - first.get_tensor(name)) for name in names]
    return np.array(lengths, np.float32)


def changes(before: str, after: str) -> dict[str, float]:
    """How far each kind of tensor went from one checkpoint to the next.

    Kinds are weights, statistics (of batch norms), averages (of both) and the optimizer's slots, such as m, v and slow.
    """
    first, second = tf.train.load_checkpoint(before), tf.train.load_checkpoint(after)
    squares: dict[str, float] = collections.defaultdict(float)
    for name in first.get_variable_to_shape_map():
        if kind := _kind(name):
            squares[kind] += np.square(second.get_tensor(name) - first.get_tensor(name), dtype=np.float64).sum()
    return {kind: float(np.sqrt(square)) for kind, square in sorted(squares.items())}


def loss_of_last_step(printed: str) -> float:
    """The last loss in what a run has printed, to four digits."""
    return float(_LOSS.findall(printed)[-1])


def _kind(name: str) -> str | None:
    """That of the tensor with this name in a checkpoint; None for what is neither of the network nor goes with it."""
    if slot := _SLOT.search(name):
        return slot[1]
    root = name.split("/")[0]
    if root in _OTHERS or not name.endswith(_SUFFIX):
        return None
    if root == "averaged_weights":
        return "averages"
    return "statistics" if "/moving_" in name else "weights"
