"""`benchmark inference`: the form of its tables, CSV and plot, what random weights find, and errors in one line."""

import csv
import io
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax.cli import main as command
from deeplab2_kmax.cli.inference_benchmark import report
from deeplab2_kmax.cli.inference_benchmark.cold_start import ColdStart, cold_start
from deeplab2_kmax.cli.inference_benchmark.machine import processor
from deeplab2_kmax.cli.inference_benchmark.measuring import Row, measure, with_common_limits
from deeplab2_kmax.cli.inference_benchmark.models import BenchmarkedModel, Source
from deeplab2_kmax.cli.inference_benchmark.run import Sweep, benchmark
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.model.multiply_adds import count_multiply_adds
from helpers.exported_model import CONFIG, OVERRIDES

# The thresholds stay those of the shipped config.
NARROW = tuple(override for override in OVERRIDES if not override.startswith("evaluator_options"))
TIME = r"\d+(\.\d+)? ±\d+%"


@pytest.fixture(scope="module")
def results(exported, picture, tmp_path_factory):
    """Two models at two batches: (rows, text, CSV file, plot)."""
    folder = tmp_path_factory.mktemp("results")
    Image.fromarray(picture).save(folder / "scene.png")
    sweep = Sweep(
        [Source(model=exported), Source(model=exported)],
        image=str(folder / "scene.png"),
        batches=(1, 2),
        rounds=2,
        cold_starts=0,
        csv=str(folder / "new" / "figures.csv"),
        plot=str(folder / "bars.png"),
        matrix_size=32,
    )
    lines = []
    rows = benchmark(sweep, lines.append)
    return rows, "\n".join(lines), folder / "new" / "figures.csv", folder / "bars.png"


def test_the_tables(results, exported):
    _, text, _, _ = results
    assert re.search(r"^processor   \S.*, \d+ cores?$", text, re.MULTILINE)
    assert re.search(r"^bfloat16    \S", text, re.MULTILINE)
    assert re.search(r"^threads     \d+$", text, re.MULTILINE)
    assert f"\ntensorflow  {tf.__version__}, Python 3." in text
    # Long paths push what follows to the next line.
    assert f" picture {results[3].parent / 'scene.png'}, 83 x 52 pixels " in " ".join(text.split())
    for label in "AB":
        assert re.search(rf"^model {label}     {re.escape(exported)}\s+\(float32\)$", text, re.MULTILINE)
    # The titles of both tables stand apart from the sentences above them.
    assert len(re.findall(r"\.\n\n +size batch model ", text)) == 2
    for batch in (1, 2):
        for label in "AB":
            pattern = rf"^ +65 +{batch} +{label}( +{TIME}){{4}} +\d+(\.\d+)?$"
            assert len(re.findall(pattern, text, re.MULTILINE)) == 1, text
            # Without cold starts, their columns are empty.
            pattern = rf"^ +65 +{batch} +{label}( +-){{3}} +0\.\d\d +\d+% +\d+\.\d\dx$"
            assert len(re.findall(pattern, text, re.MULTILINE)) == 1, text
    assert max(len(line) for line in text.splitlines() if "/" not in line or "images/s" in line) <= 80


def test_the_csv_file(results, exported, config):
    rows, _, path, _ = results
    lines = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [(line["model"], line["batch"]) for line in lines] == [(exported, batch) for batch in "1122"]
    for row, line in zip(rows, lines):
        assert (line["height"], line["width"], line["precision"], line["turns"]) == ("65", "65", "float32", "2")
        for stage in ("decode", "network", "post_processing", "whole"):
            assert float(line[f"{stage}_s"]) > 0 and float(line[f"{stage}_spread_s"]) >= 0
        assert float(line["images_per_s"]) == pytest.approx(row.batch / float(line["whole_s"]))
        assert int(line["multiply_adds"]) == count_multiply_adds(config)
        operations = 2 * int(line["multiply_adds"]) * row.batch / float(line["network_s"])
        assert float(line["share_of_limit"]) == pytest.approx(operations / float(line["limit_flop_per_s"]))
        assert line["first_call_s"] == line["cold_start_s"] == line["peak_memory_bytes"] == ""
        assert line["tensorflow"].startswith(tf.__version__) and line["processor"] and line["threads"]
    assert len({line["limit_flop_per_s"] for line in lines}) == 1


