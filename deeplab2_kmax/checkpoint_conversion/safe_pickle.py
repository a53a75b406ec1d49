"""Unpickles arrays and plain data without running code that a file names.

A pickle is a program: it may call any importable function. Here it finds stand-ins for the few names with which NumPy
and PyTorch describe arrays, and nothing else; neither library's own unpickling code runs, and PyTorch is not needed.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# PyTorch's storage classes. NumPy has no bfloat16: "bf2" stands for it and is widened on reading.
_STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_PLAIN_KINDS = "biuf"


class Storage(NamedTuple):
    """A block of numbers that lies outside the pickle."""

    code: str  # as in _STORAGES
    key: str
    count: int


class StoredTensor(NamedTuple):
    """A strided view of a storage; sizes in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def unpickle(data: bytes) -> object:
    """The object that the pickle `data` describes; PyTorch tensors come as `StoredTensor`.

    Raises:
        pickle.UnpicklingError: the pickle asks for a name that is not on the list, or is damaged.
        Exception: others, where it is damaged in some other way.
    """
    return _plain(_Unpickler(io.BytesIO(data), encoding="latin1").load())


def _plain(value):
    """`value` with arrays in place of their stand-ins, in dicts, lists and tuples of any depth."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value.array() if isinstance(value, _Array) else value


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        try:
            return _StandIn(_NAMES[module.replace("numpy._core", "numpy.core"), name])
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array; nothing was run") from None

    def persistent_load(self, reference):
        kind, code, key, _, count = reference
        if kind != "storage" or code not in _STORAGES.values():
            raise pickle.UnpicklingError(f"unknown reference {reference!r}")
        return Storage(code, str(key), int(count))


class _StandIn:
    """What a pickle holds in place of a function or class: it can be called, but not be changed."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable):
        self._call = call

    def __call__(self, *arguments):
        return self._call(*arguments)

    def __setstate__(self, state):
        raise pickle.UnpicklingError("it changes a function; nothing was run")


class _Dict(dict):
    """A dict with attributes, such as the version numbers of a state dict; they are dropped."""

    def __setstate__(self, state):
        pass


class _DType:
    """numpy.dtype of plain numbers."""

    def __init__(self, code="", *_):
        self.code, self.order = code, "="

    def __setstate__(self, state):
        self.order = state[1]

    def resolved(self) -> np.dtype:
        dtype = np.dtype(self.code)
        if dtype.kind not in _PLAIN_KINDS:
            raise pickle.UnpicklingError(f"expected an array of numbers, came one of {dtype}")
        return dtype.newbyteorder(self.order)


class _Array:
    """numpy.ndarray while its parts are being read."""

    def __init__(self, *_):
        self.shape, self.dtype, self.fortran, self.data = (), None, False, b""

    def __setstate__(self, state):
        _, self.shape, self.dtype, self.fortran, self.data = state

    def array(self) -> np.ndarray:
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        order = "F" if self.fortran else "C"
        return np.frombuffer(data, self.dtype.resolved()).reshape(self.shape, order=order)


def _scalar(dtype: _DType, data):
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype.resolved())[0]


def _from_buffer(data, dtype: _DType, shape, order):
    return np.frombuffer(data, dtype.resolved()).reshape(shape, order=order)


def _tensor(storage, offset, shape, strides, *_) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return StoredTensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoded as {encoding!r}")
    return text.encode("latin1")


# (module, name) that a pickle may ask for -> what it gets.
_NAMES: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): _Dict,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
}
