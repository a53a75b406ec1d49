"""Runs that repeat: the same seeds, the same weights at the end, also after interruptions."""

from __future__ import annotations

import contextlib
import dataclasses

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import trainer_pb2
from deeplab2_kmax.random_draws import repeatable_draws

_LARGEST = 2**32 - 2


@dataclasses.dataclass(frozen=True)
class Seeding:
    """Where a run's randomness comes from, apart from its data.

    Attributes:
        seed: in [0, 2^32 - 2]; None: another randomness in each run.
        deterministic_ops: refuse or replace operations whose result depends on the order of threads.
    """

    seed: int | None = None
    deterministic_ops: bool = False

    def __post_init__(self):
        if self.seed is not None and not 0 <= self.seed <= _LARGEST:
            raise ConfigError(f"trainer_options.seed: expected 0 to {_LARGEST}, came {self.seed}")
        if self.deterministic_ops and self.seed is None:
            raise ConfigError("trainer_options.deterministic_ops: needs a trainer_options.seed")

    @classmethod
    def from_options(cls, options: trainer_pb2.TrainerOptions) -> Seeding:
        return cls(options.seed if options.HasField("seed") else None, options.deterministic_ops)

    def begin(self) -> None:
        """Seeds Python, NumPy and TensorFlow, for the initial weights; call it before anything is built."""
        if self.seed is not None:
            # Not 0: with that as TensorFlow's global seed, tf.data cannot shuffle by a seed that is a tensor.
            tf.keras.utils.set_random_seed(self.seed + 1)
        if self.deterministic_ops:
            tf.config.experimental.enable_op_determinism()

    def draws(self, step: tf.Tensor, part: tf.Tensor | int = 0) -> contextlib.AbstractContextManager:
        """In it, draws of the model and the loss are those of `step`, scalar int64, and of a `part` of its batch."""
        if self.seed is None:
            return contextlib.nullcontext()
        seed = tf.stack([tf.constant(self.seed, tf.int64), tf.cast(step, tf.int64)])
        return repeatable_draws(tf.random.experimental.stateless_fold_in(seed, part, alg="philox"))
