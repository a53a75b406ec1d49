"""Reads the state dict of a PyTorch checkpoint (`.pth`) or of a pickle of detectron2 (`.pkl`), without PyTorch.

A file that asks for code to be run is refused, see `safe_pickle`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.checkpoint_conversion.safe_pickle import StoredTensor, unpickle
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.wording import counted, first_line, some_of

# Until version 1.5, PyTorch wrote several pickles one after the other, the first of which is this number.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_state_dict(path: str) -> dict[str, np.ndarray]:
    """Reads the arrays of a model's `state_dict()` by their names.

    Args:
        path: local or remote file that `torch.save` (PyTorch 1.6 or later) or detectron2 wrote. It holds a state dict,
            or a dict that holds one under "model" beside training state, which is left out. If all names begin with
            "module.", this prefix is removed.

    Raises:
        CheckpointError: there is no such file, or it is damaged, of another kind, or asks for code to be run.
    """
    try:
        with files.open_to_read(path) as file:
            start = file.read(4)
    except OSError as error:
        raise CheckpointError(f"cannot read {path!r}: {error.strerror}") from error
    read = {b"PK\x03\x04": _read_zip}.get(start, _read_pickle if start[:1] == b"\x80" else None)
    if read is None:
        raise CheckpointError(f"{path}: expected a checkpoint of PyTorch (.pth) or detectron2 (.pkl), got neither")
    try:
        return read(path)
    except CheckpointError:
        raise
    # Damaged or hostile files fail in all ways; the pickle module does not promise any particular exception.
    except Exception as error:
        raise CheckpointError(f"{path}: refused, not a readable checkpoint: {first_line(error)}") from error


def _read_pickle(path: str) -> dict[str, np.ndarray]:
    content = unpickle(files.read_bytes(path))
    if content == _LEGACY_MAGIC:
        raise CheckpointError(
            f"{path}: written by PyTorch 1.5 or earlier, or by torch.save without zip; load it in PyTorch and save it"
            " again with torch.save"
        )
    return _state_dict(path, content, lambda tensor: tensor)


def _read_zip(path: str) -> dict[str, np.ndarray]:
    with files.open_to_read(path) as file, zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(names) != 1:
            raise CheckpointError(f"{path}: expected a zip file of torch.save, got one with no data.pkl")
        root = names[0].rpartition("/")[0]
        big_endian = f"{root}/byteorder" in archive.namelist() and archive.read(f"{root}/byteorder") == b"big"
        content = unpickle(archive.read(names[0]))
        return _state_dict(path, content, lambda tensor: _load(archive, root, tensor, ">" if big_endian else "<"))


def _load(archive: zipfile.ZipFile, root: str, tensor: StoredTensor, order: Literal["<", ">"]) -> np.ndarray:
    """Reads the array of `tensor` from the file in the archive that holds its storage.

    Args:
        archive: the checkpoint.
        root: folder in it.
        tensor: what to read.
        order: of bytes.
    """
    storage, offset, shape, strides = tensor
    widened = storage.code == "bf2"
    dtype = np.dtype("u2" if widened else storage.code).newbyteorder(order)
    member = archive.getinfo(f"{root}/data/{storage.key}")
    if member.file_size != storage.length * dtype.itemsize:
        size = counted(member.file_size, "byte")
        raise ValueError(f"storage {storage.key} has {size}, expected {storage.length} x {dtype}")
    # A view beyond its storage would read foreign memory in as_strided, which checks nothing.
    last = offset - 1 if 0 in shape else offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
    if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0 or last >= storage.length:
        raise ValueError(f"a tensor of shape {shape} reaches beyond storage {storage.key}")
    if 0 in shape:
        return np.zeros(shape, np.float32 if widened else dtype)
    flat = np.frombuffer(archive.read(member), dtype)
    if widened:
        # A bfloat16 is the upper half of a float32.
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, [stride * flat.itemsize for stride in strides])


def _state_dict(path: str, content: Any, load: Callable[[StoredTensor], Any]) -> dict[str, np.ndarray]:
    """The named arrays in `content`; `load` turns a stored tensor into an array."""
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: expected a dict of tensors or one under 'model', got {_described(content)}")
    arrays = {}
    for name, value in content.items():
        array = load(value) if isinstance(value, StoredTensor) else value
        if not isinstance(name, str) or not isinstance(array, (np.ndarray, np.generic)):
            raise CheckpointError(f"{path}: expected names and tensors, got {name!r}: {_described(array)}")
        arrays[name] = np.asarray(array)
    prefix = "module."
    return {name[len(prefix) :]: array for name, array in arrays.items()} if _all_have(prefix, arrays) else arrays


def _all_have(prefix: str, names: Iterable[str]) -> bool:
    return all(name.startswith(prefix) for name in names)


def _described(value: Any) -> str:
    """What a file holds, for messages."""
    if isinstance(value, dict):
        return f"a dict with {some_of(map(repr, value), 5) or 'nothing in it'}"
    return f"a {type(value).__name__}"
