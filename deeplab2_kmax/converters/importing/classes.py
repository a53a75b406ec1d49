"""The classes of a tool's export: written to a descriptor, or found in one by their names."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from deeplab2_kmax.converters.importing.document import quoted
from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass, load_dataset, new_descriptor
from deeplab2_kmax.datasets.loader import descriptor_of_entries
from deeplab2_kmax.errors import ConfigError, DataError
from deeplab2_kmax.wording import did_you_mean, some_of

# Room for 999 instances of a class; 0 is void, and classes are numbered from 1.
_LABEL_DIVISOR = 1000
_IGNORE_LABEL = 0
_NAMED = 8
_HEX_COLOR = re.compile("#[0-9a-fA-F]{6}")


class NamedClass(NamedTuple):
    """A class as a tool's export describes it.

    Attributes:
        name: its name.
        is_thing: whether it is a thing; None if the export does not say.
        color: RGB, 0..255; None if the export has none.
        source_id: its number in the export; None if it has none.
    """

    name: str
    is_thing: bool | None = None
    color: tuple[int, int, int] | None = None
    source_id: int | None = None


def descriptor_for(
    dataset: str,
    found: Sequence[NamedClass],
    stuff_classes: Sequence[str],
    void_classes: Sequence[str],
    background_class: str | None,
    annotations: str,
) -> DatasetDescriptor:
    """The descriptor of `dataset`; if its file does not exist, one is made from the classes of the export.

    Args:
        dataset: the path of the descriptor file, or the name of a built-in data set.
        found: the classes of the export, in its order.
        stuff_classes: the names of those that are stuff, for exports that do not say. All others are things.
        void_classes: the names of those that mean void, and get no class.
        background_class: the name of a stuff class of the pixels without a region, which is added; None: they are void.
        annotations: the annotation file or folder, which messages begin with.

    Raises:
        ConfigError: the descriptor cannot be read, or contradicts itself.
        DataError: a name is no class of the export, an existing descriptor contradicts it, or two classes have one
            name.
    """
    _require_known("stuff_classes", stuff_classes, found, annotations)
    _require_known("void_classes", void_classes, found, annotations)
    kept = [each for each in found if each.name not in void_classes]
    if new_descriptor(dataset) is None:
        descriptor = load_dataset(dataset)
        _require_same_kinds(descriptor, dataset, kept, stuff_classes, annotations)
        return descriptor
    if background_class is not None and background_class not in [each.name for each in kept]:
        kept.append(NamedClass(background_class, is_thing=False))
    entries = [_entry(place, each, stuff_classes, background_class) for place, each in enumerate(kept, start=1)]
    name = os.path.splitext(os.path.basename(dataset))[0]
    try:
        descriptor = descriptor_of_entries(name, entries, ignore_label=_IGNORE_LABEL, label_divisor=_LABEL_DIVISOR)
    except ConfigError as error:
        raise DataError(f"{annotations}: cannot write {dataset} from its classes: {error}") from error
    _tell_things(dataset, descriptor, found, stuff_classes)
    return descriptor


def classes_by_name(
    dataset: str, descriptor: DatasetDescriptor, names: Iterable[str], void_classes: Sequence[str], annotations: str
) -> dict[str, SegmentClass | None]:
    """The class of each name in the annotations; None for those that mean void.

    Raises:
        DataError: a name is no class of the descriptor, and not one of `void_classes`.
    """
    by_name = {c.name: c for c in descriptor.classes}
    classes: dict[str, SegmentClass | None] = {}
    for name in names:
        if name not in void_classes and name not in by_name:
            raise DataError(
                f"{annotations}: the class {name!r} is not one of {dataset}, expected"
                f" {some_of(by_name, _NAMED)}{did_you_mean(name, by_name)}; rename it, add it there, or give"
                " --void_classes to label its regions as void"
            )
        classes[name] = None if name in void_classes else by_name[name]
    return classes


def color_of_hex(text: str | None, place: str) -> tuple[int, int, int] | None:
    """The color that a text such as "#ff0080" stands for; None for no text.

    Args:
        text: what the export gives.
        place: what the message of an error begins with.

    Raises:
        DataError: the text is no such color.
    """
    if not text:
        return None
    if not _HEX_COLOR.fullmatch(text):
        raise DataError(f"{place}: expected a color such as #ff0080, got {quoted(text)}")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _require_known(option: str, names: Sequence[str], found: Sequence[NamedClass], annotations: str) -> None:
    known = [each.name for each in found]
    for name in names:
        if name not in known:
            raise DataError(
                f"{option}: expected names of classes of {annotations} ({some_of(known, _NAMED)}), got {name!r}"
                f"{did_you_mean(name, known)}"
            )


def _require_same_kinds(
    descriptor: DatasetDescriptor,
    dataset: str,
    found: Sequence[NamedClass],
    stuff_classes: Sequence[str],
    annotations: str,
) -> None:
    """Refuses an export that calls something a thing which the descriptor calls stuff, or the other way round."""
    by_name: Mapping[str, SegmentClass] = {c.name: c for c in descriptor.classes}
    for each in found:
        is_thing = False if each.name in stuff_classes else each.is_thing
        known = by_name.get(each.name)
        if known is not None and is_thing is not None and is_thing != known.is_thing:
            kinds = {True: "a thing", False: "stuff"}
            raise DataError(
                f"{annotations}: {each.name!r} is {kinds[is_thing]} here, but {kinds[known.is_thing]} in {dataset};"
                " expected the same; change one of the two, or convert into a data set of its own"
            )


def _entry(place: int, each: NamedClass, stuff_classes: Sequence[str], background_class: str | None) -> dict:
    is_stuff = each.name in (*stuff_classes, background_class) or each.is_thing is False
    entry = {"id": place, "name": each.name, "is_thing": not is_stuff}
    if each.color is not None:
        entry["color"] = list(each.color)
    return {**entry, "source_id": place if each.source_id is None else each.source_id}


def _tell_things(
    dataset: str, descriptor: DatasetDescriptor, found: Sequence[NamedClass], stuff_classes: Sequence[str]
) -> None:
    """Prints which classes are taken for things although nobody says so."""
    names = {c.name for c in descriptor.classes}
    taken = [each.name for each in found if each.is_thing is None and each.name in names - set(stuff_classes)]
    if taken:
        print(
            f"taken for things, as the annotations do not say: {some_of(taken, _NAMED)}; --stuff_classes=NAME,NAME"
            f" names the stuff (once it is written, remove {dataset} first)"
        )
