"""The JSON file of COCO's panoptic format, read strictly, and once: its annotations and its categories.

Format: https://cocodataset.org/#format-data, "Panoptic Segmentation". The segments of an annotation are checked where
they are compared with its PNG (`reading.panoptic_png`), image by image and on all processes.
"""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from typing import Any, NamedTuple

from deeplab2_kmax.converters.importing.document import Entry, load_json_object, quoted
from deeplab2_kmax.errors import DataError

# {name of an image: (file name of its PNG, its `segments_info`)}.
Annotations = dict[str, tuple[str, list[Any]]]


class Category(NamedTuple):
    """An entry of `categories`.

    Attributes:
        id: its number in this file.
        name: of the class.
        is_thing: None where the file does not say.
        color: RGB, as the file has it; None where it has none.
        where: the words by which messages name the entry.
    """

    id: int
    name: str
    is_thing: bool | None
    color: Sequence[float] | None
    where: str


def read_annotations(json_path: str, image_is: str = "file_name") -> Annotations:
    """The annotations of a file, of which nothing else is needed; see `annotations_of`."""
    return annotations_of(load_json_object(json_path), image_is)


def annotations_of(content: Entry, image_is: str) -> Annotations:
    """The annotations of all images.

    Args:
        content: of the file.
        image_is: what names the image: "file_name", the name of the PNG, whose extension does not count; "image_id"; or
            "images", the file name in `images` of the entry with this `image_id`, without extension, which is how
            COCO's format joins them. A file without `images` is read as with "file_name".

    Raises:
        DataError: a field is missing or of another type, there are two annotations for one image, or one of an image
            that `images` does not list.
    """
    by_images = image_is == "images" and "images" in content
    names = _names_by_id(content.entries("images")) if by_images else {}
    by_name: Annotations = {}
    for annotation in content.entries("annotations"):
        png_name = _file_name(annotation)
        if by_images:
            image_id = _id(annotation, "image_id")
            if image_id not in names:
                raise DataError(
                    f"{annotation.place('image_id')}: expected the id of one of `images`, got {quoted(image_id)} for"
                    f" {png_name}"
                )
            name = names[image_id]
        else:
            name = str(_id(annotation, "image_id")) if image_is == "image_id" else os.path.splitext(png_name)[0]
        if name in by_name:
            raise DataError(f"{annotation.where}: expected one annotation an image, got a second one for {png_name}")
        by_name[name] = png_name, annotation.items("segments_info")
    return by_name


def categories_of(content: Entry) -> list[Category]:
    """The `categories` of a file, in its order; none where it has no such list.

    Raises:
        DataError: a field is missing or of another type, or two categories have one id or one name.
    """
    categories = []
    seen: set[tuple[str, Any]] = set()
    for entry in content.entries("categories", []):
        category = Category(
            id=entry.whole("id"),
            name=entry.name("name"),
            is_thing=entry.flag("isthing", None),
            color=entry.numbers("color", None),
            where=entry.where,
        )
        for field in ("id", "name"):
            value = field, getattr(category, field)
            if value in seen:
                raise DataError(
                    f"{entry.place(field)}: expected categories that differ, got a second one with {quoted(value[1])}"
                )
            seen.add(value)
        categories.append(category)
    return categories


def _names_by_id(images: Sequence[Entry]) -> dict[int | str, str]:
    """{image id: file name without extension} of the `images` of a file."""
    names: dict[int | str, str] = {}
    for image in images:
        image_id = _id(image, "id")
        if image_id in names:
            raise DataError(f"{image.place('id')}: expected ids that differ, got {quoted(image_id)} twice")
        # Tools on Windows part folders by backslashes.
        names[image_id] = os.path.splitext(_file_name(image).replace("\\", "/"))[0]
    return names


def _file_name(entry: Entry) -> str:
    name: str = entry.text("file_name")
    if not name.strip():
        raise DataError(f"{entry.place('file_name')}: expected the name of a file, got {quoted(name)}")
    return name


def _id(entry: Entry, field: str) -> int | str:
    """The id of an image: COCO has numbers, Cityscapes names."""
    value = entry.raw(field)
    return value if isinstance(value, str) else entry.whole(field)
