"""Whether a checkpoint holds the state that optimizers go on from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import tensorflow as tf

from deeplab2_kmax.errors import CheckpointError

_SLOT = "/.OPTIMIZER_SLOT/"
# Parts of an optimizer in a checkpoint that do not tell its kind; where Lookahead's inner optimizer is, slots tell.
_OF_ANY_KIND = {"iter", "learning_rate", "lh_base_optimizer"}


def require_state(path: str, optimizers: Mapping[str, tf.keras.optimizers.legacy.Optimizer]) -> None:
    """Raises CheckpointError where the file has no state of an optimizer, or that of an optimizer of another kind.

    Args:
        path: prefix of a checkpoint that was written after the first step.
        optimizers: by their names in it, with their variables made.
    """
    keys = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    for name, optimizer in optimizers.items():
        lacking = [slot for slot in optimizer.get_slot_names() if not any(f"{_SLOT}{name}/{slot}/" in k for k in keys)]
        if not lacking and not _different_settings(name, optimizer, keys):
            continue
        kind = type(optimizer).__name__.lstrip("_")
        what = f"{lacking[0]!r} of `{name}` ({kind})" if lacking else f"state of a {kind} as `{name}`"
        raise CheckpointError(
            f"{path} holds no {what}, so training cannot go on from it as if it had not stopped; the config's optimizer"
            " settings may have changed. To start anew from its weights, choose another experiment_name, with this"
            " checkpoint as model_options.initial_checkpoint"
        )


def _different_settings(name: str, optimizer: tf.keras.optimizers.legacy.Optimizer, keys: Iterable[str]) -> set[str]:
    """Names of the settings that only one of them has, the optimizer or the checkpoint; they tell kinds apart."""
    own = {setting for setting, value in optimizer._hyper.items() if isinstance(value, tf.Variable)}
    stored = {key.split("/")[1] for key in keys if key.startswith(f"{name}/")}
    return (own ^ stored) - _OF_ANY_KIND
