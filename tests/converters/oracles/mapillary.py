"""Reads Mapillary Vistas, as its demo.py does."""

import json
import math
import pathlib

import numpy as np
from PIL import Image


def read(folder):
    """{name of a picture: its labels} of training and validation, with v2.0, v1.2 or the only labels."""
    root = pathlib.Path(folder)
    release = next((r for r in ("v2.0", "v1.2") if (root / f"config_{r}.json").exists()), "")
    config = root / (f"config_{release}.json" if release else "config.json")
    content = json.loads(config.read_text(), parse_constant=_refused, object_pairs_hook=_once)
    names, things, evaluated = [], [], []
    for label in content["labels"]:
        assert isinstance(label["name"], str) and label["name"].strip() and label["name"].strip() not in names
        names.append(label["name"].strip())
        things.append(_flag(label["instances"]))
        evaluated.append(_flag(label["evaluate"]))
        color = label.get("color")
        if isinstance(color, list):
            assert len(color) == 3 and all(_is_number(c) and c == int(c) and 0 <= c <= 255 for c in color)
    assert any(evaluated)
    found = {}
    for split in ("training", "validation"):
        for picture in (root / split / "images").glob("*.jpg"):
            path = root / split / release / "instances" / f"{picture.stem}.png"
            assert path.read_bytes()[24] == 16
            numbers = np.array(Image.open(path)).astype(np.int64)
            assert numbers.shape == Image.open(picture).size[::-1]
            shown = np.array([name if keep else "" for name, keep in zip(names, evaluated)], object)
            with_instances = np.array(things) & np.array(evaluated)
            assert numbers.max() // 256 < len(names)
            found[picture.stem] = shown[numbers // 256], np.where(with_instances[numbers // 256], numbers + 1, 0)
    return found


def _flag(value):
    assert isinstance(value, (bool, int, float)) and value in (0, 1)
    return bool(value)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _refused(name):
    raise ValueError(name)


def _once(pairs):
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)
