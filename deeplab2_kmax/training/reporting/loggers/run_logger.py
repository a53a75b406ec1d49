"""What a logger is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What a logger is told of a run when it starts.

    Attributes:
        name: of the experiment.
        folder: of the run, where a logger may keep how it goes on after a restart; local or remote.
        config: the config as text.
        mode: of the run, such as "train_and_eval".
    """

    name: str
    folder: str
    config: str
    mode: str


class RunLogger(Protocol):
    """Sends the figures of a run to where its user looks at them. Any method may raise any exception."""

    def start(self, facts: RunFacts) -> str:
        """Begins a run, or goes on with the one that the run's folder names; returns where it can be looked at."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Takes finite figures by name; names have parts, such as "train/losses/total". Steps need not ascend."""

    def end(self, complete: bool) -> None:
        """Ends the run; `complete` is False where it stopped before its last step."""
