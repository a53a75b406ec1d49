"""Apache Beam writes the same shards; skipped without the extra `beam`, but for the message that it is missing."""

import contextlib
import os
import subprocess
import sys

import pytest

from deeplab2_kmax.converters.coco import convert_coco
from deeplab2_kmax.converters.shapes import convert_shapes
from deeplab2_kmax.converters.writing import beam_shards
from deeplab2_kmax.errors import DataError, UserError

DIRECT = "--runner=DirectRunner --direct_num_workers=1"


@pytest.fixture
def beam():
    return pytest.importorskip("apache_beam", reason="needs the extra: pip install 'deeplab2_kmax[beam]'")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_coco_equals_the_usual_writers_files(beam, coco, tmp_path):
    coco.add_image("test", "t")
    usual = convert_coco(str(coco.root), str(tmp_path / "usual"), num_shards=2, num_processes=1)
    paths = convert_coco(str(coco.root), str(tmp_path / "beam"), num_shards=2, beam=DIRECT)
    assert [os.path.basename(path) for path in paths] == [os.path.basename(path) for path in usual]
    assert len(paths) == 4
    # The manifest, with counts and checksums, is among the files.
    assert contents(tmp_path / "beam") == contents(tmp_path / "usual")


def test_a_converter_run_as_a_command_on_worker_processes(beam, tmp_path):
    convert_shapes(str(tmp_path / "usual"), num_train=5, num_val=2, size=33, num_shards=2, num_processes=1)
    flags = ["--num_train=5", "--num_val=2", "--size=33", "--num_shards=2", "--output_dir=beam"]
    workers = "--beam=--runner=DirectRunner --direct_num_workers=2 --direct_running_mode=multi_processing"
    command = [sys.executable, "-m", "deeplab2_kmax.converters.shapes", *flags, workers]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    (tmp_path / "beam" / "example.png").unlink()
    assert contents(tmp_path / "beam") == contents(tmp_path / "usual")


def test_a_broken_file_is_named_and_finished_shards_are_kept(beam, coco, tmp_path, capsys):
    whole = coco.png_path("train", "b").read_bytes()
    coco.png_path("train", "b").write_bytes(whole[:60])
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"b\.png"):
        convert_coco(str(coco.root), str(out), num_shards=2, beam=DIRECT)
    assert not list(out.glob("*.tfrecord"))
    coco.png_path("train", "b").write_bytes(whole)
    capsys.readouterr()
    convert_coco(str(coco.root), str(out), num_shards=2, beam=DIRECT)
    assert "train: 2 images in 2 shards (1 from an interrupted run)" in capsys.readouterr().out
    convert_coco(str(coco.root), str(tmp_path / "at once"), num_shards=2, num_processes=1)
    assert contents(out) == contents(tmp_path / "at once")


def test_options_that_make_no_pipeline(beam, coco, tmp_path):
    with pytest.raises(UserError, match="beam: expected options of a Beam pipeline, got '--runner=Nobody'"):
        convert_coco(str(coco.root), str(tmp_path / "out"), beam="--runner=Nobody")
    with pytest.raises(UserError, match="num_processes: expected none with beam"):
        convert_coco(str(coco.root), str(tmp_path / "out"), num_processes=2, beam=DIRECT)
    assert not (tmp_path / "out").exists()


def test_a_worker_that_does_not_see_the_folder(beam, coco, tmp_path, monkeypatch):
    monkeypatch.setattr(beam_shards, "_task_files", lambda tasks: contextlib.nullcontext())
    with pytest.raises(DataError, match="the pipeline failed: (.|\\n)*has to be mounted on all workers"):
        convert_coco(str(coco.root), str(tmp_path / "out"), beam=DIRECT)
    assert not (tmp_path / "out").exists()


def test_a_pipeline_that_wrote_nothing(beam, coco, tmp_path, monkeypatch):
    monkeypatch.setattr(beam_shards, "_run", lambda shards, options: None)
    with pytest.raises(DataError, match="expected a shard from a Beam worker, got none"):
        convert_coco(str(coco.root), str(tmp_path / "out"), beam=DIRECT)


def test_without_apache_beam_the_message_names_the_extra(coco, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"pip install 'deeplab2_kmax\[beam\]'"):
        convert_coco(str(coco.root), str(tmp_path / "out"), beam=DIRECT)
    assert not (tmp_path / "out").exists()
