"""Label Studio's JSON by plain json, numpy and pycocotools; run lengths are read bit by bit."""

import base64
import io
import json
import math
import os
import re

import numpy as np
from converters.oracles.painting import paint
from PIL import Image
from pycocotools import mask as coco_mask

_NO_AREA = {"keypoint", "keypointlabels", "choices", "textarea", "rating", "number", "datetime", "taxonomy"}
_NO_AREA |= {"pairwise", "ranker", "relation"}


def read_label_studio(path, boxes=False, stuff_names=()):
    """See README; what comes later is on top."""
    with open(path, encoding="utf-8") as file:
        tasks = json.load(file)
    found = {}
    for task in tasks:
        submitted = [a for a in task["annotations"] if a.get("was_cancelled") not in (True, 1)]
        if submitted:
            # The rest is decided by ids that have to differ.
            if len(submitted) > 1:
                assert len({a["id"] for a in submitted}) == len(submitted)
            chosen = max(submitted, key=lambda a: (a.get("ground_truth") in (True, 1), a.get("id") or 0))
            base = task["data"]["image"].strip().replace("\\", "/").split("/")[-1]
            stem = os.path.splitext(re.sub("^[0-9a-f]{8}-", "", base))[0]
            assert stem not in found
            found[stem] = _painted(chosen["result"], boxes, stuff_names)
    return found


def _painted(results, boxes, stuff_names):
    layers, sizes = [], set()
    for place, result in enumerate(results):
        if result["type"] in _NO_AREA:
            continue
        assert not result.get("image_rotation") and not result.get("item_index")
        height, width = int(result["original_height"]), int(result["original_width"])
        sizes.add((height, width))
        value = result["value"]
        (name,) = value[result["type"]]
        assert name.strip()
        mask = _mask(result["type"], value, height, width, boxes)
        layers.append((mask, name.strip(), 0 if name.strip() in stuff_names else place + 1))
    # A picture without regions has the size of its file, which is what the test knows.
    ((height, width),) = sizes
    return paint(height, width, layers)


def _mask(kind, value, height, width, boxes):
    if kind == "brushlabels":
        assert value.get("format") in ("rle", None)
        return _brush(value["rle"], height, width)
    if kind == "bitmasklabels":
        head, _, content = value["imageDataURL"].partition(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(content, validate=True))) as image:
            assert image.format == "PNG" and image.size == (width, height)
            return np.asarray(image.convert("RGBA"))[..., 3] > 0
    if kind == "polygonlabels":
        assert value.get("closed") in (True, 1, None)
        assert all(len(point) == 2 for point in value["points"])
        return _polygon([(x / 100 * width, y / 100 * height) for x, y in value["points"]], height, width)
    x, y = value["x"] / 100 * width, value["y"] / 100 * height
    turn = math.radians(value.get("rotation") or 0)
    if kind == "ellipselabels":
        radii = value["radiusX"] / 100 * width, value["radiusY"] / 100 * height
        mask = np.zeros((height, width), bool)
        for row in range(height):
            for column in range(width):
                dx, dy = column + 0.5 - x, row + 0.5 - y
                u, v = dx * math.cos(turn) + dy * math.sin(turn), dy * math.cos(turn) - dx * math.sin(turn)
                mask[row, column] = min(radii) > 0 and (u / radii[0]) ** 2 + (v / radii[1]) ** 2 <= 1
        return mask
    assert kind == "rectanglelabels" and boxes
    w, h = value["width"] / 100 * width, value["height"] / 100 * height
    assert w >= 0 and h >= 0
    sides = ((0, 0), (w, 0), (w, h), (0, h))
    c, s = (math.cos(turn), math.sin(turn)) if turn else (1, 0)
    return _polygon([(x + dx * c - dy * s, y + dx * s + dy * c) for dx, dy in sides], height, width)


def _polygon(points, height, width):
    assert len(points) >= 3
    assert all(-0.1 * max(height, width) <= c <= 1.1 * max(height, width) for p in points for c in p)
    runs = coco_mask.frPyObjects([[c for point in points for c in point]], height, width)
    return coco_mask.decode(coco_mask.merge(runs)).astype(bool)


def _brush(rle, height, width):
    assert all(type(byte) is int and 0 <= byte <= 255 for byte in rle)
    bits = "".join(format(int(byte), "08b") for byte in rle)
    at = 0

    def take(count):
        nonlocal at
        at += count
        assert at <= len(bits)
        return int(bits[at - count : at], 2)

    count = take(32)
    assert count == height * width * 4 and take(5) == 7
    widths = [take(4) + 1 for _ in range(4)]
    values = []
    while len(values) < count:
        is_run = take(1)
        length = take(widths[take(2)]) + 1
        values += [take(8)] * length if is_run else [take(8) for _ in range(length)]
    assert len(values) == count and "1" not in bits[at:] and len(bits) - at < 16
    return np.array(values, np.uint8).reshape(height, width, 4)[..., 3] > 0