def test_the_plot(results):
    drawing = Image.open(results[3])
    assert drawing.format == "PNG" and drawing.width == 1080
    colors = {color for _, color in drawing.convert("RGB").getcolors(1 << 20)}
    for stage in ("decode", "network", "post-processing"):
        assert tuple(bytes.fromhex(report._COLORS[stage][1:])) in colors


def test_a_process_of_its_own(exported, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "scene.png")
    start = cold_start(Source(model=exported), str(tmp_path / "scene.png"), batch=1)
    assert start.total > start.first_call > 0
    # TensorFlow alone takes more than this.
    assert 1e8 < start.memory < 1e10
    with pytest.raises(UserError, match=f"^{tmp_path}: expected a map from a process of its own, got: .*CheckpointErr"):
        cold_start(Source(model=str(tmp_path)), str(tmp_path / "scene.png"), batch=1)


@pytest.fixture(scope="module")
def untrained() -> BenchmarkedModel:
    return Source(config_file=str(CONFIG), overrides=NARROW).open()


def test_random_weights_find_segments(untrained, picture):
    pictures = np.stack([picture, picture])
    maps = untrained.segment(pictures)
    assert maps.shape == (2, *picture.shape[:2])
    # 3 x 4 squares of the board lie in the picture, and those of the same stuff are one segment; 0 is void.
    assert len(set(np.unique(maps)) - {0}) >= 8 and np.mean(maps == 0) < 0.1
    in_parts = untrained.postprocess(untrained.network(pictures), picture.shape[:2])
    assert np.mean(in_parts != maps) < 2e-3


def test_random_weights_are_computed_in_full(untrained, picture):
    """The segments are made up, but the network's own logits are in the result, too."""
    one, other = (untrained.network(each[None]) for each in (picture, 255 - picture))
    for name in ("pixel_space_mask_logits", "transformer_class_logits"):
        assert np.all(np.isfinite(one[name].numpy()))
        assert np.mean(one[name].numpy() != other[name].numpy()) > 0.5


def test_whatever_takes_a_picture_can_be_measured(picture, tmp_path):
    path = str(tmp_path / "scene.png")
    Image.fromarray(picture).save(path)
    seen = []
    model = BenchmarkedModel.of_predictor("mine", lambda image: seen.append(image.shape))
    (times,), limits = measure([model], path, batch=3, rounds=2, matrix_size=32)
    assert {stage: len(seconds) for stage, seconds in times.items()} == {"decode": 2, "whole": 2}
    assert set(seen) == {picture.shape} and len(seen) == 3 * 3  # Once to warm up.
    assert set(limits) == {"float32"}
    row = Row("A", "mine", (641, 1281), 3, "float32", times, limits["float32"], times)
    assert re.fullmatch(rf" 641x1281 +3 +A +{TIME} +- +- +{TIME} +\S+", report.speed_line(row))
    assert re.search(r"^ 641x1281 +3 +A( +-){5}$", report.start_table([row]), re.MULTILINE)
    assert Image.open(io.BytesIO(report.as_plot([row], {"processor": "p", "tensorflow": "t"}))).format == "PNG"


