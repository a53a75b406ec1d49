"""Each stage of the training input is timed, with one record a sample and with two."""

import pytest

from deeplab2_kmax.input_pipeline.stage_times import stage_times
from helpers.pipeline_records import options, record, write


@pytest.mark.parametrize("paste_scale", [0.0, 0.5])
def test_every_stage_takes_time(tmp_path, paste_scale):
    path = write(tmp_path / "train.tfrecord", [record(name=str(i), seed=i) for i in range(3)])
    pasting = {"panoptic_copy_paste": {"panoptic_copy_paste_scale": paste_scale}}
    times = stage_times(options(path, batch_size=2, augmentations=pasting), images=20)
    assert list(times) == ["read", "decode", "augment", "targets", "batch"]
    assert times["read"] > 0 and sum(times.values()) > times["read"]
    assert all(seconds >= 0 for seconds in times.values())
