"""Which run of a logger belongs to a run's folder, so that a run that was stopped goes on there."""

from __future__ import annotations

from deeplab2_kmax import files


def run_id(folder: str, logger: str, mode: str) -> str | None:
    """The id that an earlier process of this mode has kept; None if there is none."""
    found = _read(folder).get(_key(logger, mode))
    return found if isinstance(found, str) else None


def keep_run_id(folder: str, logger: str, mode: str, value: str) -> None:
    """Keeps an id for processes that go on with the run; raises OSError."""
    files.write_json(_path(folder), {**_read(folder), _key(logger, mode): value})


def _key(logger: str, mode: str) -> str:
    # Training and an evaluation beside it are two runs: both of them write at any time.
    return f"{logger}/{'train' if mode.startswith('train') else mode}"


def _path(folder: str) -> str:
    return files.join(folder, "loggers.json")


def _read(folder: str) -> dict[str, object]:
    try:
        content = files.read_json(_path(folder))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
