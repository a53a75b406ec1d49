"""SIGTERM, SIGHUP and Ctrl-C: a run saves what it has, then ends. A second signal ends it at once.

Workers of a process that is killed end with it (`end_with_parent`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from deeplab2_kmax.wording import printable

# SIGHUP comes when the terminal of a run is closed, as when a connection by ssh ends; Windows has none.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
_NOTICE = "\n{}: the run saves and stops as soon as it can; a second one ends it at once\n"
_AT_ONCE = "\nstopped by {}, at once: the same command goes on from what is whole and clears away the rest\n"
# Seconds from one look to the next at whether the process is still there.
_TICK = 0.1

# The attribute of an error of STOPPED that says that a line has been printed on how to go on.
_TOLD = "told_how_to_go_on"


class Terminated(SystemExit):
    """SIGTERM or SIGHUP has come. If nobody catches it, the process ends with status 128 + the signal's number."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(128 + number)
        self.number = number


STOPPED = (KeyboardInterrupt, Terminated)


@dataclasses.dataclass
class _Stop:
    """What nested `StopSignals` of one process have in common.

    Attributes:
        error: what the first signal raises; None before it comes.
        raised: whether it was raised at once; else it waits, or has waited, for a moment that suits.
        held: how many contexts hold signals back now.
    """

    error: BaseException | None = None
    raised: bool = False
    held: int = 0

    def end_process(self, number: int) -> None:
        """Ends the process without tidying up, after a line on how to go on, unless there has been one."""
        if self.error is None or _TOLD not in vars(self.error):
            _write_to_stderr(_AT_ONCE.format(_name(number)))
        os._exit(128 + number)


# That of the outermost context of the main thread.
_shared: _Stop | None = None


class StopSignals:
    """Turns SIGTERM and SIGHUP into `Terminated`, SIGINT into KeyboardInterrupt, at once or at a moment that suits.

    Python runs signal handlers between two of its instructions. A signal that comes during a long call into TensorFlow
    therefore waits for that call, and one that comes while TensorFlow calls back into Python raises its exception
    there, from where TensorFlow reports it as an error of its own. So training does not let the handler raise during
    steps: the handler makes a note, which is looked at after each step.

    A second signal ends the process at once, with the status that shells give it (143, 129 or 130). Since Python's
    handlers may have to wait, it is noticed by a thread that the interpreter's own C code wakes. In a command, whose
    process has nothing to do but that command, this thread also loses patience after the first signal: a long call, or
    an exception that got lost because it was raised in a callback from which Python passes none on, does not keep the
    process.

    As a context manager it takes over these signals, and gives them back at the end; within another one it joins that
    one. Outside of the main thread, where Python receives no signals, it does nothing; a signal that is ignored (as
    after `nohup`) stays ignored.

    Args:
        patience: seconds until the first signal ends the process by force; time in which signals are held back does not
            count. None: it never does.
    """

    def __init__(self, patience: float | None = None) -> None:
        self._patience = patience
        self._stop = _Stop()
        self._traced = False
        # What `signal.signal` returned: a handler, or one of the module's constants.
        self._previous: dict[int, Any] = {}
        self._watch: _Watch | None = None

    def __enter__(self) -> StopSignals:
        global _shared
        if threading.current_thread() is not threading.main_thread():
            return self
        if _shared is not None:
            self._stop = _shared
            return self
        _shared = self._stop = _Stop()
        for number in _SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._previous[number] = signal.signal(number, self._on_signal)
        self._watch = _Watch(tuple(self._previous), self._stop, self._patience)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        global _shared
        if self._watch is None:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        self._watch.end()
        self._watch = _shared = None

    @staticmethod
    def renew() -> None:
        """Takes the signals over again; TensorFlow takes SIGTERM for itself when it joins a cluster."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # Python still has the handler, and tells the system of it once more.
                if callable(handler := signal.getsignal(number)):
                    signal.signal(number, handler)

    @property
    def has_come(self) -> bool:
        """Whether a signal has come."""
        return self._stop.error is not None

    def check(self) -> None:
        """Raises `Terminated` or KeyboardInterrupt if a signal has come."""
        if self._stop.error is not None:
            raise self._stop.error

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds signals back: they are raised by `check`, or at the end of the outermost of these contexts.

        An exception that leaves the context takes precedence over the signal.
        """
        self._stop.held += 1
        try:
            yield
        finally:
            self._stop.held -= 1
        if not self._stop.held:
            self.check()

    @contextlib.contextmanager
    def instead_of_errors(self, also_held: bool = True) -> Iterator[None]:
        """Raises the signal in place of an error that it caused.

        A signal that arrives while TensorFlow runs Python code comes out of TensorFlow as one of its errors.

        Args:
            also_held: whether an error counts as caused by a signal that was held back when it came.
        """
        try:
            yield
        except Exception:
            if also_held or self._stop.raised:
                self.check()
            raise

    @contextlib.contextmanager
    def steps(self) -> Iterator[None]:
        """Training: signals wait for the end of a step (`check`), but not for the graph to be traced.

        Tracing takes long, runs Python code and has nothing to save; there a signal is raised at once. See `on_traced`.
        """
        self._stop.held += self._traced
        try:
            yield
        finally:
            self._stop.held -= self._traced
        self.check()

    def on_traced(self) -> None:
        """Tells, within `steps`, that the graph has been traced: signals wait from here on."""
        if not self._traced:
            self._traced = True
            self._stop.held += 1

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        stop = self._stop
        if stop.error is not None:
            stop.end_process(number)
        stop.error = KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
        if not stop.held:
            stop.raised = True
            raise stop.error
        _write_to_stderr(_NOTICE.format(_name(number)))


