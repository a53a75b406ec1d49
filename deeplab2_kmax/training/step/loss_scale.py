"""Dynamic loss scaling, for gradients in float16 (Micikevicius et al., "Mixed Precision Training", ICLR 2018).

Small gradients are zero in float16. The loss is multiplied by a scale before its gradient is taken, and the gradient
divided by it afterwards, in float32. A scale that is too large makes the gradient overflow: that step is skipped and
the scale is halved. After many steps without an overflow it is doubled.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError

FLOAT16 = "mixed_float16"
ITEM = "loss_scale"
INITIAL = 2.0**15
_GROWTH_STEPS = 2000
_SMALLEST = 1.0


class LossScale:
    """The scale and when it changes; make it in the strategy's scope.

    Args:
        initial: scale of the first step.
        growth_steps: steps in a row without overflow after which the scale doubles.
    """

    def __init__(self, initial: float = INITIAL, growth_steps: int = _GROWTH_STEPS):
        if initial < _SMALLEST or growth_steps < 1:
            raise ConfigError(f"loss scale: expected at least {_SMALLEST:g} and 1 step, came {initial}, {growth_steps}")
        self.initial = initial
        self.growth_steps = growth_steps
        self._scale = tf.Variable(initial, trainable=False, dtype=tf.float32, name="loss_scale")
        self._good_steps = tf.Variable(0, trainable=False, dtype=tf.int64, name="loss_scale_good_steps")

    @property
    def checkpoint_items(self) -> dict[str, tf.train.Checkpoint]:
        """What a checkpoint holds of it."""
        return {ITEM: tf.train.Checkpoint(scale=self._scale, good_steps=self._good_steps)}

    @property
    def value(self) -> tf.Tensor:
        """The scale, scalar float32."""
        return self._scale.read_value()

    def start(self) -> None:
        """The scale of a first step."""
        self._scale.assign(self.initial)
        self._good_steps.assign(0)

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss whose gradient is taken."""
        return loss * self._scale

    def unscaled(self, gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """The gradients of the loss from those of `scaled`; an overflow stays what it is."""
        # The scale is a power of two, so that no digit is lost.
        inverse = 1.0 / self._scale
        return [None if gradient is None else tf.convert_to_tensor(gradient) * inverse for gradient in gradients]

    def overflowed(self, terms: tf.Tensor, finite: tf.Tensor) -> tf.Tensor:
        """Whether a smaller scale may mend a step that is not `finite`: its loss `terms` are, only its gradient is not.

        False at the smallest scale, where the gradient itself is at fault.
        """
        return ~finite & tf.reduce_all(tf.math.is_finite(terms)) & (self._scale > _SMALLEST)

    def update(self, finite: tf.Tensor, overflowed: tf.Tensor) -> None:
        """After a step, outside of replica context."""
        grows = finite & (self._good_steps + 1 >= self.growth_steps)
        largest = tf.constant(2.0**126)
        larger = tf.minimum(self._scale * 2.0, largest)
        smaller = tf.maximum(self._scale / 2.0, _SMALLEST)
        good = tf.where(finite & ~grows, self._good_steps + 1, tf.zeros([], tf.int64))
        self._scale.assign(tf.where(grows, larger, tf.where(overflowed, smaller, self._scale)))
        self._good_steps.assign(good)


def holds_loss_scale(path: str) -> bool:
    """Whether the checkpoint with the prefix `path` holds a loss scale."""
    return tf.train.load_checkpoint(path).has_tensor(f"{ITEM}/scale/.ATTRIBUTES/VARIABLE_VALUE")


def build_loss_scale(precision: str) -> LossScale | None:
    """The loss scale that training in `precision` needs; None where it needs none."""
    return LossScale() if precision == FLOAT16 else None
