"""Masks in PASCAL VOC's layout, by Pillow: palettes become their colors, and only greys are numbers."""

import pathlib

import numpy as np
from PIL import Image


def read_voc(folder, stuff_names):
    """See README; for exports with a labelmap.txt and one list for each split."""
    folder = pathlib.Path(folder)
    colors = label_map(folder / "labelmap.txt")
    found = {}
    for path in (folder / "ImageSets/Segmentation").iterdir():
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        assert len(set(names)) == len(names)
        for name in names:
            assert (folder / "JPEGImages" / f"{name}.jpg").exists()
            if (folder / "SegmentationClass" / f"{name}.png").exists():
                classes = named(folder / "SegmentationClass" / f"{name}.png", colors)
                found[name] = classes, things(folder / "SegmentationObject" / f"{name}.png", classes, stuff_names)
    return found


def label_map(path):
    """{(red, green, blue): name}"""
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    entries = [line.split(":") for line in lines if line and not line.startswith("#")]
    assert all(len(entry) == 4 for entry in entries)
    found = {tuple(int(part) for part in color.split(",")): name.strip() for name, color, _, _ in entries}
    assert len(found) == len(entries) == len(set(found.values())) and "" not in found.values()
    assert all(len(color) == 3 and min(color) >= 0 and max(color) <= 255 for color in found)
    return found


def named(path, colors):
    """The class names of a mask; background is void."""
    image = Image.open(path)
    meanings = {(224, 224, 192): "", **colors}
    if "background" not in colors.values():
        meanings[0, 0, 0] = ""
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()
    known = all(tuple(pixel) in meanings for pixel in pixels)
    numbers = np.asarray(image).astype(int)
    # A palette of greys that are not in the label map is none: the indices count.
    greys = image.mode == "P" and all(pixel == [n] * 3 for pixel, n in zip(pixels, numbers.ravel()))
    if image.mode in ("RGB", "RGBA") or (image.mode == "P" and (known or not greys)):
        names = [meanings[tuple(pixel)] for pixel in pixels]
    else:
        order = list(colors.values())
        assert "background" in order
        names = ["" if number == 255 else order[number] for number in numbers.ravel()]
    names = np.array(names, object).reshape(numbers.shape[:2])
    names[names == "background"] = ""
    return names


def things(path, classes, stuff_names):
    """The instances of a mask; pixels of things that have none become void in `classes`."""
    image = Image.open(path)
    if image.mode in ("RGB", "RGBA"):
        pixels = np.asarray(image.convert("RGB")).astype(np.int64) @ [65536, 256, 1]
        pixels[pixels == 224 * 65536 + 224 * 256 + 192] = 0
    else:
        pixels = np.asarray(image).astype(np.int64)
        pixels = np.where(pixels == 255, 0, pixels) if pixels.max() <= 255 else pixels
    assert pixels.shape == classes.shape
    is_thing = (classes != "") & ~np.isin(classes, list(stuff_names))
    classes[is_thing & (pixels == 0)] = ""
    kinds = {name: place for place, name in enumerate(sorted(set(classes.ravel())))}
    kind = np.vectorize(kinds.get)(classes)
    return np.where(is_thing & (pixels > 0), pixels * len(kinds) + kind, 0)
