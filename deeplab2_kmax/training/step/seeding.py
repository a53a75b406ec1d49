"""Runs that can be repeated: the same seed gives the same weights at the end, also after interruptions."""

from __future__ import annotations

import contextlib
import dataclasses

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import trainer_pb2
from deeplab2_kmax.random_draws import repeatable_draws

_LARGEST = 2**32 - 2  # NumPy takes seeds below 2^32, and `begin` adds one.


@dataclasses.dataclass(frozen=True)
class Seeding:
    """Where a run's random numbers come from; the order of its data has a seed of its own in the data set options.

    Attributes:
        seed: in [0, 2^32 - 2]; None draws different numbers in each run.
        deterministic_ops: whether operations whose result depends on the order of threads are replaced or refused.
    """

    seed: int | None = None
    deterministic_ops: bool = False

    def __post_init__(self) -> None:
        if self.deterministic_ops and self.seed is None:
            raise ConfigError("trainer_options.deterministic_ops: needs a trainer_options.seed; set one, e.g. 1")

    @classmethod
    def from_options(cls, options: trainer_pb2.TrainerOptions) -> Seeding:
        """The seeding that a config's `trainer_options` ask for.

        Raises:
            ConfigError: the seed is missing where it is needed.
        """
        return cls(options.seed if options.HasField("seed") else None, options.deterministic_ops)

    def begin(self) -> None:
        """Seeds Python, NumPy and TensorFlow; call it before the model is built, whose first weights are drawn."""
        if self.seed is not None:
            # Not 0: with TensorFlow's global seed at 0, tf.data cannot shuffle by a seed that is a tensor.
            tf.keras.utils.set_random_seed(self.seed + 1)
        if self.deterministic_ops:
            tf.config.experimental.enable_op_determinism()

    def draws(self, step: tf.Tensor, part: tf.Tensor | int = 0) -> contextlib.AbstractContextManager[None]:
        """The context in which model and loss draw their random numbers of one step.

        The numbers follow from seed, step and part alone. So a run that was stopped draws what it would have drawn, and
        checkpoints need to hold no state of a generator.

        Args:
            step: scalar int64, the number of the step.
            part: the number of the micro-batch within the step.
        """
        if self.seed is None:
            return contextlib.nullcontext()
        seed = tf.stack([tf.constant(self.seed, tf.int64), tf.cast(step, tf.int64)])
        # Philox on every device: the default depends on it, and with it the numbers would.
        return repeatable_draws(tf.random.experimental.stateless_fold_in(seed, part, alg="philox"))
