"""What SIGTERM and Ctrl-C do to the code they meet."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from deeplab2_kmax.stop_signals import STOPPED, StopSignals, Terminated, name_of

SIGNALS = {signal.SIGTERM: (Terminated, "SIGTERM"), signal.SIGINT: (KeyboardInterrupt, "Ctrl-C")}


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


def test_tracing_does_not_hold_it_up_but_later_steps_do(stop):
    with pytest.raises(Terminated), stop.steps():
        send(signal.SIGTERM)
        pytest.fail("the signal was held while the graph was traced")
    stop = StopSignals()
    with stop:
        with stop.steps():
            stop.on_traced()
        done = []
        with pytest.raises(KeyboardInterrupt), stop.steps():
            send(signal.SIGINT)
            done.append("the step")
        assert done == ["the step"]


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
