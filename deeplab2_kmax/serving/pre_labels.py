"""Predictions as labels to start from: files that CVAT, Label Studio and tools that read COCO import.

Annotators then correct a model's segments instead of drawing all of them. Each class here gathers the predictions of
many pictures into one file. The importers in `deeplab2_kmax.converters` (`cvat`, `label_studio`, `coco_instances`) read
what the tools export once it has been corrected.

Pictures are named by their file names without folders, by which all of these tools find them.
"""

from __future__ import annotations

import json
import os.path
import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from pycocotools import mask as coco_mask

from deeplab2_kmax.converters.importing.brush_runs import encoded_brush
from deeplab2_kmax.converters.importing.regions import counts_of_mask
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.serving.predictor import Prediction, Segment
from deeplab2_kmax.wording import did_you_mean, printable

TOOLS = ("cvat", "label_studio", "coco")
# Under this address, Label Studio serves files of its own machine (its "local storage").
LOCAL_FILES = "/data/local-files/?d="
# The names that Label Studio's template "Semantic Segmentation with Masks" gives its list of labels and its picture.
_LABELS, _IMAGE = "tag", "image"


class PreLabels(Protocol):
    """The labels of some pictures for one tool.

    Attributes:
        file_name: how the file is usually called.
    """

    file_name: str

    def add(self, image: str, prediction: Prediction) -> None:
        """Adds the segments of a picture; `image` is its path or name."""

    def content(self) -> bytes:
        """The file with all pictures that were added."""


def pre_labels(
    tools: Sequence[str], dataset: DatasetDescriptor, model: str, image_url: str = LOCAL_FILES
) -> list[PreLabels]:
    """Makes an empty file for each tool.

    Args:
        tools: names, of `TOOLS`.
        dataset: the classes that the model knows.
        model: what the predictions are told apart by, where a tool shows those of several models.
        image_url: what Label Studio finds pictures by, with their file names behind it.

    Raises:
        UserError: a tool is none of `TOOLS`, or named twice.
    """
    made: dict[str, PreLabels] = {}
    for tool in tools:
        if tool not in TOOLS or tool in made:
            got = f"{tool!r} twice" if tool in made else f"{tool!r}{did_you_mean(tool, TOOLS)}"
            raise UserError(f"labels_for: expected names of tools ({', '.join(TOOLS)}), each once, got {got}")
        if tool == "cvat":
            made[tool] = CvatLabels(dataset)
        elif tool == "coco":
            made[tool] = CocoLabels(dataset)
        else:
            made[tool] = LabelStudioLabels(model, image_url)
    return list(made.values())


class CocoLabels:
    """COCO's instances JSON: a compressed run-length mask with category and score for each segment, stuff as well.

    Categories have the data set's own ids (`source_id`), and `isthing` as in COCO's panoptic format.
    """

    file_name = "coco_instances.json"

    def __init__(self, dataset: DatasetDescriptor) -> None:
        self._categories = [
            {"id": c.source_id, "name": c.name, "supercategory": "", "isthing": int(c.is_thing)}
            for c in dataset.classes
        ]
        self._category_ids = {c.id: c.source_id for c in dataset.classes}
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, image: str, prediction: Prediction) -> None:
        """See `PreLabels`."""
        height, width = prediction.panoptic_map.shape
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": _name(image), "height": height, "width": width})
        for segment, mask in _masks(prediction):
            runs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": number,
                    "category_id": self._category_ids[segment.class_id],
                    "segmentation": {"size": [height, width], "counts": runs["counts"].decode("ascii")},
                    "area": segment.area,
                    "bbox": coco_mask.toBbox(runs).tolist(),
                    "iscrowd": 0,
                    "score": segment.score,
                }
            )

    def content(self) -> bytes:
        """See `PreLabels`."""
        tables = {"images": self._images, "categories": self._categories, "annotations": self._annotations}
        return json.dumps(tables).encode()


class CvatLabels:
    """CVAT for images 1.1: an automatic mask for each segment. CVAT's format has no place for scores."""

    file_name = "cvat.xml"

    def __init__(self, dataset: DatasetDescriptor) -> None:
        self._root = ElementTree.Element("annotations")
        _add_text(self._root, "version", "1.1")
        self._task = ElementTree.SubElement(ElementTree.SubElement(self._root, "meta"), "task")
        _add_text(self._task, "name", "predictions")
        _add_text(self._task, "mode", "annotation")
        labels = ElementTree.SubElement(self._task, "labels")
        for each in dataset.classes:
            label = ElementTree.SubElement(labels, "label")
            _add_text(label, "name", each.name)
            _add_text(label, "color", f"#{bytes(each.color).hex()}")
            _add_text(label, "type", "any")
        self._count = 0

    def add(self, image: str, prediction: Prediction) -> None:
        """See `PreLabels`."""
        height, width = prediction.panoptic_map.shape
        size = {"width": str(width), "height": str(height)}
        element = ElementTree.SubElement(self._root, "image", {"id": str(self._count), "name": _name(image), **size})
        self._count += 1
        for segment, mask in _masks(prediction):
            rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
            box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            attributes = {
                "label": segment.class_name,
                "source": "auto",
                "occluded": "0",
                "rle": ", ".join(map(str, counts_of_mask(box))),
                "left": str(columns[0]),
                "top": str(rows[0]),
                "width": str(box.shape[1]),
                "height": str(box.shape[0]),
                "z_order": "0",
            }
            ElementTree.SubElement(element, "mask", attributes)

    def content(self) -> bytes:
        """See `PreLabels`."""
        ElementTree.indent(self._root)
        content: bytes = ElementTree.tostring(self._root, "utf-8", xml_declaration=True)
        return content


class LabelStudioLabels:
    """Label Studio's tasks with predictions: a brush mask for each segment, with its score.

    The labelling interface has to hold the classes in <BrushLabels name="tag" toName="image"> and the picture in <Image
    name="image" value="$image"/>, as in the template "Semantic Segmentation with Masks". A prediction's score, by which
    tasks can be sorted, is the mean of those of its segments.

    Args:
        model: see `pre_labels`.
        image_url: see `pre_labels`.
    """

    file_name = "label_studio.json"

    def __init__(self, model: str, image_url: str = LOCAL_FILES) -> None:
        self._model = model
        self._image_url = image_url
        # As text, which takes an eighth of the memory of run lengths as numbers.
        self._tasks: list[str] = []

    def add(self, image: str, prediction: Prediction) -> None:
        """See `PreLabels`."""
        height, width = prediction.panoptic_map.shape
        results = [
            {
                "id": f"segment_{segment.id}",
                "type": "brushlabels",
                "from_name": _LABELS,
                "to_name": _IMAGE,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": encoded_brush(mask), "brushlabels": [segment.class_name]},
                "score": segment.score,
            }
            for segment, mask in _masks(prediction)
        ]
        scores = [segment.score for segment in prediction.segments]
        predicted = {"model_version": self._model, "score": float(np.mean(scores or [0.0])), "result": results}
        url = self._image_url + urllib.parse.quote(_name(image))
        self._tasks.append(json.dumps({"data": {_IMAGE: url}, "predictions": [predicted]}))

    def content(self) -> bytes:
        """See `PreLabels`."""
        return f"[{', '.join(self._tasks)}]".encode()


def _name(image: str) -> str:
    return printable(os.path.basename(image))


def _masks(prediction: Prediction) -> Iterator[tuple[Segment, np.ndarray]]:
    """Each segment and its pixels, one after the other, as the masks of all would take much memory."""
    for segment in prediction.segments:
        yield segment, prediction.panoptic_map == segment.id


def _add_text(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text
