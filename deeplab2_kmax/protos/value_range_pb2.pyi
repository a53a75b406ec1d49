from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor
RANGE_FIELD_NUMBER: _ClassVar[int]
range: _descriptor.FieldDescriptor

class ValueRange(_message.Message):
    __slots__ = ("minimum", "maximum", "above", "below", "besides", "unit")
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    ABOVE_FIELD_NUMBER: _ClassVar[int]
    BELOW_FIELD_NUMBER: _ClassVar[int]
    BESIDES_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    minimum: float
    maximum: float
    above: float
    below: float
    besides: float
    unit: str
    def __init__(self, minimum: _Optional[float] = ..., maximum: _Optional[float] = ..., above: _Optional[float] = ..., below: _Optional[float] = ..., besides: _Optional[float] = ..., unit: _Optional[str] = ...) -> None: ...
