"""Unpickles arrays and plain data without running code that a file names.

A pickle is a program: it may call any function that can be imported. Here it can only reach stand-ins for the few names
by which NumPy and PyTorch describe arrays; every other name is refused. The unpickling code of these two libraries does
not run, and PyTorch is not needed.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# PyTorch's storage class -> NumPy's code. NumPy has no bfloat16: "bf2" stands for it, and is widened on reading.
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
# Booleans, signed and unsigned integers, floats. Object arrays, above all, would hold pickles of their own.
_PLAIN_KINDS = "biuf"


class Storage(NamedTuple):
    """A block of numbers in a file of its own beside the pickle.

    Attributes:
        code: of the type of its numbers, as in `_STORAGES`.
        key: name of its file.
        length: how many numbers it holds.
    """

    code: str
    key: str
    length: int


class StoredTensor(NamedTuple):
    """A strided view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def unpickle(data: bytes) -> object:
    """The object that a pickle describes, with PyTorch tensors as `StoredTensor`.

    Args:
        data: the pickle.

    Raises:
        pickle.UnpicklingError: the pickle asks for a name that is not allowed, or is damaged.
        Exception: of any other type, if it is damaged in another way.
    """
    # latin1: how Python 2, with which some of detectron2's files were written, stored the bytes of arrays.
    return _plain(_Unpickler(io.BytesIO(data), encoding="latin1").load())


def _plain(value: Any) -> Any:
    """`value` with arrays in place of their stand-ins, in dicts, lists and tuples of any depth."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value.array() if isinstance(value, _Array) else value


class _Unpickler(pickle.Unpickler):
    """Looks names up in `_NAMES` and `_STORAGES` instead of importing them."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        try:
            # NumPy 2 calls it numpy._core.
            return _StandIn(_NAMES[module.replace("numpy._core", "numpy.core"), name])
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is not part of an array; nothing was run"
            ) from None

    def persistent_load(self, reference: Any) -> Storage:
        """Called for each storage, which PyTorch refers to as ("storage", class, key, device, length)."""
        kind, code, key, _, length = reference
        if kind != "storage" or code not in _STORAGES.values():
            raise pickle.UnpicklingError(f"unknown reference {reference!r}")
        return Storage(code, str(key), int(length))


class _StandIn:
    """Stands in for a function or class: the pickle can call it, but not change it."""

    # No __dict__, in which a pickle could put attributes.
    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function; nothing was run")


class _Dict(dict[Any, Any]):
    """A dict whose attributes, such as the version numbers of a state dict, are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class _DType:
    """Stands in for numpy.dtype; only plain numbers are allowed."""

    # Any: all values here come from the file. NumPy raises TypeError for those that it does not know.
    def __init__(self, code: Any = "", *_: Any):
        self.code = code
        self.order: Any = "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def resolved(self) -> np.dtype[Any]:
        """The real dtype."""
        dtype: np.dtype[Any] = np.dtype(self.code)
        if dtype.kind not in _PLAIN_KINDS:
            raise pickle.UnpicklingError(f"expected an array of numbers, got one of {dtype}")
        return dtype.newbyteorder(self.order)


class _Array:
    """Stands in for numpy.ndarray while its parts are being read."""

    def __init__(self, *_: Any):
        self.shape: Any = ()
        self.dtype: _DType | None = None
        self.fortran: Any = False
        self.data: Any = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def array(self) -> np.ndarray:
        """The real array."""
        # Not only against None: a pickle can put any object here.
        if not isinstance(self.dtype, _DType):
            raise pickle.UnpicklingError("an array without a type")
        flat = np.frombuffer(_as_bytes(self.data), self.dtype.resolved())
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def _as_bytes(data: Any) -> Any:
    """The bytes of an array, which Python 2 pickled as text."""
    return data.encode("latin1") if isinstance(data, str) else data


def _scalar(dtype: _DType, data: Any) -> Any:
    return np.frombuffer(_as_bytes(data), dtype.resolved())[0]


def _from_buffer(data: Any, dtype: _DType, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(data, dtype.resolved()).reshape(shape, order=order)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return StoredTensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoded as {encoding!r}")
    return text.encode("latin1")


# (module, name) that a pickle may ask for -> what it gets. Everything a pickle can make happen is in this list.
_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
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
