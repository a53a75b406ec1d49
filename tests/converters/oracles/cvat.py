"""CVAT for images 1.1 by minidom, numpy and pycocotools."""

import math
import os
import re
from xml.dom import minidom

import numpy as np
from converters.oracles.painting import paint
from pycocotools import mask as coco_mask

_NO_AREA = {"points", "polyline", "tag", "skeleton"}


def read_cvat(path, boxes=False, stuff_names=(), crowd_is_void=True):
    """See README; a higher z_order is on top, then what comes later."""
    root = minidom.parse(str(path)).documentElement
    assert root.tagName == "annotations"
    assert not list(_elements(root, "track"))
    assert {e.tagName for e in _elements(root)} <= {"version", "meta", "image"}
    assert all(_text(v) == "1.1" for v in _elements(root, "version"))
    labels = {}
    for label in (each for group in root.getElementsByTagName("labels") for each in _elements(group, "label")):
        if not any(_text(p) for p in _elements(label, "parent")):
            (name,) = [_text(n) for n in _elements(label, "name")]
            assert name and name not in labels
            labels[name] = next((_text(t) for t in _elements(label, "type")), "any")
            assert all(re.fullmatch("#[0-9a-fA-F]{6}|", _text(c)) for c in _elements(label, "color"))
    found, ids = {}, []
    for image in _elements(root, "image"):
        ids.append(_whole(image, "id"))
        stem = os.path.splitext(image.getAttribute("name").strip().replace("\\", "/").split("/")[-1])[0]
        shapes = [e for e in _elements(image) if e.tagName not in _NO_AREA]
        if shapes:
            assert stem not in found
            size = _whole(image, "height"), _whole(image, "width")
            found[stem] = _painted(shapes, *size, labels, boxes, stuff_names, crowd_is_void)
    assert len(set(ids)) == len(ids)
    return found


def _painted(shapes, height, width, labels, boxes, stuff_names, crowd_is_void):
    layers = []
    for place, shape in enumerate(shapes):
        name = shape.getAttribute("label").strip()
        assert labels[name] in ("any", "mask", "polygon", "ellipse", "rectangle")
        assert {e.tagName for e in _elements(shape)} <= {"attribute"}
        assert shape.getAttribute("occluded") in ("", "0", "1")
        crowd = any(
            a.getAttribute("name") == "is_crowd" and _text(a).lower() in ("true", "1") for a in _elements(shape)
        )
        group = _whole(shape, "group_id", 0)
        assert group >= 0
        assert not (crowd and name in stuff_names)
        number = 0 if crowd or name in stuff_names else hash((name, group)) if group else place + 1
        shown = "" if crowd and crowd_is_void else name
        mask = _mask(shape, height, width, boxes)
        layers.append((_whole(shape, "z_order", 0), place, (mask, shown, number)))
    return paint(height, width, [layer for _, _, layer in sorted(layers, key=lambda each: each[:2])])


def _mask(shape, height, width, boxes):
    if shape.tagName == "polygon":
        points = [_floats(pair) for pair in shape.getAttribute("points").split(";")]
        assert all(len(p) == 2 for p in points)
        return _polygon(points, height, width)
    if shape.tagName == "mask":
        left, top, columns, rows = (_whole(shape, a) for a in ("left", "top", "width", "height"))
        assert left >= 0 and top >= 0 and columns > 0 and rows > 0 and left + columns <= width and top + rows <= height
        pixels = []
        for place, count in enumerate(shape.getAttribute("rle").split(",")):
            assert re.fullmatch(r"\s*[+-]?\d+(\.0*)?\s*", count, re.ASCII) and float(count) >= 0, count
            assert float(count) <= height * width
            pixels += [place % 2 == 1] * int(float(count))
        mask = np.zeros((height, width), bool)
        mask[top : top + rows, left : left + columns] = np.array(pixels, bool).reshape(rows, columns)
        return mask
    turn = math.radians(_float(shape, "rotation", 0))
    if shape.tagName == "ellipse":
        x, y, rx, ry = (_float(shape, a) for a in ("cx", "cy", "rx", "ry"))
        mask = np.zeros((height, width), bool)
        for row in range(height):
            for column in range(width):
                dx, dy = column + 0.5 - x, row + 0.5 - y
                u, v = dx * math.cos(turn) + dy * math.sin(turn), dy * math.cos(turn) - dx * math.sin(turn)
                mask[row, column] = rx > 0 and ry > 0 and (u / rx) ** 2 + (v / ry) ** 2 <= 1
        return mask
    assert shape.tagName == "box" and boxes
    x0, y0, x1, y1 = (_float(shape, a) for a in ("xtl", "ytl", "xbr", "ybr"))
    assert x0 < x1 and y0 < y1
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    points = []
    for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)):
        dx, dy = x - cx, y - cy
        points.append((cx + dx * math.cos(turn) - dy * math.sin(turn), cy + dx * math.sin(turn) + dy * math.cos(turn)))
    return _polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)] if turn == 0 else points, height, width)


def _polygon(points, height, width):
    assert len(points) >= 3
    assert all(-0.1 * max(height, width) <= c <= 1.1 * max(height, width) for p in points for c in p)
    runs = coco_mask.frPyObjects([[c for point in points for c in point]], height, width)
    return coco_mask.decode(coco_mask.merge(runs)).astype(bool)


def _elements(node, tag=None):
    found = [child for child in node.childNodes if child.nodeType == child.ELEMENT_NODE]
    return [child for child in found if tag in (None, child.tagName)]


def _text(node):
    return "".join(child.data for child in node.childNodes if child.nodeType in (3, 4)).strip()


def _floats(text):
    assert "_" not in text
    values = [float(part) for part in text.split(",")]
    assert all(math.isfinite(value) for value in values)
    return values


def _float(node, name, default=None):
    if not node.hasAttribute(name):
        assert default is not None, name
        return default
    (value,) = _floats(node.getAttribute(name))
    return value


def _whole(node, name, default=None):
    value = _float(node, name, default)
    assert value == int(value)
    return int(value)
