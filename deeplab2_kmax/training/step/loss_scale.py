"""Dynamic loss scaling, for gradients in float16 (Micikevicius et al., "Mixed Precision Training", ICLR 2018).

Small gradients become zero in float16. So the loss is multiplied by a scale before its gradient is taken, and the
gradient is divided by the scale afterwards, in float32. A scale that is too large makes the gradient overflow: that
step is skipped and the scale is halved. After many steps without an overflow it is doubled.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from deeplab2_kmax.checkpoints import open_checkpoint
from deeplab2_kmax.checkpoints.files import VALUE_SUFFIX
from deeplab2_kmax.errors import ConfigError

FLOAT16 = "mixed_float16"
# Name of the loss scale in a checkpoint.
ITEM = "loss_scale"
# All scales are powers of two: multiplying by one and dividing by it again changes no digit of a float.
INITIAL = 2.0**15
_GROWTH_STEPS = 2000
_SMALLEST = 1.0
# One doubling below the largest power of two in float32, 2^127; its inverse, 2^-126, is the smallest normal number.
_LARGEST = 2.0**126


class LossScale:
    """The loss scale and its changes; make it in the strategy's scope.

    Args:
        initial: scale of the first step, at least 1.
        growth_steps: steps in a row without overflow after which the scale doubles, at least 1.

    Raises:
        ConfigError: an argument is below 1.
    """

    def __init__(self, initial: float = INITIAL, growth_steps: int = _GROWTH_STEPS):
        if initial < _SMALLEST or growth_steps < 1:
            raise ConfigError(
                f"loss scale: expected a scale of at least {_SMALLEST:g} and at least 1 growth step,"
                f" got {initial} and {growth_steps}"
            )
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
        """The present scale, scalar float32."""
        return self._scale.read_value()

    def start(self) -> None:
        """Goes back to the scale of a first step."""
        self._scale.assign(self.initial)
        self._good_steps.assign(0)

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss times the scale; its gradient is the one to take."""
        return loss * self._scale

    def unscaled(self, gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """The gradients of the loss from those of the scaled loss; what has overflowed stays infinite or NaN."""
        inverse = 1.0 / self._scale
        return [None if gradient is None else tf.convert_to_tensor(gradient) * inverse for gradient in gradients]

    def overflowed(self, terms: tf.Tensor, finite: tf.Tensor) -> tf.Tensor:
        """Whether a smaller scale may mend a step that is not finite.

        That is so if only the gradient is not finite. At the smallest scale the gradient itself is at fault.

        Args:
            terms: [loss names] float32, the step's loss terms, which are not scaled.
            finite: scalar bool, whether loss terms and gradients are finite.

        Returns:
            Scalar bool.
        """
        return ~finite & tf.reduce_all(tf.math.is_finite(terms)) & (self._scale > _SMALLEST)

    def update(self, finite: tf.Tensor, overflowed: tf.Tensor) -> None:
        """Adjusts the scale after a step; call it outside of replica context.

        Args:
            finite: scalar bool, whether the step was.
            overflowed: scalar bool, see the method of that name.
        """
        grows = finite & (self._good_steps + 1 >= self.growth_steps)
        larger = tf.minimum(self._scale * 2.0, tf.constant(_LARGEST))
        smaller = tf.maximum(self._scale / 2.0, _SMALLEST)
        good = tf.where(finite & ~grows, self._good_steps + 1, tf.zeros([], tf.int64))
        # Selected, not branched: a condition in the graph would cost more than all of this.
        self._scale.assign(tf.where(grows, larger, tf.where(overflowed, smaller, self._scale)))
        self._good_steps.assign(good)


def holds_loss_scale(path: str) -> bool:
    """Whether the checkpoint with the prefix `path` holds a loss scale."""
    return open_checkpoint(path).has_tensor(f"{ITEM}/scale{VALUE_SUFFIX}")


def build_loss_scale(precision: str) -> LossScale | None:
    """The loss scale that training in `precision` (of `model_options`) needs; None where it needs none.

    bfloat16 has the range of float32, so its gradients do not vanish.
    """
    return LossScale() if precision == FLOAT16 else None
