"""What `deeplab2-kmax doctor` prints: versions, devices, and which dependencies are missing or do not fit."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import pathlib
import pkgutil
import platform
import subprocess
import sys
import sysconfig
from typing import Any

from deeplab2_kmax.wording import counted, first_line, some_of

_PACKAGE = "deeplab2_kmax"
# What the markers of pyproject.toml choose: before Python 3.12, and from then on.
_LINES = (
    "those of Python 3.9 to 3.11, TensorFlow 2.15 and tensorflow-addons",
    "those of Python 3.12 and 3.13, TensorFlow 2.20 and tf-keras",
)
# Width of the column of names.
_WIDTH = 20


def diagnose() -> tuple[str, bool]:
    """Looks at this machine.

    Returns:
        A report to read or to send with a question, and whether nothing is wrong.
    """
    lines = [
        _line("python", f"{platform.python_version()} ({sys.executable})"),
        _line("machine", f"{platform.system()} {platform.machine()}, {counted(os.cpu_count() or 1, 'processor')}"),
    ]
    try:
        lines.append(_line(_PACKAGE, importlib.metadata.version(_PACKAGE)))
        # Each entry as in pyproject.toml, such as "numpy<2,>=1.23".
        requirements = importlib.metadata.requires(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        lines.append(_line(_PACKAGE, "not installed: running from a checkout, whose dependencies are not checked"))
        requirements = []
    lines.append(_line("dependencies", f"{_LINES[sys.version_info >= (3, 12)]}:"))
    found, unmet = _dependencies(requirements)
    shadowed = _shadowed(sysconfig.get_path("purelib"))
    used, tensorflow_works, devices = _tensorflow()
    unused = _unused_gpus(_gpus_of_machine(), devices) if tensorflow_works else []
    lines += [*found, *shadowed, *used, *unused]
    if unmet:
        quoted = " ".join(f'"{requirement}"' for requirement in unmet)
        lines.append(f"to mend: {sys.executable} -m pip install {quoted}")
    well = tensorflow_works and not unmet and not shadowed
    if not well:
        lines.append("something is missing or does not fit, see above")
    else:
        lines.append("all is well on the CPU; for the GPU, see above" if unused else "all is well")
    return "\n".join(lines), well


def _dependencies(requirements: list[str]) -> tuple[list[str], list[str]]:
    """One line for each dependency, and the requirements that are not met.

    Args:
        requirements: as `importlib.metadata.requires` gives them.
    """
    # Comes with TensorFlow. Imported here, so that a broken installation ends in a report, not in an ImportError.
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return [_line("packaging", "MISSING: the dependencies cannot be checked")], ["packaging"]
    lines, unmet = [], []
    for requirement in map(Requirement, requirements):
        # The marker of an extra such as "beam" is false unless that extra is asked for: those are not needed.
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        asked = f"needs {requirement.specifier}" if requirement.specifier else "any version will do"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            lines.append(_line(requirement.name, f"MISSING ({asked})"))
            unmet.append(wanted)
            continue
        # Whoever installed a pre-release did so on purpose.
        if requirement.specifier.contains(version, prereleases=True):
            lines.append(_line(requirement.name, f"{version} ({asked})"))
        else:
            lines.append(_line(requirement.name, f"{version} DOES NOT FIT ({asked})"))
            unmet.append(wanted)
    return lines, unmet


def _shadowed(installed: str) -> list[str]:
    """One line for each folder of PYTHONPATH from which Python takes packages that are installed here, too.

    DeepLab2's installation guide puts the folder of a clone of tensorflow/models there, and ROS its own packages.

    Args:
        installed: the folder of the environment's packages.
    """
    lines = []
    here = set(_packages(installed))
    for folder in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        names = here.intersection(_packages(folder))
        if names and not os.path.samefile(folder, installed):
            taken = f"{some_of(sorted(names), 3)} from {folder}"
            lines.append(_line("PYTHONPATH", f"{taken} DOES NOT FIT (unset the environment variable PYTHONPATH)"))
    return lines


def _packages(folder: str) -> list[str]:
    """The names that can be imported from a folder."""
    return [module.name for module in pkgutil.iter_modules([folder])]


def _tensorflow() -> tuple[list[str], bool, int]:
    """What TensorFlow uses: one line for its Keras and for each device; whether it works; how many GPUs it sees."""
    try:
        import tensorflow as tf

        # "keras" or "tf_keras": tf.keras itself has a version only if it is Keras 3.
        package = tf.keras.Model.__module__.partition(".")[0]
        keras: str = importlib.import_module(package).__version__
    # Not only ImportError: a library of another version can fail in any way while it is loaded.
    except Exception as error:
        return [_line("tensorflow", f"cannot be imported: {first_line(error)}")], False, 0
    legacy = keras.startswith("2.")
    if not legacy:
        told = f"{keras} DOES NOT FIT (needs Keras 2; unset the environment variable TF_USE_LEGACY_KERAS)"
    else:
        told = f"{keras} (package {package.replace('_', '-')}, {'legacy' if package == 'tf_keras' else 'not legacy'})"
    lines = [_line("keras", told)]
    devices = [device for device in tf.config.list_physical_devices() if device.device_type != "CPU"]
    lines += [_line("device", f"{device.device_type} {_name(tf, device)}") for device in devices]
    if not devices:
        lines.append(_line("device", "CPU only"))
    return lines, legacy, sum(device.device_type == "GPU" for device in devices)


def _name(tf: Any, device: Any) -> str:
    return tf.config.experimental.get_device_details(device).get("device_name", device.name)


def _gpus_of_machine(root: str = "/") -> list[str]:
    """Names of the GPUs that NVIDIA's driver knows, whether TensorFlow can use them or not.

    Args:
        root: of the file system.
    """
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        pass
    else:
        if done.returncode == 0:
            return [name.strip() for name in done.stdout.splitlines() if name.strip()]
    # A container may have the devices but not the program.
    known = list(pathlib.Path(root, "proc/driver/nvidia/gpus").glob("*"))
    return ["NVIDIA GPU"] * len(known or list(pathlib.Path(root, "dev").glob("nvidia[0-9]*")))


def _unused_gpus(present: list[str], seen: int) -> list[str]:
    """Lines about GPUs of the machine that TensorFlow does not see, and what to do about it.

    Args:
        present: names of the machine's GPUs.
        seen: how many GPUs TensorFlow sees.
    """
    if seen >= len(present):
        return []
    lines = [_line("GPU", f"{name}, which TensorFlow does not use") for name in present] if not seen else []
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return [*lines, f"CUDA_VISIBLE_DEVICES={hidden!r} hides GPUs from TensorFlow: unset that environment variable"]
    if seen:
        return [*lines, f"TensorFlow sees {seen} of the {counted(len(present), 'GPU')} that nvidia-smi lists"]
    try:
        cudnn = importlib.metadata.version("nvidia-cudnn-cu12")
    except importlib.metadata.PackageNotFoundError:
        return [*lines, f'to use the GPU: {sys.executable} -m pip install "{_PACKAGE}[gpu]"']
    why = "TF_CPP_MIN_LOG_LEVEL=0 deeplab2-kmax doctor shows what TensorFlow says when it looks for GPUs"
    return [*lines, f"cuDNN {cudnn} is installed; is the driver too old (nvidia-smi: CUDA 12 or later)? {why}"]


def _line(name: str, text: str) -> str:
    return f"{name:{_WIDTH - 1}} {text}"
