"""The labels of records as a truth, read without TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import posixpath
from collections.abc import Iterator, Mapping

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.panoptic_quality import Segments
from deeplab2_kmax.evaluation.scoring.label_maps import DIVISOR, Classes
from deeplab2_kmax.names import result_name
from deeplab2_kmax.records import example, schema, tfrecord
from deeplab2_kmax.records.manifest import MANIFEST, written_datasets
from deeplab2_kmax.records.shards import find_shards
from deeplab2_kmax.wording import counted


@dataclasses.dataclass(frozen=True)
class RecordLabel:
    """The panoptic label of a record; see `TrueImage`.

    Attributes:
        name: of the image.
        path: of the shard, with the number of the record.
        shard: the path of the shard.
        region: where the record is in it.
        divisor: the label divisor of the data set.
        classes: what class ids mean in records.
    """

    name: str
    path: str
    shard: str
    region: tfrecord.Region
    divisor: int
    classes: Classes

    def read(self) -> np.ndarray:
        label = panoptic_label(_features(self.shard, self.region, self.path), self.path).astype(np.int64)
        classes, instances = np.divmod(label, self.divisor)
        return classes * DIVISOR + instances

    def segments(self, ids: np.ndarray, overlaps: np.ndarray) -> tuple[Segments, np.ndarray]:
        return self.classes.segments(ids, overlaps.sum(1), self.path), overlaps


def record_labels(patterns: list[str], descriptor: DatasetDescriptor, classes: Classes) -> Iterator[RecordLabel]:
    """The labels of all records that match glob patterns, in the order of their files.

    Raises:
        DataError: there are none, a record is damaged, or they are of another data set.
    """
    shards = find_shards(patterns, descriptor.name)
    written = {folder: written_datasets(folder) for folder in {files.parent(shard) for shard in shards}}
    for shard in shards:
        dataset = written[files.parent(shard)].get(posixpath.basename(shard))
        if dataset not in (None, descriptor.name):
            raise DataError(
                f"{shard}: expected records of {descriptor.name}, got those of {dataset}, as the {MANIFEST} beside them"
                " says; name their data set by --dataset, or its descriptor file"
            )
    for shard in shards:
        with _content(shard) as content:
            for number, region in enumerate(tfrecord.regions(shard)):
                where = f"{shard}, record {number}"
                if not region.is_record:
                    raise DataError(
                        f"{where}: expected a record, got {counted(region.size, 'damaged byte')};"
                        " check-dataset says what can be mended, or convert the data set again"
                    )
                with content[region.offset : region.offset + region.size] as frame:
                    name = _parsed(tfrecord.data_of(frame), (schema.IMAGE_FILENAME,), where).get(schema.IMAGE_FILENAME)
                if not isinstance(name, bytes):
                    raise DataError(f"{where}: expected a name as {schema.IMAGE_FILENAME}, got none; convert it again")
                name_in_files = result_name(name.decode(errors="backslashreplace"))
                yield RecordLabel(name_in_files, where, shard, region, descriptor.label_divisor, classes)


def panoptic_label(features: Mapping[str, example.Value], where: str) -> np.ndarray:
    """The panoptic label of a record, int32 [height, width].

    Raises:
        DataError: the record has none, or one that does not fit the image's size.
    """
    encoded, kind = features.get(schema.LABEL_ENCODED), features.get(schema.LABEL_FORMAT, schema.RAW_LABEL.encode())
    height, width = features.get(schema.IMAGE_HEIGHT), features.get(schema.IMAGE_WIDTH)
    if not isinstance(encoded, bytes) or kind != schema.RAW_LABEL.encode():
        raise DataError(
            f"{where}: expected a panoptic label ({schema.LABEL_FORMAT} {schema.RAW_LABEL!r}), got"
            f" {'none' if encoded is None else repr(kind)}; convert the data set with panoptic labels"
        )
    if not (isinstance(height, int) and isinstance(width, int)) or len(encoded) != 4 * height * width:
        raise DataError(
            f"{where}: expected a label of the image's size, {height!r} x {width!r} int32, got"
            f" {counted(len(encoded), 'byte')}; convert the data set again"
        )
    return np.frombuffer(encoded, schema.LABEL_DTYPE).reshape(height, width)


@contextlib.contextmanager
def _content(path: str) -> Iterator[memoryview]:
    """The bytes of a shard; of a local one, only those are read that are looked at."""
    if files.is_remote(path):
        yield memoryview(files.read_bytes(path))
        return
    with files.open_to_read(path) as file:
        if not files.size(path):
            yield memoryview(b"")
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
            yield view


def _features(shard: str, region: tfrecord.Region, where: str) -> dict[str, example.Value]:
    """What is needed of a record to score its label."""
    data = tfrecord.read_record(shard, region)
    if data is None:
        raise DataError(f"{where}: expected whole data, but its checksum is wrong; convert the data set again")
    return _parsed(data, (schema.IMAGE_HEIGHT, schema.IMAGE_WIDTH, schema.LABEL_ENCODED, schema.LABEL_FORMAT), where)


def _parsed(data: bytes | memoryview, keys: tuple[str, ...], where: str) -> dict[str, example.Value]:
    try:
        return example.parse_example(data, keys)
    except ValueError as error:
        raise DataError(f"{where}: expected a tf.train.Example, but {error}; convert the data set again") from error
