"""`deeplab2-kmax`, which tells when it calls certain functions; started from a process that has loaded TensorFlow.

It reads lines of JSON: [phases, pipe, output, command line]. For each it forks a process, prints its number, and in the
end its status. The process runs the command line with `output` as stdout and stderr. `phases` is a list of (name,
module, function): whenever the process is about to call the function (`function` or `Class.method`), it writes the name
to the named pipe, and in the end "the end". It does not wait then: what comes is the command as it always is.
"""

import functools
import importlib
import json
import os
import sys


def announce(phase: str, module: str, function: str, pipe: int) -> None:
    """Has the function write the phase to `pipe` when it is called."""
    owner = importlib.import_module(module)
    *classes, name = function.split(".")
    for each in classes:
        owner = getattr(owner, each)
    work = getattr(owner, name)

    @functools.wraps(work)
    def announced(*args, **kwargs):
        os.write(pipe, f"{phase}\n".encode())
        return work(*args, **kwargs)

    setattr(owner, name, announced)


def run(phases: list, pipe: str, output: str, line: list) -> None:
    from deeplab2_kmax.cli.main import main

    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    announcements = os.open(pipe, os.O_WRONLY)
    for phase, module, function in phases:
        announce(phase, module, function, announcements)
    try:
        main(line)
    finally:
        os.write(announcements, b"the end\n")


def serve() -> None:
    from deeplab2_kmax.terminal import quiet_libraries

    quiet_libraries()
    for module in ("training.run.start", "serving", "checkpoint_conversion", "converters.shapes", "cli.predict"):
        importlib.import_module(f"deeplab2_kmax.{module}")
    for request in sys.stdin:
        if (process := os.fork()) == 0:
            run(*json.loads(request))
        print(process, flush=True)
        print(os.waitpid(process, 0)[1], flush=True)


if __name__ == "__main__":
    serve()
