"""Where the computation runs: one CPU, GPUs of this machine, or a TPU."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError


def create_strategy(num_gpus: int = 0, master: str | None = None) -> tf.distribute.Strategy:
    """Chooses the distribution strategy.

    Args:
        num_gpus: GPUs of this machine to use; 0 means the CPU. Ignored where `master` is given.
        master: name or grpc:// address of a Cloud TPU, or "local" for the TPU of this machine.

    Returns:
        OneDeviceStrategy for the CPU or one GPU, MirroredStrategy for several GPUs, TPUStrategy for a TPU.

    Raises:
        ConfigError: more GPUs than there are, a negative number, or a TPU that does not answer.
    """
    if master is not None:
        return _tpu_strategy(master)
    if num_gpus < 0:
        raise ConfigError(f"num_gpus: expected 0 (CPU) or more, got {num_gpus}")
    if num_gpus == 0:
        return tf.distribute.OneDeviceStrategy("device:CPU:0")
    _require_gpus(num_gpus)
    devices = [f"device:GPU:{index}" for index in range(num_gpus)]
    return tf.distribute.OneDeviceStrategy(devices[0]) if num_gpus == 1 else tf.distribute.MirroredStrategy(devices)


def _require_gpus(num_gpus: int) -> None:
    found = tf.config.list_logical_devices("GPU")
    if num_gpus > len(found):
        there = ", ".join(device.name for device in found) or "none"
        raise ConfigError(
            f"num_gpus: {num_gpus} asked for, but TensorFlow sees {len(found)} ({there});"
            " TF_CPP_MIN_LOG_LEVEL=0 shows what TensorFlow says when it looks for them"
        )


def _tpu_strategy(master: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=master)
        if master not in ("", "local"):
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, OSError, tf.errors.OpError) as error:
        raise ConfigError(f"master: cannot reach the TPU {master!r}: {error}") from error
    return tf.distribute.TPUStrategy(resolver)
