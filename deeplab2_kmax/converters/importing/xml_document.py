"""Annotation files in XML, read as strictly as `document` reads JSON: each attribute is of the type that is asked for.

Attributes are text. Python's own conversions would take "1_0" or "nan" for a number; here, a number is what XML
Schema calls one. Entities of a file's own and document type declarations are refused: no labelling tool writes them,
and they can make a small file take all memory.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import Any

from deeplab2_kmax.converters.importing.document import as_name, quoted, read_annotation_text
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.wording import did_you_mean

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")
_NEEDED = object()


class XmlEntry:
    """An element of an XML file, whose attributes are read by type.

    All methods raise DataError, with the place of the attribute, if it is missing or of another type. `default` is what
    an attribute that is missing means; without a default it has to be there.

    Args:
        element: the element.
        where: its place, which messages begin with, such as "annotations.xml: image 3 ('a.png'), polygon 2".
    """

    def __init__(self, element: ElementTree.Element, where: str) -> None:
        self._element = element
        self.where = where
        self.tag: str = element.tag

    def __contains__(self, attribute: str) -> bool:
        return attribute in self._element.attrib

    def place(self, attribute: str) -> str:
        """The words by which messages name an attribute."""
        return f"{self.where}: {attribute}"

    def text(self, attribute: str, default: Any = _NEEDED) -> Any:
        """An attribute as it is."""
        value = self._element.attrib.get(attribute)
        if value is not None:
            return value
        if default is _NEEDED:
            meant = did_you_mean(attribute, self._element.attrib)
            raise DataError(f"{self.where}: expected the attribute {attribute}, which is missing{meant}")
        return default

    def name(self, attribute: str, default: Any = _NEEDED) -> Any:
        """An attribute that holds a name, see `as_name`."""
        value = self.text(attribute, default)
        return value if value is default else as_name(value, self.place(attribute))

    def number(self, attribute: str, default: Any = _NEEDED) -> Any:
        """An attribute that holds a finite number."""
        value = self.text(attribute, default)
        return value if value is default else number_of_text(value, self.place(attribute))

    def whole(self, attribute: str, default: Any = _NEEDED) -> Any:
        """An attribute that holds a whole number."""
        value = self.text(attribute, default)
        return value if value is default else whole_of_text(value, self.place(attribute))

    def children(self, tag: str | None = None) -> Iterator[XmlEntry]:
        """The elements in this one, or those with a tag only; each knows its place among those of its tag."""
        seen: dict[str, int] = {}
        for child in self._element:
            place = seen[child.tag] = seen.get(child.tag, -1) + 1
            if tag in (None, child.tag):
                yield XmlEntry(child, f"{self.where}{', ' if ': ' in self.where else ': '}{child.tag} {place}")

    def below(self, tag: str) -> Iterator[XmlEntry]:
        """The elements with a tag, at any depth below this one."""
        for place, child in enumerate(self._element.iter(tag)):
            yield XmlEntry(child, f"{self.where}, {tag} {place}")

    def content(self) -> str:
        """The text between the tags of this element, without the spaces around it."""
        return (self._element.text or "").strip()

    def child_content(self, tag: str, default: Any = _NEEDED) -> Any:
        """The text of the only element with a tag in this one."""
        found = [child.content() for child in self.children(tag)]
        if not found and default is not _NEEDED:
            return default
        if len(found) != 1:
            raise DataError(f"{self.where}: expected one element <{tag}>, got {len(found) or 'none'}")
        return found[0]


def load_xml(path: str, root: str) -> XmlEntry:
    """Reads an XML file.

    Args:
        path: the file.
        root: the tag of its root element.

    Raises:
        DataError: the file cannot be read, is not XML in UTF-8, declares a document type or entities, or has another
            root element.
    """
    text = read_annotation_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(
            f"{path}: expected annotations without a document type (<!DOCTYPE) and entities of their own, got one;"
            " export the file again"
        )
    try:
        element = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise DataError(
            f"{path}: expected XML, but it is cut off or broken at line {line}, column {column + 1}"
        ) from error
    if element.tag != root:
        raise DataError(f"{path}: expected XML with the root <{root}>, got <{element.tag}>")
    return XmlEntry(element, path)


def number_of_text(text: str, where: str) -> float:
    """The finite number that a text holds; raises DataError for anything else."""
    # Beyond 2^63, nothing is a length, place or id in any format.
    value = float(text) if _NUMBER.fullmatch(text.strip()) else math.nan
    if not abs(value) < 2**63:
        raise DataError(f"{where}: expected a number, got {quoted(text)}")
    return value


def whole_of_text(text: str, where: str) -> int:
    """The whole number that a text holds; raises DataError for anything else."""
    if not _WHOLE.fullmatch(text.strip()):
        raise DataError(f"{where}: expected a whole number, got {quoted(text)}")
    return int(float(text)) if "." in text else int(text)