def test_the_figures_of_a_row():
    times = {"network": [1.0, 2.0, 3.0, 4.0, 10.0], "whole": [4.0, 6.0, 8.0, 8.0, 20.0]}
    first = {"whole": [8.0, 6.0, 24.0, 16.0, 40.0]}
    starts = tuple(ColdStart(total, total / 2, 7) for total in (1.0, 9.0, 2.0))
    row = Row("B", "b", (65, 65), 4, "float32", times, 600.0, first, 90, starts)
    assert (row.median("network"), row.spread("network"), row.median("decode")) == (3.0, 1.0, None)
    assert row.images_per_second == 0.5
    assert row.speedup == 2.0
    assert row.share_of_limit == 2 * 90 * 4 / 3.0 / 600
    assert (row.cold("total"), row.cold("first_call"), row.cold("memory")) == (2.0, 1.0, 7)
    faster = Row("A", "a", (65, 65), 4, "float32", times, 900.0, first)
    other = Row("C", "c", (65, 65), 4, "mixed_bfloat16", times, 2000.0, first)
    assert [each.limit for each in with_common_limits([row, faster, other])] == [900.0, 900.0, 2000.0]


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("model name\t: Fast 9\nflags\t\t: fpu avx512_bf16 amx_bf16 avx2\n", ("Fast 9", ["amx_bf16", "avx512_bf16"])),
        ("model name\t: Old 1\nflags\t\t: fpu avx2\n", ("Old 1", [])),
    ],
)
def test_the_processor(tmp_path, cpuinfo, expected):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert processor(str(tmp_path / "cpuinfo")) == expected


def test_a_processor_that_nothing_is_known_of(tmp_path):
    name, flags = processor(str(tmp_path / "missing"))
    assert name and flags == []


def _error(capsys, *words) -> str:
    with pytest.raises(SystemExit) as ended:
        command.main(["benchmark", "inference", *map(str, words)])
    assert capsys.readouterr().out == ""
    message = str(ended.value.code)
    assert message.startswith("error: ") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which model? expected either --model DIR, or --config_file FILE"),
        (["--model=m", "--config_file=coco/kmax_r50"], "which model?"),
        (["--model=m", "--checkpoint=c"], "which model?"),
        (["--model=m", "--override=a=1"], "which model?"),
        (["--config_file=coco/kmax_r50", "--precision=bfloat16"], "--precision: expected --model DIR beside it"),
        (["--model=nowhere"], "nowhere: expected the folder of a SavedModel (saved_model.pb), found none"),
        (["--config_file=nowhere"], "nowhere"),
        (["--model=m", "--rounds=0"], "--rounds: expected a number from 1, got 0"),
        (["--model=m", "--cold_starts=-1"], "--cold_starts: expected a number from 0, got -1"),
        (["--model=m", "--batches=1,0"], "--batches: expected numbers of pictures such as 1,4, got '1,0'"),
        (["--model=m", "--sizes=641,big"], "--sizes: expected sizes in pixels such as 641,1281 or 1025x2049, got"),
        (["--model=m"] * 27, "expected at most 26 models, got 27"),
    ],
)
def test_mistakes_end_in_one_line(capsys, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in _error(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_wrong_files_end_in_one_line(capsys, exported, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "saved_model.pb").touch()
    assert "expected an export of `deeplab2-kmax export`, got a SavedModel that" in _error(capsys, f"--model={foreign}")
    message = _error(capsys, f"--model={exported}", "--sizes=129")
    assert "expected one of --sizes=129 to be the size that this export is made for, 65" in message
    message = _error(capsys, f"--model={exported}", "--sizes=65,129")
    assert "--sizes: expected sizes that exports are made for, got 129, for which there is none" in message
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    message = _error(capsys, f"--model={exported}", f"--image={text}")
    assert f"{text}: expected a picture (JPEG, PNG, ...), got 10 bytes" in message
    for flag in ("csv", "plot"):
        assert "cannot write into this output folder" in _error(
            capsys, f"--model={exported}", f"--{flag}={text}/figures"
        )


def test_a_size_that_the_network_does_not_take(capsys):
    message = _error(capsys, f"--config_file={CONFIG}", "--sizes=64")
    assert "--sizes=64: " in message and "plus one, got [64, 64]; the nearest to 64 are 61 and 65" in message
