"""The report of a checkpoint, from records to page."""

import re

import numpy as np
import pytest

from deeplab2_kmax.cli import main as command
from deeplab2_kmax.config import config_to_text
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.results import from_checkpoint
from helpers import pipeline_records


def test_the_slot_of_a_segment_is_the_one_that_is_strongest_at_most_of_its_pixels():
    panoptic = np.zeros((9, 9), int)
    panoptic[:, 5:] = 257
    panoptic[1, 1] = 513  # Between the pixels of the logits.
    logits = np.zeros((5, 5, 4))
    logits[:, :3, 2] = 1
    logits[:, 3:, 1] = 1
    logits[0, 3:, 3] = 5
    assert from_checkpoint._slot_by_segment(panoptic, logits) == {0: 2, 257: 1}


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        command.main(["report", *map(str, arguments)])
    return ended.value.code


def test_a_page_from_a_checkpoint(capsys, tmp_path, config, checkpoint):
    records = [pipeline_records.record(40 + n, 65, f"image {n}", seed=n) for n in range(3)]
    own = config_pb2.ExperimentOptions()
    own.CopyFrom(config)
    own.eval_dataset_options.file_pattern[:] = [pipeline_records.write(tmp_path / "val.tfrecord", records)]
    own.eval_dataset_options.batch_size = 2
    (tmp_path / "my.textproto").write_text(config_to_text(own))
    page = tmp_path / "pages" / "report.html"
    arguments = [f"--config_file={tmp_path / 'my.textproto'}", f"--checkpoint={checkpoint}", f"--output={page}"]
    assert run(*arguments, "--no-thresholds", "--pictures=1", f"--outputs={tmp_path / 'kept'}") == 0
    content = page.read_text()
    assert f"page: {page}" in capsys.readouterr().out
    # Those of the worst image; an untrained network finds nothing, so none is the best.
    assert len(re.findall("<img ", content)) == 4 and "3 images" in content
    assert "Mask slots" in content and "Calibration" in content and ">Thresholds<" not in content
    assert (tmp_path / "kept" / "000002.npz").exists()


@pytest.mark.parametrize("flag", ["--images=0", "--pictures=-1"])
def test_mistakes_end_in_one_line(flag):
    message = run("--config_file=shapes/kmax_tiny", "--checkpoint=nowhere", "--output=page.html", flag)
    assert "expected a number from 1, got" in message
