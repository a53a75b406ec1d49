"""What can stop a training run that is not a mistake in what the user gave."""

from __future__ import annotations

from deeplab2_kmax.errors import UserError


class TrainingError(UserError):
    """Training cannot go on: the message says at which step, and which loss terms are to blame."""


class StorageError(UserError):
    """Results cannot be written: the message says where, and what the operating system says."""
