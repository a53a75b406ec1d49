"""What this machine offers: versions, devices and what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

# Distribution -> what goes wrong without it.
_NEEDED = {
    "tensorflow": "nothing works",
    "tf-models-official": "no training or evaluation loop",
    "tensorflow-addons": "no RectifiedAdam or Lookahead optimizer",
    "numpy": "nothing works",
    "protobuf": "no config can be read",
    "absl-py": "no command line",
    "scipy": "no matching, no class names on overlays",
    "Pillow": "no pictures",
    "matplotlib": "no plots",
    "pycocotools": "no COCO conversion",
    "tqdm": "no progress bars",
}


def diagnose() -> tuple[str, bool]:
    """A report to read or to send with a question, and whether all is well."""
    lines = [f"python              {platform.python_version()} ({sys.executable})", f"machine             {_machine()}"]
    missing = []
    for name, loss in {"deeplab2_kmax": "not installed: running from a checkout", **_NEEDED}.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = f"MISSING ({loss})" if name in _NEEDED else f"- ({loss})"
            missing += [name] if name in _NEEDED else []
        lines.append(f"{name:19} {version}")
    devices, works = _devices()
    lines += devices
    if missing:
        lines.append(f"to mend: {sys.executable} -m pip install {' '.join(missing)}")
    well = works and not missing
    lines.append("all is well" if well else "something is missing, see above")
    return "\n".join(lines), well


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"


def _devices() -> tuple[list[str], bool]:
    """One line for each device TensorFlow sees, and whether it could be imported."""
    try:
        import tensorflow as tf
    except Exception as error:
        return [f"tensorflow          cannot be imported: {error}"], False
    devices = [device for device in tf.config.list_physical_devices() if device.device_type != "CPU"]
    names = [tf.config.experimental.get_device_details(device).get("device_name", device.name) for device in devices]
    lines = [f"device              {device.device_type} {name}" for device, name in zip(devices, names)]
    return lines or ["device              CPU only"], True
