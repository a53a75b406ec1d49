"""What a benchmark runs on: the processor, how fast it multiplies matrices, and the memory that a process took."""

from __future__ import annotations

import os
import pathlib
import platform
import re
import sys
from collections.abc import Callable

import tensorflow as tf

from deeplab2_kmax.wording import counted

# What Linux calls the abilities of processors to compute in bfloat16: those of x86, and that of ARM.
_BFLOAT16 = ("amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16")
# Height and width of the matrices whose product is the machine's limit: large enough that memory does not matter.
MATRIX = 4096


def processor(cpuinfo: str = "/proc/cpuinfo") -> tuple[str, list[str]]:
    """The name of the processor, and its flags that have to do with bfloat16.

    Args:
        cpuinfo: Linux's description of the processors; elsewhere there is none, and no flags are known.
    """
    try:
        text = pathlib.Path(cpuinfo).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.+)$", text, re.MULTILINE)
    known = flags[1].split() if flags else []
    return name[1].strip() if name else platform.machine(), [flag for flag in _BFLOAT16 if flag in known]


def threads() -> int:
    """The number of threads that TensorFlow computes one operation with."""
    # TensorFlow says 0 where it takes as many as there are processors.
    return tf.config.threading.get_intra_op_parallelism_threads() or usable_processors()


def usable_processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, str]:
    """What stands above the tables, and in each line of the CSV file."""
    name, flags = processor()
    facts = {
        "processor": f"{name}, {counted(usable_processors(), 'core')}",
        "bfloat16": " ".join(flags) or "no instructions for it",
        "threads": str(threads()),
        "tensorflow": f"{tf.__version__}, Python {platform.python_version()}",
    }
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    gpus = [each.get("device_name", "unknown") for each in details]
    return {**facts, "GPU": ", ".join(gpus)} if gpus else facts


def matrix_product(precision: str, size: int) -> Callable[[], object]:
    """A function that multiplies two square matrices and returns when that is done.

    Args:
        precision: of the model that is compared with it; the product has the type in which that computes.
        size: height and width of the matrices; a product is `size`^3 multiply-adds.
    """
    dtype = tf.keras.mixed_precision.Policy(precision).compute_dtype
    left, right = tf.cast(tf.random.normal([2, size, size]), dtype)
    return lambda: tf.matmul(left, right)[0, 0].numpy()


def peak_memory() -> int:
    """The most main memory that this process has held at a time, in bytes."""
    # Not by getrusage where there is another way: a process starts there with the peak of the one that has started it.
    try:
        status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        status = ""
    if peak := re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE):
        return int(peak[1]) * 1024
    import resource  # Late, as only POSIX systems have it.

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
