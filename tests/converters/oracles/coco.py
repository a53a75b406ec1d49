"""COCO's JSON of instances, and of stuff, by pycocotools; it trusts run lengths, so these are read by numpy."""

import json
import os

import numpy as np
from converters.oracles.painting import paint
from PIL import Image
from pycocotools import mask as coco_mask


def read_coco(path, stuff_path=None, stuff_names=(), crowd_is_void=True, keep_empty=False, pngs=None):
    """See README; smaller regions are on top, and stuff is below all instances.

    `pngs` is the folder of COCO-Stuff's pixelmaps, whose categories are those of `stuff_path`.
    """
    things = load(path)
    stuff = load(stuff_path) if stuff_path and not pngs else None
    found = {}
    for image in things["images"]:
        regions = [(1, a, things) for a in things["annotations"] if a["image_id"] == image["id"]]
        if stuff:
            regions = [(0, a, stuff) for a in stuff["annotations"] if a["image_id"] == image["id"]] + regions
        if regions or keep_empty or pngs:
            stem = os.path.splitext(os.path.basename(image["file_name"]))[0]
            assert stem not in found
            found[stem] = _painted(image, regions, stuff_names, crowd_is_void)
            if pngs:
                _lay_below(found[stem][0], things, Image.open(f"{pngs}/{stem}.png"), stuff_path)
    return found


def _lay_below(names, things, image, stuff_path):
    """Fills pixels that no region covers; here no crowd is, as void pixels of regions would be filled as well."""
    assert image.mode in ("L", "P", "1")
    numbers = np.asarray(image).astype(int)
    assert numbers.shape == names.shape and not any(a.get("iscrowd") for a in things["annotations"])
    with open(stuff_path, encoding="utf-8") as file:
        meanings = {c["id"]: c["name"] for c in json.load(file)["categories"]}
    meanings.update({0: "", 183: ""})
    meanings.update((c["id"], "") for c in things["categories"])
    filled = np.array([meanings[number] for number in numbers.ravel()], object).reshape(names.shape)
    below = names == ""
    names[below] = filled[below]


def load(path):
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    for field in ("images", "categories", "annotations"):
        ids = [each["id"] for each in content[field]]
        assert len(set(ids)) == len(ids), field
        assert all(type(i) in (int, str, float) for i in ids), ids
    for annotation in content["annotations"]:
        assert annotation["image_id"] in [i["id"] for i in content["images"]]
        assert annotation["category_id"] in [c["id"] for c in content["categories"]]
        assert annotation.get("iscrowd") in (0, 1, None)
    return content


def _painted(image, regions, stuff_names, crowd_is_void):
    height, width = int(image["height"]), int(image["width"])
    layers = []
    for place, (level, annotation, source) in enumerate(regions):
        (name,) = {c["name"].strip() for c in source["categories"] if c["id"] == annotation["category_id"]}
        is_thing = level == 1 and name not in stuff_names
        is_crowd = bool(annotation.get("iscrowd"))
        assert is_thing or not is_crowd
        mask = mask_of(annotation["segmentation"], height, width)
        shown = "" if is_crowd and crowd_is_void else name
        number = place + 1 if is_thing and not is_crowd else 0
        layers.append((level, number or name, place, (mask, shown, number)))
    # All regions of a stuff class are one segment, whose area decides.
    areas = {}
    for _, segment, _, (mask, *_) in layers:
        areas[segment] = areas.get(segment, 0) + int(mask.sum())
    order = sorted(layers, key=lambda each: (each[0], -areas[each[1]], each[2]))
    return paint(height, width, [each[3] for each in order])


def mask_of(segmentation, height, width):
    """bool [height, width]"""
    if isinstance(segmentation, list):
        assert segmentation and all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in segmentation)
        assert all(type(c) in (int, float) and abs(c) < 1e6 for polygon in segmentation for c in polygon)
        runs = coco_mask.frPyObjects(segmentation, height, width)
        return coco_mask.decode(coco_mask.merge(runs)).astype(bool)
    assert segmentation["size"] == [height, width]
    counts = segmentation["counts"]
    counts = _decompressed(counts) if isinstance(counts, str) else counts
    assert all(type(c) in (int, float) and c >= 0 and c == int(c) for c in counts)
    assert sum(counts) == height * width
    flat = np.zeros(height * width, bool)
    at = 0
    for number, count in enumerate(int(c) for c in counts):
        flat[at : at + count] = number % 2
        at += count
    return flat.reshape(width, height).T


def _decompressed(text):
    counts, bits = [], []
    for code in text.encode("ascii"):
        assert 48 <= code < 112
        more, piece = divmod(code - 48, 32)
        bits.append(piece)
        if not more:
            value = sum(each << 5 * place for place, each in enumerate(bits))
            if bits[-1] >= 16:
                value -= 1 << 5 * len(bits)
            counts.append(value + (counts[-2] if len(counts) >= 3 else 0))
            bits = []
    assert not bits
    return counts
