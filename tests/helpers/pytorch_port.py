"""The state dicts with which the golden figures of the PyTorch port were computed; needs NumPy only."""

import gzip
import json
import pathlib
import zlib

import numpy as np

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
# Of the outputs, every STEP-th value is stored.
STEP = 61
SIZE = (65, 129)


def port_shapes(case: str) -> dict:
    """Tensor name -> shape of every tensor of the port's state dict."""
    return json.loads(gzip.decompress((GOLDEN / f"pytorch_{case}.keys.json.gz").read_bytes()))


def port_value(name: str, shape) -> np.ndarray:
    """The value of tensor `name`: seeded by the name, scaled so that activations neither vanish nor explode."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.array(7, np.int64)
    if name.endswith("running_var"):
        return random.uniform(0.8, 1.6, shape).astype(np.float32)
    if name.endswith(".weight") and len(shape) == 1:
        return random.uniform(0.3, 0.7, shape).astype(np.float32)
    value = random.standard_normal(shape)
    is_kernel = name.endswith(".weight") and not name.endswith(("_embeddings.weight", "_cluster_centers.weight"))
    scale = np.prod(shape[1:]) ** -0.5 if is_kernel else 0.1
    return (scale * value).astype(np.float32)


def port_image() -> np.ndarray:
    """uint8 RGB [1, 65, 129, 3]."""
    return np.random.RandomState(1).randint(0, 256, (1, *SIZE, 3)).astype(np.uint8)
