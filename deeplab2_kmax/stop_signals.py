"""SIGTERM and Ctrl-C: a run saves what it has, then ends. A second signal ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NOTICE = "\n{}: the run saves and stops as soon as it can; a second one ends it at once\n"

# The attribute of an error of STOPPED that says that a line has been printed on how to go on.
_TOLD = "told_how_to_go_on"


class Terminated(SystemExit):
    """SIGTERM has come. If nobody catches it, the process ends with status 143 (128 + 15), the shell's convention."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


STOPPED = (KeyboardInterrupt, Terminated)


class StopSignals:
    """Turns SIGTERM into `Terminated` and SIGINT into KeyboardInterrupt, at once or at a moment that suits.

    Python runs signal handlers between two of its instructions. A signal that comes during a long call into TensorFlow
    therefore waits for that call, and one that comes while TensorFlow calls back into Python raises its exception
    there, from where TensorFlow reports it as an error of its own. So training does not let the handler raise during
    steps: the handler makes a note, which is looked at after each step.

    A second signal ends the process at once, with the status that shells give it (143 or 130). Since Python's handlers
    may have to wait, it is noticed by a thread that the interpreter's own C code wakes.

    As a context manager it takes over both signals, and gives them back at the end. Outside of the main thread, where
    Python receives no signals, it does nothing; a signal that is ignored (as after `nohup`) stays ignored.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        # How many contexts hold signals back now.
        self._held = 0
        self._traced = False
        # What `signal.signal` returned: a handler, or one of the module's constants.
        self._previous: dict[int, Any] = {}
        self._watch: _SecondSignal | None = None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._on_signal)
            self._watch = _SecondSignal(tuple(self._previous))
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        if self._watch is not None:
            self._watch.end()
            self._watch = None

    def renew(self) -> None:
        """Takes the signals over again; TensorFlow takes SIGTERM for itself when it joins a cluster."""
        for number in self._previous:
            signal.signal(number, self._on_signal)

    @property
    def has_come(self) -> bool:
        """Whether a signal has come."""
        return self._received is not None

    def check(self) -> None:
        """Raises `Terminated` or KeyboardInterrupt if a signal has come."""
        if self._received is not None:
            raise _error(self._received)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds signals back: they are raised by `check`, or at the end of the outermost of these contexts.

        An exception that leaves the context takes precedence over the signal.
        """
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if not self._held:
            self.check()

    @contextlib.contextmanager
    def instead_of_errors(self) -> Iterator[None]:
        """Raises the signal in place of an error that it caused.

        A signal that arrives while TensorFlow runs Python code comes out of TensorFlow as one of its errors.
        """
        try:
            yield
        except Exception:
            self.check()
            raise

    @contextlib.contextmanager
    def steps(self) -> Iterator[None]:
        """Training: signals wait for the end of a step (`check`), but not for the graph to be traced.

        Tracing takes long, runs Python code and has nothing to save; there a signal is raised at once. See `on_traced`.
        """
        self._held += self._traced
        try:
            yield
        finally:
            self._held -= self._traced
        self.check()

    def on_traced(self) -> None:
        """Tells, within `steps`, that the graph has been traced: signals wait from here on."""
        if not self._traced:
            self._traced = True
            self._held += 1

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            _end_at_once(number)
        self._received = number
        if not self._held:
            raise _error(number)
        # Not print: the signal may have come in the middle of one, and its buffer cannot be entered twice.
        with contextlib.suppress(OSError):
            os.write(2, _NOTICE.format(_name(number)).encode())


class _SecondSignal:
    """Ends the process when a second signal comes, also while the main thread is inside of a long call.

    Args:
        numbers: the signals that count.
    """

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self._numbers = numbers
        self._read_end, self._write_end = socket.socketpair()
        # The interpreter writes to it without waiting.
        self._write_end.setblocking(False)
        self._before = signal.set_wakeup_fd(self._write_end.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._wait, name="second signal", daemon=True).start()

    def end(self) -> None:
        """Stops watching; to be called in the main thread."""
        signal.set_wakeup_fd(self._before)
        self._write_end.close()

    def _wait(self) -> None:
        come = 0
        # Nothing to read any more once the other end is closed.
        while received := self._read_end.recv(1):
            if received[0] in self._numbers:
                come += 1
                if come > 1:
                    _end_at_once(received[0])
        self._read_end.close()


def _end_at_once(number: int) -> None:
    os._exit(128 + number)


def name_of(error: BaseException) -> str:
    """The name that users know a signal by; `error` is what it raised, one of STOPPED."""
    return _name(signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)


def status_of(error: BaseException) -> int:
    """The exit status that shells give a process that such a signal has ended."""
    return 128 + (signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)


def tell_how_to_go_on(error: BaseException, line: str) -> None:
    """Prints on stderr how to go on after a signal, unless a part of the program that knows more has done so.

    Args:
        error: what the signal raised, one of STOPPED.
        line: what to print.
    """
    if _TOLD not in vars(error):
        print(line, file=sys.stderr, flush=True)
        mark_told(error)


def mark_told(error: BaseException) -> None:
    """Notes that a line has been printed on how to go on after this signal, one of STOPPED."""
    vars(error)[_TOLD] = True


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _error(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated()
