"""The folder of an export: it appears as a whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator

import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.errors import StorageError, UserError
from deeplab2_kmax.folder_lock import hold_lock, lock_files
from deeplab2_kmax.serving import assets
from deeplab2_kmax.storage_errors import storage_fault

# The endings of the folders beside an export that is being written, and of its lock.
_TEMPORARY, _REPLACED, _LOCK = ".tmp", ".old", ".lock"


@contextlib.contextmanager
def named_disk(path: str) -> Iterator[None]:
    """Raises a StorageError about `path` where the operating system cannot write."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = storage_fault(error)
        if reason is None:
            raise
        raise StorageError(f"{path}: cannot write the export: {reason}; nothing of it is left there") from error


@contextlib.contextmanager
def whole_folder(path: str) -> Iterator[str]:
    """Yields a temporary folder, which becomes `path` when the block has ended and is deleted if the block fails.

    What killed exports have left beside a local `path` is cleared away first. On remote storage, where nothing tells
    whether an export is still being written, it stays.
    """
    # Beside the destination, on the same file system, so that renaming does not copy.
    own = f"{path}.{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as stack:
        try:
            if not files.is_remote(path):
                stack.enter_context(_marked_as_alive(own))
                _clear_leftovers(path)
            _refuse_foreign(path)
            files.make_folder(own + _TEMPORARY)
        except OSError as error:
            raise UserError(f"{path}: cannot write there: {error.strerror}") from error
        stack.callback(files.remove_tree, own + _TEMPORARY)
        yield own + _TEMPORARY
        with named_disk(path):
            files.sync_tree(own + _TEMPORARY)
            _put_in_place(own + _TEMPORARY, path, own + _REPLACED)


@contextlib.contextmanager
def _marked_as_alive(own: str) -> Iterator[None]:
    """Holds a lock beside the folders of an export, which is free again once its process is gone in whatever way."""
    with hold_lock(own + _LOCK):
        try:
            yield
        finally:
            for name in lock_files(own + _LOCK):
                files.remove(name)


def _clear_leftovers(path: str) -> None:
    """Deletes what killed exports to `path` have left; an earlier export that was being replaced gets its name back."""
    folder, name = files.parent(path), os.path.basename(path)
    kinds = "|".join(map(re.escape, (_TEMPORARY, _REPLACED, _LOCK)))
    pattern = re.compile(rf"({re.escape(name)}\.[0-9a-f]{{8}})({kinds})")
    found = filter(None, map(pattern.fullmatch, files.list_folder(folder or ".")))
    for leftover in sorted({files.join(folder, match[1]) for match in found}):
        try:
            with _marked_as_alive(leftover):
                if files.exists(leftover + _REPLACED) and not files.exists(path):
                    files.rename(leftover + _REPLACED, path)
                for kind in (_TEMPORARY, _REPLACED):
                    files.remove_tree(leftover + kind)
        except OSError:
            continue  # Of an export that is still being written, this one perhaps; or another user's.


def _refuse_foreign(path: str) -> None:
    if files.exists(path) and not assets.is_export(path) and not _is_empty_folder(path):
        raise UserError(
            f"{path}: expected a new or empty folder or an earlier export, got something else; choose another folder or"
            " remove it"
        )


def _put_in_place(temporary: str, path: str, replaced: str) -> None:
    """Renames `temporary` to `path`; an earlier export is kept under the name `replaced` until that has worked."""
    if not files.exists(path):
        files.rename(temporary, path)
        return
    files.rename(path, replaced)
    try:
        files.rename(temporary, path)
    except OSError:
        files.rename(replaced, path)
        raise
    files.remove_tree(replaced)


def _is_empty_folder(path: str) -> bool:
    return files.is_folder(path) and not files.list_folder(path)
