"""Errors a user can mend. Command lines print them as one line; anything else is a bug and keeps its traceback."""


class UserError(ValueError):
    """Something the user gave is not what was expected; the message says what was expected, what came and where."""


class ConfigError(UserError):
    """An experiment config that cannot be read or does not make sense."""


class DataError(UserError):
    """An image, label, record, shard or annotation file that is missing or broken."""


class CheckpointError(UserError):
    """A checkpoint that is missing or does not fit the model."""
