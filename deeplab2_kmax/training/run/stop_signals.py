"""SIGTERM and Ctrl-C: a run saves what it has, then ends. A second signal ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NOTICE = "\n{}: the run saves and stops as soon as it can; a second one ends it at once\n"


class Terminated(SystemExit):
    """SIGTERM came. Where nobody catches it, the process ends with status 143, as the shell's convention has it."""

    def __init__(self):
        super().__init__(128 + signal.SIGTERM)


STOPPED = (KeyboardInterrupt, Terminated)


class StopSignals:
    """Turns SIGTERM into `Terminated` and SIGINT into KeyboardInterrupt, at once or at a moment that suits.

    As a context manager it takes over both signals, and gives them back at the end. In a thread other than the main
    one, which Python tells of no signals, it does nothing; a signal that is ignored stays so.
    """

    def __init__(self):
        self._received: int | None = None
        self._held = 0
        self._traced = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def renew(self) -> None:
        """Takes the signals over again; TensorFlow takes SIGTERM for itself when it joins a cluster."""
        for number in self._previous:
            signal.signal(number, self._on_signal)

    @property
    def has_come(self) -> bool:
        """Whether a signal has come."""
        return self._received is not None

    def check(self) -> None:
        """Raises `Terminated` or KeyboardInterrupt where a signal has come."""
        if self._received is not None:
            raise _error(self._received)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Signals wait for `check`, or for the end of the outermost of these contexts, which raises them."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if not self._held:
            self.check()

    @contextlib.contextmanager
    def instead_of_errors(self) -> Iterator[None]:
        """A signal that met Python code called by TensorFlow comes out as an error of TensorFlow's; here as itself."""
        try:
            yield
        except Exception:
            self.check()
            raise

    @contextlib.contextmanager
    def steps(self) -> Iterator[None]:
        """Training: signals wait for the end of a step (`check`) once there are any; tracing does not hold them up."""
        self._held += self._traced
        try:
            yield
        finally:
            self._held -= self._traced
        self.check()

    def on_traced(self) -> None:
        """Within `steps`: from here on there are steps."""
        if not self._traced:
            self._traced = True
            self._held += 1

    def _on_signal(self, number: int, frame) -> None:
        if self._received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self._received = number
        if not self._held:
            raise _error(number)
        # Not print: the signal may have come in the middle of one.
        with contextlib.suppress(OSError):
            os.write(2, _NOTICE.format(_name(number)).encode())


def name_of(error: BaseException) -> str:
    """What the user knows the signal by that raised `error`, one of STOPPED."""
    return _name(signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _error(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated()
