"""Reads data sets in YOLO's format for segmentation."""

import math
import pathlib

import numpy as np
import yaml
from converters.oracles.painting import paint
from PIL import Image
from pycocotools import mask as coco_mask

PICTURES = (".jpg", ".png")


def read(folder):
    """{name of a picture: its labels} of all splits of <folder>/data.yaml."""
    root = pathlib.Path(folder)
    content = yaml.safe_load((root / "data.yaml").read_text())
    assert _once((root / "data.yaml").read_text())
    names = content["names"]
    if isinstance(names, dict):
        assert all(type(key) is int for key in names)
        names = [names[number] for number in range(len(names))]
    assert isinstance(names, list) and len(names) > 0 and len(set(map(str, names))) == len(names)
    assert all(type(name) in (str, int) and str(name).strip() for name in names)
    assert content.get("nc") is None or (type(content["nc"]) is not bool and content["nc"] == len(names))
    assert "kpt_shape" not in content
    base = content.get("path") or ""
    assert content.get("path") is None or isinstance(base, str)
    found = {}
    for split in ("train", "val", "test"):
        value = content.get(split)
        if value is None:
            continue
        here = {}
        for entry in value if isinstance(value, list) else [value]:
            assert isinstance(entry, str) and entry.strip()
            place = _place(root, base, entry.strip())
            if place is None:
                assert split == "test"
                continue
            if place.is_dir():
                pictures = [p for p in place.rglob("*") if p.suffix in PICTURES]
            else:
                lines = [line for line in place.read_text().splitlines() if line.strip()]
                pictures = [_place(place.parent, "", line) or _place(root, base, line) for line in lines]
            for picture in pictures:
                assert picture.stem not in here
                here[picture.stem] = _labels(picture, [str(name).strip() for name in names])
        assert here or split == "test"
        found.update(here)
    assert found
    return found


def _once(text):
    """Whether no key at the left margin comes twice."""
    keys = [line.split(":")[0].strip() for line in text.splitlines() if ":" in line and line[:1].strip()]
    return len(keys) == len(set(keys))


def _place(root, base, entry):
    for folder in (root / base, root):
        for name in (entry, entry[3:]) if entry.startswith("../") else (entry,):
            if (folder / name).exists():
                return folder / name
    return None


def _labels(picture, names):
    height, width = np.asarray(Image.open(picture)).shape[:2]
    parts = list(picture.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    label = pathlib.Path(*parts).with_suffix(".txt")
    layers = []
    for number, line in enumerate(label.read_text().splitlines() if label.exists() else (), start=1):
        if not line.strip():
            continue
        assert all(c in "0123456789.+-eE \t" for c in line)
        index, *shares = map(float, line.split())
        assert len(shares) >= 6 and len(shares) % 2 == 0 and index == int(index) and 0 <= index < len(names)
        assert all(math.isfinite(share) and -0.01 <= share <= 1.01 for share in shares)
        points = (np.reshape(shares, (-1, 2)) * [width, height]).ravel().tolist()
        mask = coco_mask.decode(coco_mask.frPyObjects([points], height, width))[..., 0].astype(bool)
        layers.append((mask, names[int(index)], number))
    layers.sort(key=lambda layer: -layer[0].sum())
    return paint(height, width, layers)
