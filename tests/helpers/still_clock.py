"""A clock that stands still unless a test tells it to go on."""

import time


class StillClock:
    """Stands in for `time.monotonic`; tests add to `seconds`."""

    def __init__(self, monkeypatch):
        self.seconds = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.seconds)

    def batches(self, waiting):
        """Endless batches, for each of which one has to wait."""
        while True:
            self.seconds += waiting
            yield "batch"
