"""RectifiedAdam: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", ICLR 2020.

For the second line of dependencies, which has no tensorflow-addons. Its steps equal that library's, and each reads the
other's checkpoints; tests/training/optimizers/test_beside_addons.py holds both.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# Below this length of the moving average (the paper's rho_t), steps are not adapted: they are SGD's with momentum. The
# paper takes 4, tensorflow-addons 5; with beta_2 = 0.999 both mean the first five steps.
_SHORTEST_AVERAGE = 5.0
# What tensorflow-addons has in its checkpoints, too: options that we do not offer, with the values that turn them off.
_STORED_ONLY = {"weight_decay": 0.0, "total_steps": 0.0, "warmup_proportion": 0.1, "min_lr": 0.0}


class RectifiedAdam(tf.keras.optimizers.legacy.Optimizer):
    """Adam whose adaptive rate is damped while few gradients have been seen, so that it needs no warm-up.

    With g the gradient and t = 1, 2, ... the step:

        m <- beta_1 m + (1 - beta_1) g,   m' = m / (1 - beta_1^t)
        v <- beta_2 v + (1 - beta_2) g^2, v' = v / (1 - beta_2^t)
        rho_inf = 2 / (1 - beta_2) - 1,   rho = rho_inf - 2 t beta_2^t / (1 - beta_2^t)
        r = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
        weight <- weight - rate r m' / (sqrt(v') + epsilon), if rho is at least 5; else weight - rate m'

    Args:
        learning_rate: a number or a schedule.
        beta_1: share of the old in the moving average of gradients.
        beta_2: share of the old in the moving average of squared gradients.
        epsilon: keeps the division finite.
    """

    def __init__(
        self,
        learning_rate: float | tf.keras.optimizers.schedules.LearningRateSchedule,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str = "RectifiedAdam",
        **kwargs: Any,
    ):
        super().__init__(name, **kwargs)
        hypers = {"beta_1": beta_1, "beta_2": beta_2, "decay": self._initial_decay, "sma_threshold": _SHORTEST_AVERAGE}
        for key, value in {"learning_rate": learning_rate, **hypers, **_STORED_ONLY}.items():
            self._set_hyper(key, value)
        self.epsilon = epsilon

    def _create_slots(self, var_list: list[tf.Variable]) -> None:
        for slot in ("m", "v"):
            for variable in var_list:
                self.add_slot(variable, slot)

    def _prepare_local(self, var_device: str, var_dtype: tf.DType, apply_state: dict[Any, Any]) -> None:
        """Adds the factors of this step, which are the same for all variables, to `lr_t`, the learning rate."""
        super()._prepare_local(var_device, var_dtype, apply_state)
        beta_1, beta_2 = self._get_hyper("beta_1", var_dtype), self._get_hyper("beta_2", var_dtype)
        step = tf.cast(self.iterations + 1, var_dtype)
        power_2 = tf.pow(beta_2, step)
        mean_scale = 1.0 / (1.0 - tf.pow(beta_1, step))
        square_scale = 1.0 / (1.0 - power_2)
        # In the first steps the length is a small difference of two large numbers, so that in float32 the order of
        # these operations decides its second or third digit. Here it is tensorflow-addons' order.
        longest = 2.0 / (1.0 - beta_2) - 1.0
        length = longest - 2.0 * step * power_2 * square_scale
        adapts = length >= self._get_hyper("sma_threshold", var_dtype)
        rectifier = tf.sqrt((length - 4.0) / (longest - 4.0) * (length - 2.0) / (longest - 2.0) * longest / length)
        apply_state[(var_device, var_dtype)].update(
            beta_1=beta_1,
            beta_2=beta_2,
            square_scale=square_scale,
            adapts=adapts,
            # Without adaptation the root is of a negative number, or of the small remainder of a difference.
            step_size=mean_scale * tf.where(adapts, rectifier, 1.0),
        )

    def _resource_apply_dense(
        self, grad: tf.Tensor, var: tf.Variable, apply_state: dict[Any, Any] | None = None
    ) -> tf.Operation:
        factors = self._factors(var, apply_state)
        m, v = self.get_slot(var, "m"), self.get_slot(var, "v")
        mean = m.assign(factors["beta_1"] * m + (1.0 - factors["beta_1"]) * grad)
        square = v.assign(factors["beta_2"] * v + (1.0 - factors["beta_2"]) * tf.square(grad))
        return var.assign_sub(self._move(mean, square, factors))

    def _resource_apply_sparse(
        self, grad: tf.Tensor, var: tf.Variable, indices: tf.Tensor, apply_state: dict[Any, Any] | None = None
    ) -> tf.Operation:
        """Moves only the rows that have a gradient; the averages of all rows go on."""
        factors = self._factors(var, apply_state)
        mean = self._average_rows(self.get_slot(var, "m"), factors["beta_1"], grad, indices)
        square = self._average_rows(self.get_slot(var, "v"), factors["beta_2"], tf.square(grad), indices)
        return self._resource_scatter_add(var, indices, -self._move(mean, square, factors))

    def _average_rows(self, average: tf.Variable, share: tf.Tensor, seen: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        """Updates a moving average with what was seen in some of its rows; returns these rows."""
        with tf.control_dependencies([average.assign(share * average)]):
            return tf.gather(self._resource_scatter_add(average, indices, (1.0 - share) * seen), indices)

    def _move(self, mean: tf.Tensor, square: tf.Tensor, factors: dict[str, tf.Tensor]) -> tf.Tensor:
        """How far weights with these averages go, against the gradient."""
        root = tf.sqrt(square * factors["square_scale"]) + tf.cast(self.epsilon, square.dtype)
        step = factors["step_size"] * mean
        return factors["lr_t"] * tf.where(factors["adapts"], step / root, step)

    def _factors(self, var: tf.Variable, apply_state: dict[Any, Any] | None) -> dict[str, tf.Tensor]:
        """What `_prepare_local` has computed for variables of this kind."""
        kind = (var.device, var.dtype.base_dtype)
        return (apply_state or {}).get(kind) or self._fallback_apply_state(*kind)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras wants them."""
        hypers = {key: self._serialize_hyperparameter(key) for key in ("learning_rate", "beta_1", "beta_2")}
        return {**super().get_config(), **hypers, "epsilon": self.epsilon}
