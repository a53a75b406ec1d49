"""Processes that work together on this machine, for tests."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
# Seconds after which a process counts as hanging.
LIMIT = 600


def start(arguments, **environment):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes):
    """(exit status, stdout, stderr) of each; none outlives this."""
    try:
        outputs = [process.communicate(timeout=LIMIT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(processes, outputs)]


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def start_workers(arguments):
    """The same command in two processes that work together."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]

    def tf_config(index):
        return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})

    return [start(arguments, TF_CONFIG=tf_config(index)) for index in range(2)]


def start_trainers(config, mode, model_dir, *overrides):
    """`start_workers` of the training program."""
    command = [ROOT / "trainer/train.py", f"--config_file={config}", f"--mode={mode}", f"--model_dir={model_dir}"]
    return start_workers([*command, *(f"--override={override}" for override in overrides)])
