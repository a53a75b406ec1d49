"""What SIGTERM and Ctrl-C do to the code they meet."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from deeplab2_kmax.stop_signals import STOPPED, StopSignals, Terminated, name_of, status_of

SIGNALS = {
    signal.SIGTERM: (Terminated, "SIGTERM"),
    signal.SIGINT: (KeyboardInterrupt, "Ctrl-C"),
    signal.SIGHUP: (Terminated, "SIGHUP"),
}


def send(number):
    os.kill(os.getpid(), number)


@pytest.fixture(name="stop", autouse=True)
def stop_fixture():
    handlers = [signal.getsignal(number) for number in SIGNALS]
    with StopSignals() as stop:
        yield stop
    assert [signal.getsignal(number) for number in SIGNALS] == handlers


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_at_once(number):
    error, name = SIGNALS[number]
    with pytest.raises(error) as raised:
        send(number)
    assert name_of(raised.value) == name
    assert isinstance(raised.value, STOPPED)
    assert status_of(raised.value) == 128 + number


def test_sigterm_is_status_143_where_nobody_catches_it():
    assert Terminated().code == 143


@pytest.mark.parametrize("number", SIGNALS)
def test_it_waits_while_held(stop, number, capfd):
    done = []
    with pytest.raises(SIGNALS[number][0]), stop.held():
        with stop.held():
            send(number)
        done.append("all of it")
    assert done == ["all of it"]
    assert f"{SIGNALS[number][1]}: the run saves and stops" in capfd.readouterr().err


def test_between_steps_it_waits_for_the_check(stop):
    with pytest.raises(Terminated), stop.steps():
        stop.on_traced()
        stop.check()
        send(signal.SIGTERM)
        with pytest.raises(Terminated):
            stop.check()


def test_tracing_does_not_hold_it_up(stop):
    with pytest.raises(Terminated), stop.steps():
        send(signal.SIGTERM)
        pytest.fail("the signal was held while the graph was traced")


def test_later_steps_hold_it_up(stop):
    with stop.steps():
        stop.on_traced()
    done = []
    with pytest.raises(KeyboardInterrupt), stop.steps():
        send(signal.SIGINT)
        done.append("the step")
    assert done == ["the step"]


def test_an_inner_context_joins_the_outer_one(stop):
    with pytest.raises(Terminated) as raised, StopSignals() as inner, inner.held():
        send(signal.SIGTERM)
        assert inner.has_come and stop.has_come
    # The same error, which knows what has been told about it; and the outer one still has the signals.
    with pytest.raises(Terminated) as again:
        stop.check()
    assert again.value is raised.value
    assert signal.getsignal(signal.SIGTERM) == stop._on_signal


@pytest.mark.parametrize("number", SIGNALS)
def test_an_error_is_taken_for_the_signal_unless_the_signal_was_held(stop, number):
    with pytest.raises(SIGNALS[number][0]), stop.instead_of_errors(also_held=False):
        try:
            send(number)
        except BaseException:
            raise RuntimeError("as TensorFlow does") from None


def test_an_error_while_the_signal_is_held_remains(stop):
    with pytest.raises(RuntimeError), stop.instead_of_errors(also_held=False), stop.held():
        send(signal.SIGTERM)
        raise RuntimeError("the disk is full")


def test_other_errors_pass_through_a_held_signal(stop):
    with pytest.raises(ZeroDivisionError), stop.held():
        send(signal.SIGTERM)
        raise ZeroDivisionError


def test_other_threads_leave_the_handlers_alone():
    def enter():
        with StopSignals():
            found.append(signal.getsignal(signal.SIGTERM))

    found, before = [], signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [before]


# What the main thread is busy with: Python code; one long call that Python's handlers have to wait for.
BUSY = {"python": "time.sleep(60)", "a call": "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"}


@pytest.mark.parametrize("busy", BUSY)
@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_the_process_at_once(busy, number):
    program = (
        "import hashlib, time\n"
        "from deeplab2_kmax.stop_signals import StopSignals\n"
        "with StopSignals() as stop, stop.held():\n"
        "    print('busy', flush=True)\n"
        f"    {BUSY[busy]}\n"
        f"    {BUSY[busy]}\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            process.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.send_signal(number)
            assert process.wait(5) == 128 + number
        finally:
            process.kill()


def _run(body, patience=0.3):
    """A process with `body` inside of StopSignals, whose `come()` sends a SIGTERM: (status, what it prints)."""
    program = (
        "import hashlib, os, signal, threading, time\n"
        "from deeplab2_kmax.stop_signals import StopSignals\n"
        "def come(): os.kill(os.getpid(), signal.SIGTERM)\n"
        "def busy(rounds=10**9): hashlib.pbkdf2_hmac('sha256', b'', b'', rounds)\n"
        f"with StopSignals({patience}) as stop:\n"
    )
    program += "".join(f"    {line}\n" for line in body)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


AT_ONCE = "\nstopped by SIGTERM, at once: the same command goes on from what is whole and clears away the rest\n"


def test_a_command_loses_patience_with_a_long_call():
    assert _run(["threading.Timer(0.2, come).start()", "busy()"]) == (143, AT_ONCE)


def test_a_command_loses_patience_with_an_exception_that_got_lost():
    body = ["class Lost:", "    def __del__(self): come()", "Lost()", "while True: time.sleep(0.1)"]
    assert _run(body) == (143, AT_ONCE)


def test_a_command_has_patience_while_signals_are_held_back():
    body = ["with stop.held():", "    come()", "    time.sleep(1)", "    print('whole', flush=True)"]
    status, printed = _run(body)
    assert status == 143 and "at once:" not in printed.replace("ends it at once", "")


def test_a_line_that_has_been_printed_is_not_followed_by_another():
    body = [
        "from deeplab2_kmax.stop_signals import tell_how_to_go_on",
        "try: come()",
        "except BaseException as error: tell_how_to_go_on(error, 'go on')",
        "busy()",
    ]
    assert _run(body) == (143, "go on\n")


def test_without_patience_a_long_call_is_waited_for():
    status, printed = _run(["threading.Timer(0.1, come).start()", "busy(3 * 10**6)"], patience=None)
    assert status == 143 and "at once" not in printed
