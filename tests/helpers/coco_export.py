"""Scenes of `shapes_truth` in COCO's JSON of instances, and their truth."""

import numpy as np
from pycocotools import mask as coco_mask

from helpers.shapes_truth import CLASSES, DIVISOR, STUFF, outlines

THINGS = [c for c in CLASSES.values() if c.is_thing]
# COCO's ids have gaps.
THING_IDS = {c.name: 10 + 3 * place for place, c in enumerate(THINGS)}
STUFF_IDS = {name: 92 + place for place, name in enumerate(STUFF)}


def runs(mask, compressed):
    """COCO's run lengths of a mask, as pycocotools writes them, or as a list."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    if compressed:
        return {"size": list(mask.shape), "counts": encoded["counts"].decode()}
    flat = mask.T.ravel().astype(np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
    return {"size": list(mask.shape), "counts": np.diff([0, *edges, flat.size]).tolist()}


def segmentation(segment, number):
    """Polygons, or run lengths where there are holes, for crowds, and for every third number."""
    outer, holes = outlines(segment.mask)
    if holes or segment.is_crowd or number % 3 == 0:
        return runs(segment.mask, compressed=bool(number % 2))
    return outer


def exported(truth, stuff=False):
    """The JSON of the things of scenes, or of their stuff."""
    ids = STUFF_IDS if stuff else THING_IDS
    annotations = []
    for image_id, scene in enumerate(truth, start=139):
        for segment in scene.segments:
            if segment.is_thing != stuff:
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": ids[segment.class_name],
                    "segmentation": segmentation(segment, len(annotations)),
                    "area": float(segment.mask.sum()),
                    "bbox": [0, 0, 1, 1],
                    "iscrowd": int(segment.is_crowd),
                }
                annotations.append(annotation)
    images = [
        {"id": i, "file_name": scene.name + ".png", "height": scene.label.shape[0], "width": scene.label.shape[1]}
        for i, scene in enumerate(truth, start=139)
    ]
    categories = [{"id": number, "name": name, "supercategory": "shape"} for name, number in ids.items()]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def truth_of(scene, crowd_is_void=False):
    """(class names, "" for void; instances) of a scene, to be compared with by `helpers.imported.difference`."""
    names = np.full(scene.label.shape, "", object)
    for class_id, each in CLASSES.items():
        names[scene.label // DIVISOR == class_id] = each.name
    instances = np.where(scene.label % DIVISOR > 0, scene.label, 0)
    if crowd_is_void:
        things = np.isin(names, [c.name for c in THINGS])
        names[things & (instances == 0)] = ""
    return names, instances
