"""Pictures and TFRecord files with bytes damaged."""

import io
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from fuzz.damage import byte_damage, damaged_bytes, fuzzed, slowly_fuzzed
from fuzz.watched import declared_pixels, own_folder, watched
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deeplab2_kmax.converters.shapes import convert_shapes
from deeplab2_kmax.dataset_check import Limits, check_records
from deeplab2_kmax.dataset_check.listing import report_lines
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.input_pipeline import build_dataset, data_errors
from deeplab2_kmax.pictures import decode_image
from deeplab2_kmax.pictures.label_pngs import decode_colors, decode_numbers
from deeplab2_kmax.protos import dataset_pb2


def _encoded(image_format, mode="RGB", **options):
    pixels = np.random.RandomState(0).randint(0, 256, (12, 16, 3), np.uint8)
    stream = io.BytesIO()
    if mode == "I;16":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(stream, image_format)
    else:
        Image.fromarray(pixels).convert(mode).save(stream, image_format, **options)
    return stream.getvalue()


_EXIF = Image.Exif()
_EXIF[0x0112] = 6
PICTURES = [
    _encoded("jpeg"),
    _encoded("jpeg", exif=_EXIF),
    _encoded("jpeg", "CMYK", progressive=True),
    _encoded("png"),
    _encoded("png", "P"),
    _encoded("png", "I;16"),
    _encoded("png", "RGBA", exif=_EXIF),
    _encoded("tiff"),
    _encoded("tiff", "L", compression="tiff_lzw"),
    _encoded("bmp", "P"),
    _encoded("gif", "P"),
    _encoded("webp", lossless=True),
]
READERS = [decode_image, decode_numbers, decode_colors]


@fuzzed
@given(content=st.sampled_from(PICTURES), edits=byte_damage, read=st.sampled_from(READERS))
def test_pictures(tmp_path_factory, content, edits, read):
    damaged = damaged_bytes(content, edits)
    with own_folder(tmp_path_factory.getbasetemp()) as folder:
        watched(lambda: read(damaged, "a.png"), folder, len(damaged), declared_pixels(damaged))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """(bytes of a shard, the payloads of its records)."""
    folder = tmp_path_factory.mktemp("records")
    (path,) = convert_shapes(str(folder), num_train=3, num_val=0, size=33, num_processes=1)
    return pathlib.Path(path).read_bytes(), [r.numpy() for r in tf.data.TFRecordDataset(path)]


def _write(folder, records, edits, in_payload):
    """The path of a shard, of which the file is damaged, or with good checksums the payload of a record."""
    content, payloads = records
    path = str(pathlib.Path(folder) / "train-0.tfrecord")
    if not in_payload:
        pathlib.Path(path).write_bytes(damaged_bytes(content, edits))
        return path
    with tf.io.TFRecordWriter(path) as writer:
        for payload in (damaged_bytes(payloads[0], edits), *payloads[1:]):
            writer.write(payload)
    return path


@fuzzed
@given(edits=byte_damage, in_payload=st.booleans())
def test_records_in_the_check(records, tmp_path_factory, edits, in_payload):
    with own_folder(tmp_path_factory.getbasetemp()) as folder:
        path = _write(folder, records, edits, in_payload)

        def check():
            list(report_lines(check_records("records", load_dataset("shapes"), [path], limits=Limits(128, 128))))

        watched(check, folder, len(records[0]))


@slowly_fuzzed
@given(edits=byte_damage, in_payload=st.booleans(), left_out=st.booleans())
def test_records_in_the_input_pipeline(records, tmp_path_factory, edits, in_payload, left_out):
    with own_folder(tmp_path_factory.getbasetemp()) as folder:
        path = _write(folder, records, edits, in_payload)
        options = dataset_pb2.DatasetOptions(
            dataset="shapes", file_pattern=[path], batch_size=1, crop_size=[33, 33], max_bad_records=3 * left_out
        )

        def read():
            with data_errors(options, is_training=False):
                for _ in build_dataset(options, is_training=False):
                    pass

        watched(read, folder, len(records[0]), several_lines=left_out)
