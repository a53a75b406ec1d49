"""Problems of a config: sentences that start with the path of a field, so that all of them can be listed together."""

from __future__ import annotations

from collections.abc import Iterable

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.wording import did_you_mean


def refuse(problems: Iterable[str], path: str = "") -> None:
    """Raises ConfigError with all of the problems, one a line, if there are any.

    Args:
        problems: sentences, each starting with the path of a field.
        path: the config's file, named in front.
    """
    if listing := "\n    ".join(problems):
        raise ConfigError(f"{path}: {listing}" if path else listing)


def choice_problems(field: str, value: str | int, choices: Iterable[str | int]) -> list[str]:
    """That `value` is none of `choices`; nothing if it is.

    Args:
        field: the path of the field that has it.
        value: what it has.
        choices: what it may have.
    """
    known = list(choices)
    if value in known:
        return []
    names = list(map(str, known))
    return [f"{field}: expected one of {', '.join(names)}; got {value!r}{did_you_mean(str(value), names)}"]
