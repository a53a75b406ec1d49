"""How far a training step moves the weights, read from the checkpoints before and after it."""

import numpy as np
import tensorflow as tf


def length_of_step(before: str, after: str) -> np.ndarray:
    """How far each weight went from one checkpoint to the next, in the order of their keys.

    Moving statistics are left out: they follow the pictures, whatever the state of the optimizer.
    """
    first, second = tf.train.load_checkpoint(before), tf.train.load_checkpoint(after)
    others = ("optimizer", "backbone_optimizer", "global_step", "save_counter")
    names = [
        name
        for name in sorted(first.get_variable_to_shape_map())
        if name.endswith("/.ATTRIBUTES/VARIABLE_VALUE")
        and name.split("/")[0] not in others
        and not any(part in name for part in ("OPTIMIZER_SLOT", "/moving_"))
    ]
    lengths = [np.linalg.norm(second.get_tensor(name) - first.get_tensor(name)) for name in names]
    return np.array(lengths, np.float32)
