"""Starts a model in a process of its own, to measure what its first map takes: time from the start, and memory."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import deeplab2_kmax
from deeplab2_kmax.cli.inference_benchmark.machine import peak_memory
from deeplab2_kmax.cli.inference_benchmark.models import Source, decoded
from deeplab2_kmax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ColdStart:
    """What a fresh process took.

    Attributes:
        total: seconds from the start of the process to its first map; imports, loading and the first call are in it.
        first_call: seconds of the first call, from the picture files to the maps.
        memory: the most main memory that the process held until its second map, in bytes.
    """

    total: float
    first_call: float
    memory: int


def cold_start(source: Source, picture: str, batch: int) -> ColdStart:
    """Measures a start.

    Args:
        source: of the model.
        picture: path of a picture file.
        batch: how often the first call gets that picture.

    Raises:
        UserError: the process has failed.
    """
    request = json.dumps({"source": dataclasses.asdict(source), "picture": picture, "batch": batch})
    # The package may have been found by a path that only this process knows.
    paths = [str(pathlib.Path(deeplab2_kmax.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with tempfile.TemporaryFile("w+") as complaints:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, request],
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=environment,
        )
        try:
            assert process.stdout is not None
            first_call = process.stdout.readline()
            total = time.perf_counter() - start
            memory = process.stdout.readline()
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if status != 0:
            complaints.seek(0)
            said = complaints.read().strip().splitlines()[-1:] or [f"exit status {status}"]
            raise UserError(f"{source.name}: expected a map from a process of its own, got: {said[0]}")
    return ColdStart(total, float(first_call), int(memory))


def _main(request: str) -> None:
    """What the process does: prints the seconds of the first call when it is done, and then its memory."""
    wanted = json.loads(request)
    model = Source(**wanted["source"]).open()
    for call in range(2):
        start = time.perf_counter()
        model.segment(decoded(wanted["picture"], wanted["batch"]))
        if call == 0:
            print(time.perf_counter() - start, flush=True)
    print(peak_memory(), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1])