class _Watch:
    """Ends the process after a signal that the main thread does not follow, be it inside of a long call.

    Args:
        numbers: the signals that count.
        stop: what is known about them.
        patience: see `StopSignals`; a second signal ends it in any case.
    """

    def __init__(self, numbers: tuple[int, ...], stop: _Stop, patience: float | None) -> None:
        self._numbers, self._stop, self._patience = numbers, stop, patience
        self._read_end, self._write_end = socket.socketpair()
        # The interpreter writes to it without waiting.
        self._write_end.setblocking(False)
        self._before = signal.set_wakeup_fd(self._write_end.fileno(), warn_on_full_buffer=False)
        self._unraisable = sys.unraisablehook
        sys.unraisablehook = self._on_unraisable
        threading.Thread(target=self._wait, name="stop signals", daemon=True).start()

    def end(self) -> None:
        """Stops watching; to be called in the main thread."""
        signal.set_wakeup_fd(self._before)
        sys.unraisablehook = self._unraisable
        self._write_end.close()

    def _wait(self) -> None:
        come, left = None, self._patience or 0.0
        while True:
            try:
                received = self._read_end.recv(1)
            except socket.timeout:  # Called TimeoutError from Python 3.10 on.
                assert come is not None and self._patience is not None
                left = self._patience if self._stop.held else left - _TICK
                if left <= 0:
                    self._stop.end_process(come)
                continue
            if not received:  # The other end is closed.
                break
            if received[0] not in self._numbers:
                continue
            if come is not None:
                self._stop.end_process(received[0])
            come = received[0]
            if self._patience is not None:
                self._read_end.settimeout(_TICK)
        self._read_end.close()

    def _on_unraisable(self, unraisable: Any) -> None:
        """Python prints a traceback of what is raised where nobody can catch it, such as in `__del__`; not of these."""
        if not isinstance(unraisable.exc_value, STOPPED):
            self._unraisable(unraisable)


def name_of(error: BaseException) -> str:
    """The name that users know a signal by; `error` is what it raised, one of STOPPED."""
    return _name(_number_of(error))


def status_of(error: BaseException) -> int:
    """The exit status that shells give a process that such a signal has ended."""
    return 128 + _number_of(error)


def _number_of(error: BaseException) -> int:
    return error.number if isinstance(error, Terminated) else signal.SIGINT


def end_without_teardown(status: int) -> None:
    """Ends the process at once with an exit status; what has been printed is written before."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # Closed, without a reader, or not there.
            stream.flush()
    os._exit(status)


def tell_how_to_go_on(error: BaseException, line: str) -> None:
    """Prints on stderr how to go on after a signal, unless a part of the program that knows more has done so.

    Args:
        error: what the signal raised, one of STOPPED.
        line: what to print.
    """
    if _TOLD not in vars(error):
        print(printable(line), file=sys.stderr, flush=True)
        mark_told(error)


def mark_told(error: BaseException) -> None:
    """Notes that a line has been printed on how to go on after this signal, one of STOPPED."""
    vars(error)[_TOLD] = True


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _write_to_stderr(text: str) -> None:
    """Not print: a signal may have come in the middle of one, and its buffer cannot be entered twice."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode())


def end_with_parent() -> None:
    """Has this process, a worker of another one, end when that one is killed."""
    threading.Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
