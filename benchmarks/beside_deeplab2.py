"""What the benchmarks share: their arguments, DeepLab2 for comparison, and functions timed in turns.

A benchmark imports this module as its sibling: `python benchmarks/NAME.py` puts the folder on Python's path. The module
cannot be called deeplab2.py, because it would then hide the package of that name.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

# Only errors of TensorFlow's C++ part; it reads this when it is imported, which the benchmarks do later.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose --help shows `description`, a module's docstring, line by line as it is written."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_deeplab2_path(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """Adds --deeplab2_path, which means the same in every benchmark; see `import_deeplab2`."""
    text = "DeepLab2's folder deeplab2/, or the one that holds it"
    if not required:
        text += "; without it only deeplab2_kmax is timed"
    parser.add_argument("--deeplab2_path", required=required, metavar="DEEPLAB2", help=text)


def import_deeplab2(path: str) -> None:
    """Imports the package `deeplab2` from a folder, so that `from deeplab2.model import ...` works from then on.

    Args:
        path: the folder `deeplab2/`, a copy of google-research/deeplab2 with its protos compiled, or the folder that
            holds it.

    Raises:
        SystemExit: the package cannot be imported from there; the message says why and what is needed.
    """
    given = pathlib.Path(path).resolve()
    package = given if (given / "config.proto").is_file() else given / "deeplab2"
    expected = f"error: --deeplab2_path: expected DeepLab2's folder deeplab2/ or the one that holds it, got {given}"
    if not (package / "config.proto").is_file():
        raise SystemExit(f"{expected}, where there is no config.proto of DeepLab2")
    if package.name != "deeplab2":
        raise SystemExit(f"{expected}: DeepLab2 under another name; rename it, as it imports itself by that name")
    # Only for this import: with a checkout of this project beside DeepLab2's, the folder also holds one named
    # deeplab2_kmax, which Python would take for our package.
    parent = str(package.parent)
    sys.path.insert(0, parent)
    try:
        importlib.import_module("deeplab2.config_pb2")
    except ImportError as error:
        advice = ""
        if not (package / "config_pb2.py").is_file():
            advice = f"; compile its protos first: (cd {parent} && protoc deeplab2/*.proto --python_out=.)"
        raise SystemExit(f"error: --deeplab2_path: cannot import DeepLab2 from {package}: {error}{advice}") from None
    finally:
        sys.path.remove(parent)


def read_deeplab2_config(path: str) -> Any:
    """Reads a text config into DeepLab2's own `ExperimentOptions`; DeepLab2 has to be imported already.

    The field `pretrained_weights` is cleared, because DeepLab2 would look for the file when it builds the model.
    """
    from deeplab2 import config_pb2
    from google.protobuf import text_format

    config = text_format.Parse(pathlib.Path(path).read_text(encoding="utf-8"), config_pb2.ExperimentOptions())
    config.model_options.backbone.ClearField("pretrained_weights")
    return config


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Calls the function; returns (seconds that it took, what it returned)."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def take_turns(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Times functions in turn (A B A B ...), so that whatever else the machine does slows all of them alike.

    Args:
        functions: what to call, by name. A function has to return only after its work is done: TensorFlow may still be
            computing when a call returns, until a value is asked for.
        rounds: how often each is called.

    Returns:
        {name: seconds of each call}.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(timed(function)[0])
    return times


def speedup(ours: list[float], theirs: list[float]) -> float:
    """How many times faster ours is: the median of the ratios of neighbouring turns.

    Neighbouring turns met the same load, so this varies less than the ratio of the two medians.
    """
    return statistics.median(their / our for our, their in zip(ours, theirs))
