"""What `deeplab2-kmax doctor` prints: versions, devices, and which dependencies are missing or do not fit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

from deeplab2_kmax.wording import first_line

_PACKAGE = "deeplab2_kmax"
# Width of the column of names.
_WIDTH = 20


def diagnose() -> tuple[str, bool]:
    """Looks at this machine.

    Returns:
        A report to read or to send with a question, and whether nothing is wrong.
    """
    lines = [
        _line("python", f"{platform.python_version()} ({sys.executable})"),
        _line("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"),
    ]
    try:
        lines.append(_line(_PACKAGE, importlib.metadata.version(_PACKAGE)))
        # Each entry as in pyproject.toml, such as "numpy<2,>=1.23".
        requirements = importlib.metadata.requires(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        lines.append(_line(_PACKAGE, "not installed: running from a checkout, whose dependencies are not checked"))
        requirements = []
    found, unmet = _dependencies(requirements)
    devices, tensorflow_works = _devices()
    lines += [*found, *devices]
    if unmet:
        quoted = " ".join(f'"{requirement}"' for requirement in unmet)
        lines.append(f"to mend: {sys.executable} -m pip install {quoted}")
    well = tensorflow_works and not unmet
    lines.append("all is well" if well else "something is missing or does not fit, see above")
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


def _devices() -> tuple[list[str], bool]:
    """One line for each device that TensorFlow sees, and whether TensorFlow could be imported."""
    try:
        import tensorflow as tf
    # Not only ImportError: a library of another version can fail in any way while it is loaded.
    except Exception as error:
        return [_line("tensorflow", f"cannot be imported: {first_line(error)}")], False
    devices = [device for device in tf.config.list_physical_devices() if device.device_type != "CPU"]
    names = [tf.config.experimental.get_device_details(device).get("device_name", device.name) for device in devices]
    lines = [_line("device", f"{device.device_type} {name}") for device, name in zip(devices, names)]
    return lines or [_line("device", "CPU only")], True


def _line(name: str, text: str) -> str:
    return f"{name:{_WIDTH - 1}} {text}"
