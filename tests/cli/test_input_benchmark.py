"""The benchmark of the training input on a few records."""

import re

from deeplab2_kmax.cli.input_benchmark import input_report
from deeplab2_kmax.converters.shapes import convert_shapes
from deeplab2_kmax.protos import dataset_pb2


def test_table_and_sentence(tmp_path):
    convert_shapes(str(tmp_path), num_train=4, num_val=1, size=33, num_processes=1)
    pattern = str(tmp_path / "train-*")
    options = dataset_pb2.DatasetOptions(dataset="shapes", file_pattern=[pattern], batch_size=2, crop_size=[33, 33])
    report = input_report(options, images=4)
    for stage in ("read", "decode", "augment", "targets", "batch"):
        assert re.search(rf"^{stage} +\d+\.\d +\d+%$", report, flags=re.MULTILINE)
    assert re.search(r"whole pipeline: \d+\.\d images/s", report) and "Most time goes to the stage '" in report
