"""Reads projects of Supervisely whose datasets are splits."""

import base64
import io
import json
import math
import pathlib
import re
import zlib

import numpy as np
from converters.oracles.painting import paint
from PIL import Image, ImageDraw

LINES = ("point", "line", "graph")


def read(folder):
    """{name of a picture: its labels} of all datasets of a project; raises for whatever is none."""
    root = pathlib.Path(folder)
    meta = _json(root / "meta.json")
    assert meta.get("projectType") in (None, "images")
    shapes = {}
    for entry in meta["classes"]:
        title = entry["title"].strip()
        assert title and title not in shapes and isinstance(entry["shape"], str)
        color = entry.get("color")
        assert color in (None, "") or re.fullmatch("#[0-9a-fA-F]{6}", color)
        shapes[title] = entry["shape"]
    found = {}
    for path in sorted(root.glob("*/ann/*.json")):
        content = _json(path)
        picture = path.parent.parent / "img" / path.name[:-5]
        with Image.open(picture) as image:
            width, height = image.size
        assert (_whole(content["size"]["height"]), _whole(content["size"]["width"])) == (height, width)
        tags = content.get("tags") or []
        assert isinstance(content["objects"], list) and isinstance(tags, list)
        assert all(isinstance(tag["name"], str) for tag in tags)
        layers, things = [], {}
        for place, each in enumerate(content["objects"]):
            shape = shapes[each["classTitle"].strip()]
            kind = each.get("geometryType") or each.get("shape")
            assert kind is None or isinstance(kind, str)
            kind = kind or shape
            assert kind == shape or shape == "any"
            instance = each.get("instance")
            assert instance is None or (isinstance(instance, str) and instance.strip())
            if kind in LINES:
                continue
            thing = (each["classTitle"].strip(), instance.strip() if instance else place)
            layers.append((_mask(kind, each, height, width), thing[0], things.setdefault(thing, len(things) + 1)))
        assert picture.stem not in found
        found[picture.stem] = paint(height, width, layers)
    return found


def _json(path):
    return json.loads(path.read_text(), parse_constant=_refused, object_pairs_hook=_once)


def _refused(name):
    raise ValueError(name)


def _once(pairs):
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def _mask(kind, each, height, width):
    mask = np.zeros((height, width), bool)
    if kind in ("bitmap", "alpha_mask"):
        left, top = (round(_number(c)) for c in each["bitmap"]["origin"])
        content = base64.b64decode(each["bitmap"]["data"], validate=True)
        if content[:4] != b"\x89PNG":
            content = zlib.decompress(content)
        image = Image.open(io.BytesIO(content))
        image.load()
        inside = np.asarray(image.convert("LA"))[..., 1 if kind == "bitmap" else 0] >= (1 if kind == "bitmap" else 128)
        rows, columns = inside.shape
        assert left >= 0 and top >= 0 and left + columns <= width and top + rows <= height
        mask[top : top + rows, left : left + columns] = inside
    elif kind == "multipolygon":
        assert isinstance(each["parts"], list)
        for part in each["parts"]:
            mask |= _polygon(part["exterior"], part.get("interior"), height, width)
    elif kind == "polygon":
        mask = _polygon(each["points"]["exterior"], each["points"].get("interior"), height, width)
    else:
        assert kind == "rectangle"
        points = _points(each["points"]["exterior"], height, width)
        assert len(points) == 2
        (left, right), (top, bottom) = (sorted(side) for side in zip(*points))
        mask[max(top, 0) : max(bottom + 1, 0), max(left, 0) : max(right + 1, 0)] = True
    return mask


def _polygon(exterior, interior, height, width):
    image = Image.new("L", (width, height))
    for place, ring in enumerate([exterior, *(interior or [])]):
        points = _points(ring, height, width)
        assert len(points) >= 3
        ImageDraw.Draw(image).polygon(points, fill=int(place == 0))
        ImageDraw.Draw(image).line(points + points[:1], fill=int(place == 0))
    return np.asarray(image) > 0


def _points(ring, height, width):
    assert isinstance(ring, list)
    points = [tuple(round(_number(c)) for c in point) for point in ring]
    margin = 0.1 * max(height, width)
    for x, y in points:
        assert -margin <= x <= width + margin and -margin <= y <= height + margin
    return points


def _number(value):
    assert isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value


def _whole(value):
    assert _number(value) == int(value)
    return int(value)
