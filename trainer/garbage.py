"""Garbage collection, which has nothing to do while a model is built."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Building and tracing make millions of objects that stay; looking through them again and again takes a fifth of
    the time. Where collection was off before, it stays off."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
