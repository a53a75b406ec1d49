"""A conversion that ends early, in whatever way, is resumed from its finished shards, and never mixes sources."""

import functools
import io
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.command_exit import one_line_for_errors
from deeplab2_kmax.converters.coco import convert_coco
from deeplab2_kmax.converters.writing import sharded_output
from deeplab2_kmax.converters.writing.shard_writer import ShardTask, Stopped, begin_work, write_shard
from deeplab2_kmax.converters.writing.sharded_output import Origin, ShardedOutput, Split
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records import schema

REPOSITORY = pathlib.Path(__file__).parents[3]
SHAPES = load_dataset("shapes")


class Source:
    """Six files, two for each shard; the record of an item holds its file's text. `made` lists the items in order."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        for number in range(6):
            (folder / f"{number}.txt").write_text(f"text {number}")
        self.made = []

    def record(self, item):
        text = pathlib.Path(item).read_text()
        if text == "bad":
            raise DataError(f"{item}: bad")
        self.made.append(int(pathlib.Path(item).stem))
        return record_of(text)

    def convert(self, out, settings=None, items=None):
        """The bytes of the shards."""
        self.made = []
        items = items or [str(self.folder / f"{number}.txt") for number in range(6)]
        with ShardedOutput(str(out), num_shards=3, num_processes=1) as output:
            split = Split("train", items, self.record, source_files=lambda item: [item])
            paths = output.write([split], Origin("test", SHAPES, settings or {}, str(self.folder)))
        assert sorted(os.listdir(out)) == sorted(["manifest.json", *(os.path.basename(p) for p in paths)])
        return [pathlib.Path(path).read_bytes() for path in paths]


def record_of(text):
    png = io.BytesIO()
    Image.new("RGB", (4, 4)).save(png, format="png")
    return schema.encode_record(png.getvalue(), "png", text, np.zeros((4, 4), np.int32))


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path / "source")


@pytest.fixture
def stopped(source, tmp_path):
    """The output folder of a run that stopped at item 4, in the last shard, which has been mended since."""
    path = source.folder / "4.txt"
    path.write_text("bad")
    with pytest.raises(DataError, match="4.txt: bad"):
        source.convert(tmp_path / "out")
    assert source.made == [0, 1, 2, 3]
    path.write_text("text 4")
    assert os.listdir(tmp_path / "out") == [".unfinished"]
    return tmp_path / "out"


def test_finished_shards_are_not_written_again(source, stopped, tmp_path, capsys):
    shards = source.convert(stopped)
    assert source.made == [4, 5]
    assert "train: 6 images in 3 shards (2 from an interrupted run)" in capsys.readouterr().out
    manifest = (stopped / "manifest.json").read_text()
    assert shards == source.convert(tmp_path / "at once")
    assert manifest == (tmp_path / "at once" / "manifest.json").read_text()


def _touch(source, stopped):
    (source.folder / "2.txt").write_text("text two")
    return {}


def _older(source, stopped):
    os.utime(source.folder / "3.txt", (1, 1))
    return {}


def _cut(source, stopped):
    path = stopped / ".unfinished" / "train-00001-of-00003.tfrecord"
    path.write_bytes(path.read_bytes()[:-1])
    return {}


def _no_receipt(source, stopped):
    (stopped / ".unfinished" / "train-00001-of-00003.tfrecord.json").write_text("{")
    return {}


def _settings(source, stopped):
    return {"settings": {"treat_crowd_as_ignore": True}}


def _other_items(source, stopped):
    names = ["0", "1", "3", "2", "4", "5"]
    return {"items": [str(source.folder / f"{name}.txt") for name in names]}


CHANGES = {
    "content": (_touch, [2, 3, 4, 5]),
    "time": (_older, [2, 3, 4, 5]),
    "shard cut": (_cut, [2, 3, 4, 5]),
    "receipt cut": (_no_receipt, [2, 3, 4, 5]),
    "settings": (_settings, [0, 1, 2, 3, 4, 5]),
    "order": (_other_items, [3, 2, 4, 5]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_made_from_something_else_is_written_again(source, stopped, tmp_path, change):
    apply, expected = CHANGES[change]
    options = apply(source, stopped)
    shards = source.convert(stopped, **options)
    assert source.made == expected
    assert shards == source.convert(tmp_path / "at once", **options)


def test_an_end_while_shards_are_moved(source, tmp_path, monkeypatch):
    replace, moved = os.replace, []

    def fail_at_the_second(old, new):
        if str(new).endswith("train-00001-of-00003.tfrecord") and ".unfinished" not in str(new):
            raise OSError("pulled the plug")
        moved.append(new)
        replace(old, new)

    monkeypatch.setattr(sharded_output.os, "replace", fail_at_the_second)
    with pytest.raises(DataError, match="cannot move the shards to their places: pulled the plug"):
        source.convert(tmp_path / "out")
    assert str(tmp_path / "out" / "train-00000-of-00003.tfrecord") in moved
    monkeypatch.undo()
    shards = source.convert(tmp_path / "out")
    assert source.made == []
    assert shards == source.convert(tmp_path / "at once")


def test_what_a_killed_run_was_writing_is_cleared(source, tmp_path):
    part, of_another = ".manifest.json.0123456789abcdef0123456789abcdef.part", ".notes.part"
    (tmp_path / "out" / ".unfinished").mkdir(parents=True)
    for path in (part, of_another, f".unfinished/{part}", ".unfinished/train-00000-of-00003.tfrecord.old.part"):
        (tmp_path / "out" / path).write_text("half")
    with ShardedOutput(str(tmp_path / "out"), num_shards=3, num_processes=1) as output:
        items = [str(source.folder / f"{number}.txt") for number in range(6)]
        paths = output.write([Split("train", items, source.record)], Origin("test", SHAPES, {}))
    assert sorted(os.listdir(tmp_path / "out")) == sorted([of_another, "manifest.json", *map(os.path.basename, paths)])


def test_a_writer_that_is_told_to_stop_leaves_no_shard(source, tmp_path):
    class Told:
        def advance(self, records):
            self.told = True

        def should_stop(self):
            return hasattr(self, "told")

    items = [str(source.folder / f"{number}.txt") for number in range(2)]
    path = tmp_path / "out" / "train.tfrecord"
    task = ShardTask(str(path), str(path), items, source.record, lambda item: [item], "test", 256)
    begin_work(Told(), in_other_process=False)
    with pytest.raises(Stopped):
        write_shard(task)
    assert source.made == [0] and os.listdir(tmp_path / "out") == []


def test_two_at_once(source, tmp_path):
    refused = pytest.raises(DataError, match="another conversion is writing to .*out")
    with ShardedOutput(str(tmp_path / "out")), refused:
        source.convert(tmp_path / "out")


def test_a_mended_annotation_writes_its_shard_again(coco, tmp_path):
    segment = coco.json["train"][1]["segments_info"][1]
    segment["category_id"] = 12
    coco.save()
    with pytest.raises(DataError, match="b.png: segment 300"):
        convert_coco(str(coco.root), str(tmp_path / "out"), num_shards=2, num_processes=1)
    first = tmp_path / "out" / ".unfinished" / "train-00000-of-00002.tfrecord"
    written = first.stat().st_mtime_ns
    segment["category_id"] = 18
    coco.save()
    paths = convert_coco(str(coco.root), str(tmp_path / "out"), num_shards=2, num_processes=1)
    assert os.stat(paths[0]).st_mtime_ns == written
    at_once = convert_coco(str(coco.root), str(tmp_path / "at once"), num_shards=2, num_processes=1)
    assert [pathlib.Path(p).read_bytes() for p in paths] == [pathlib.Path(p).read_bytes() for p in at_once]


def killing_record(folder, item):
    """Makes a record; at the last item, for the first time, kills the parent, and then works on without end."""
    if item == 5 and not os.path.exists(os.path.join(folder, "worker")):
        pathlib.Path(folder, "worker").write_text(str(os.getpid()))
        while not os.path.exists(os.path.join(folder, "out", ".unfinished", "train-00000-of-00003.tfrecord.json")):
            time.sleep(0.05)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    return record_of(f"text {item}")


def convert_numbers(folder, num_processes):
    split = Split("train", range(6), functools.partial(killing_record, folder))
    with ShardedOutput(os.path.join(folder, "out"), 3, num_processes) as output:
        output.write([split], Origin("test", SHAPES, {}))


def test_kill_9_leaves_no_worker_and_keeps_finished_shards(tmp_path, capsys):
    script = tmp_path / "convert.py"
    script.write_text(pathlib.Path(__file__).read_text() + MAIN)
    command = [sys.executable, str(script), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    worker = int((tmp_path / "worker").read_text())
    deadline = time.monotonic() + 60
    while _is_alive(worker):
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.1)
    assert not list((tmp_path / "out").glob("*.tfrecord"))
    convert_numbers(str(tmp_path), num_processes=1)
    assert "from an interrupted run)" in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("*.tfrecord"))) == 3


def stopping_record(number, folder, item):
    """Makes a record; at the last item, after the first shard, sends all a signal and works on a little."""
    if item == 5:
        while not os.path.exists(os.path.join(folder, "out", ".unfinished", "train-00000-of-00003.tfrecord.json")):
            time.sleep(0.05)
        # Ctrl-C reaches all processes of a terminal, and some supervisors send SIGTERM to all, too.
        os.killpg(os.getpgrp(), number)
        time.sleep(0.5)
    return record_of(f"text {item}")


def stopped_conversion(number, num_processes, folder):
    with one_line_for_errors():
        split = Split("train", range(6), functools.partial(stopping_record, int(number), folder))
        with ShardedOutput(os.path.join(folder, "out"), 3, int(num_processes)) as output:
            output.write([split], Origin("test", SHAPES, {}))


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("number, name", [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")], ids=["int", "term"])
def test_a_signal_keeps_finished_shards_and_says_how_to_go_on(tmp_path, number, name, num_processes):
    script = tmp_path / "convert.py"
    call = "stopped_conversion(*sys.argv[1:])"
    script.write_text(pathlib.Path(__file__).read_text() + MAIN.replace(MAIN_CALL, call))
    command = [sys.executable, str(script), str(int(number)), str(num_processes), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, start_new_session=True)
    assert done.returncode == 128 + number, done.stderr
    assert os.listdir(tmp_path / "out") == [".unfinished"]
    left = os.listdir(tmp_path / "out" / ".unfinished")
    shards = [each for each in left if each.endswith(".tfrecord")]
    assert shards and not [each for each in left if each.endswith(".part")]
    assert done.stderr.splitlines()[-1].endswith("kept in " + str(tmp_path / "out" / ".unfinished") + GOES_ON)
    assert f"stopped by {name}: {len(shards)} finished shard" in done.stderr and "Traceback" not in done.stderr


GOES_ON = "; the same command goes on from there"
MAIN_CALL = "convert_numbers(sys.argv[1], num_processes=2)"
# Appended to a copy of this file, so that workers find `killing_record` in the main module.
MAIN = f"""

if __name__ == "__main__":
    {MAIN_CALL}
"""


def _is_alive(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody reaps has ended, too.
    status = pathlib.Path(f"/proc/{process_id}/status")
    return not (status.exists() and "zombie" in status.read_text())
