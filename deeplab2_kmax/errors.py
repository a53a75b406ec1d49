"""Errors that a user can mend.

Command lines print them without a traceback. Any other error is a bug and keeps its traceback.
"""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user gave is wrong; the message says what was expected, what was given, and where."""


class ConfigError(UserError):
    """An experiment config cannot be read or contradicts itself."""


class DataError(UserError):
    """An image, label, record, shard or annotation file is missing or broken."""


class CheckpointError(UserError):
    """A checkpoint is missing or does not fit the model."""


class TrainingError(UserError):
    """Training cannot go on; the message says at which step, and which loss terms are to blame."""


class StorageError(UserError):
    """Results cannot be written; the message says where, and what the operating system says."""


class WorkerError(UserError):
    """Another of the processes that work together is gone; the message says which, and how to go on."""
