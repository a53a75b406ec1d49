"""The devices that a run computes on: one CPU, GPUs of this machine, a TPU, or several machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.training.distribution.cluster import Cluster
from deeplab2_kmax.wording import counted, first_line


def create_strategy(
    num_gpus: int = 0, master: str | None = None, cluster: Cluster | None = None
) -> tf.distribute.Strategy:
    """Chooses the distribution strategy.

    With a cluster this has to be called before anything else of TensorFlow, whose devices it configures.

    Args:
        num_gpus: GPUs to use of this machine, or, with a cluster, of each machine; 0 means the CPU. Ignored if `master`
            is given.
        master: name or grpc:// address of a Cloud TPU, or "local" for the TPU of this machine.
        cluster: the processes that train together; None: this one alone.

    Returns:
        OneDeviceStrategy for the CPU or one GPU, MirroredStrategy for several GPUs, TPUStrategy for a TPU,
        MultiWorkerMirroredStrategy for a cluster.

    Raises:
        ConfigError: there are fewer GPUs, the number is negative, the TPU or the cluster does not answer, or both a TPU
            and a cluster are given.
    """
    if master is not None:
        if cluster is not None:
            raise ConfigError("master: a TPU has workers of its own; unset the environment variable TF_CONFIG")
        return _tpu_strategy(master)
    if num_gpus < 0:
        raise ConfigError(f"num_gpus: expected 0 (CPU) or more, got {num_gpus}")
    if cluster is not None:
        # Before `list_logical_devices`, which starts TensorFlow: afterwards no process can join a cluster.
        return _cluster_strategy(num_gpus, cluster)
    if num_gpus == 0:
        return tf.distribute.OneDeviceStrategy("device:CPU:0")
    _require_gpus(num_gpus, tf.config.list_logical_devices("GPU"))
    devices = [f"device:GPU:{index}" for index in range(num_gpus)]
    # One GPU needs no mirrored variables.
    return tf.distribute.OneDeviceStrategy(devices[0]) if num_gpus == 1 else tf.distribute.MirroredStrategy(devices)


def idle_gpus(num_gpus: int = 0, master: str | None = None) -> str | None:
    """A line about the GPUs that a run leaves unused because `num_gpus` is 0, its default; None: there are none.

    Args:
        num_gpus: see `create_strategy`.
        master: see `create_strategy`.
    """
    # Physical devices: looking at them takes no memory of a GPU, which somebody else may need.
    present = len(tf.config.list_physical_devices("GPU")) if num_gpus == 0 and master is None else 0
    if not present:
        return None
    are, them = ("is", "it") if present == 1 else ("are", "them")
    return f"{counted(present, 'GPU')} {are} present and unused: --num_gpus={present} uses {them}"


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the only one, or the one of several that reports and writes."""
    return bool(strategy.extended.should_save_summary)


def describe(strategy: tf.distribute.Strategy) -> str:
    """The devices of a strategy in words, e.g. "2 replicas on GPU:0, GPU:1"."""
    devices = sorted({device.split("/")[-1].replace("device:", "") for device in strategy.extended.worker_devices})
    return f"{counted(strategy.num_replicas_in_sync, 'replica')} on {', '.join(devices)}"


def require_batch_size(batch_size: int, strategy: tf.distribute.Strategy, field: str) -> None:
    """Checks that a batch gives all replicas the same number of images.

    Args:
        batch_size: images in the global batch.
        strategy: has the replicas.
        field: of the config, named in the message.

    Raises:
        ConfigError: it does not.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size < 1 or batch_size % replicas:
        raise ConfigError(
            f"{field}: expected a multiple of the {counted(replicas, 'replica')} (it counts the images of all of them"
            f" together), got {batch_size}; {max(1, batch_size // replicas) * replicas} would do"
        )


def require_compilable(strategy: tf.distribute.Strategy) -> None:
    """Checks that XLA can compile a step in which replicas exchange gradients.

    Raises:
        ConfigError: it cannot, because there are several replicas on CPUs.
    """
    on_cpu = any("CPU" in device for device in strategy.extended.worker_devices)
    if on_cpu and strategy.num_replicas_in_sync > 1:
        together = counted(strategy.num_replicas_in_sync, "replica")
        raise ConfigError(
            f"trainer_options.xla: XLA cannot compile what {together} on CPUs do together;"
            " use one process, GPUs, or xla: false"
        )


def _require_gpus(num_gpus: int, found: Sequence[Any]) -> None:
    if num_gpus > len(found):
        there = ", ".join(device.name for device in found) or "none"
        raise ConfigError(
            f"num_gpus: {num_gpus} asked for, but TensorFlow sees {len(found)} ({there});"
            " `deeplab2-kmax doctor` says which the machine has, and what TensorFlow needs to use them"
        )


def _cluster_strategy(num_gpus: int, cluster: Cluster) -> tf.distribute.Strategy:
    # MultiWorkerMirroredStrategy takes all GPUs it sees.
    gpus = tf.config.list_physical_devices("GPU")
    _require_gpus(num_gpus, gpus)
    tf.config.set_visible_devices(gpus[:num_gpus], "GPU")
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        address = cluster.addresses[cluster.number]
        raise ConfigError(
            f"environment variable TF_CONFIG: worker {cluster.number} cannot join the others from {address}; is its"
            f" port free, and have they all been started? TensorFlow says: {first_line(error)}"
        ) from error


def _tpu_strategy(master: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=master)
        # A TPU of this machine is one of its own devices; any other is reached over the network.
        if master not in ("", "local"):
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, OSError, tf.errors.OpError) as error:
        raise ConfigError(f"master: cannot reach the TPU {master!r}: {first_line(error)}") from error
    return tf.distribute.TPUStrategy(resolver)
