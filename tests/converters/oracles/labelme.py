"""Reads folders of labelme's JSONs."""

import base64
import io
import json
import math
import pathlib

import numpy as np
from converters.oracles.painting import paint
from PIL import Image
from pycocotools import mask as coco_mask

LINES = ("line", "linestrip", "point", "points")


def read(folder, stuff=(), void=("__ignore__", "_background_")):
    """{name of a picture: its labels} of a folder; raises for whatever is no file of labelme."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        content = json.loads(path.read_text(), parse_constant=_no_constant)
        assert content["imagePath"].strip()
        stem = pathlib.PurePosixPath(pathlib.PureWindowsPath(content["imagePath"].strip()).as_posix()).stem
        assert stem not in found
        with Image.open(_picture(path, content["imagePath"], content.get("imageData"))) as image:
            image.load()
            width, height = image.size
        if content.get("imageHeight") is not None and content.get("imageWidth") is not None:
            assert (_number(content["imageHeight"]), _number(content["imageWidth"])) == (height, width)
        layers, things = [], {}
        assert isinstance(content["shapes"], list)
        for place, shape in enumerate(content["shapes"]):
            name, kind, group = shape["label"].strip(), shape.get("shape_type"), shape.get("group_id")
            assert name
            assert kind is None or isinstance(kind, str)
            group = place + 0.5 if group is None else _whole(group)
            if kind in LINES:
                continue
            number = things.setdefault((name, group), len(things) + 1)
            layers.append(
                (
                    _mask(kind or "polygon", shape, height, width),
                    "" if name in void else name,
                    0 if name in stuff or name in void else number,
                )
            )
        found[stem] = paint(height, width, layers)
    return found


def _picture(path, listed, embedded):
    listed = pathlib.PureWindowsPath(listed.strip()).as_posix()
    for place in (path.parent / listed, path.parent / pathlib.PurePosixPath(listed).name):
        if place.is_file():
            return place
    return io.BytesIO(base64.b64decode(embedded, validate=True))


def _mask(kind, shape, height, width):
    points = np.array([[_number(c) for c in point] for point in shape["points"]], float)
    assert points.shape[1:] == (2,)
    margin = 0.1 * max(height, width)
    if kind == "mask":
        (left, top), (right, bottom) = points.astype(int)
        assert min(left, top) >= 0 and right < width and bottom < height
        inside = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape["mask"], validate=True)))) > 0
        assert inside.shape == (bottom - top + 1, right - left + 1)
        mask = np.zeros((height, width), bool)
        mask[top : bottom + 1, left : right + 1] = inside
        return mask
    if kind == "circle":
        (x, y), (edge_x, edge_y) = points
        assert (points[0] >= -margin).all() and x <= width + margin and y <= height + margin
        radius = math.dist((x, y), (edge_x, edge_y))
        assert radius <= math.hypot(height, width)
        rows, columns = np.mgrid[:height, :width] + 0.5
        return np.hypot(rows - y, columns - x) <= radius if radius else np.zeros((height, width), bool)
    assert (points >= -margin).all() and (points <= np.array([width, height]) + margin).all()
    if kind == "rectangle":
        (left, top), (right, bottom) = points
        points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    else:
        assert kind == "polygon" or (kind == "oriented_rectangle" and len(points) == 4)
    assert len(points) >= 3
    return coco_mask.decode(coco_mask.frPyObjects([points.ravel().tolist()], height, width))[..., 0].astype(bool)


def _number(value):
    assert isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value


def _whole(value):
    assert _number(value) == int(value)
    return int(value)


def _no_constant(name):
    raise ValueError(name)
