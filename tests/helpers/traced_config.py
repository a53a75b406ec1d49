"""A stand-in for a config message that notes which of its fields are read."""

from __future__ import annotations

from google.protobuf.message import Message


class Traced:
    """Passes everything on to a message, and adds the paths of the fields that are read to a set."""

    def __init__(self, message, reads, path=""):
        self._message, self._reads, self._path = message, reads, path

    def __getattr__(self, name):
        value = getattr(self._message, name)
        if name not in self._message.DESCRIPTOR.fields_by_name:
            return value
        path = f"{self._path}.{name}" if self._path else name
        if isinstance(value, Message):
            return Traced(value, self._reads, path)
        self._reads.add(path)
        if self._message.DESCRIPTOR.fields_by_name[name].message_type is not None:
            return [Traced(each, self._reads, path) for each in value]
        return value
