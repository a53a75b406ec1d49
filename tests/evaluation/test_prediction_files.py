"""Raw label maps as files."""

import resource

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass, load_dataset
from deeplab2_kmax.errors import ConfigError, DataError, StorageError
from deeplab2_kmax.evaluation.prediction_files import PredictionFiles, build_prediction_files
from deeplab2_kmax.names import checksum, result_name
from deeplab2_kmax.protos import evaluator_pb2
from deeplab2_kmax.storage_errors import storage_errors
from deeplab2_kmax.wording import counted


def write(folder, raw_format, panoptic, dataset="cityscapes_panoptic", source_ids=True):
    files = PredictionFiles(str(folder), load_dataset(dataset), raw_format=raw_format, source_ids=source_ids)
    files.begin()
    files.write("town/one.png", np.asarray(panoptic), None, None)


# Cityscapes: class 0 (road) is 7 in the official files, class 11 (person) is 24, void is 0.
PANOPTIC = np.array([[0, 11 * 1000 + 3, 255 * 1000]])


def test_two_channels_hold_source_class_and_instance(tmp_path):
    write(tmp_path, "two_channel_png", PANOPTIC)
    pixels = np.asarray(Image.open(tmp_path / "raw_panoptic/town/one.png"))
    assert pixels.tolist() == [[[7, 0, 0], [24, 3, 0], [0, 0, 0]]]
    assert np.asarray(Image.open(tmp_path / "raw_semantic/town/one.png")).tolist() == [[7, 24, 0]]


@pytest.mark.parametrize("name", ["../../{}.png", "/{}.png", "a/../../../{}.png"])
def test_no_name_of_a_record_leads_out_of_the_folder(tmp_path, name):
    folder = tmp_path / "run/vis"
    files = PredictionFiles(str(folder), load_dataset("cityscapes_panoptic"), raw_format="two_channel_png")
    files.begin()
    files.write(name.format(f"{tmp_path}/outside".lstrip("/")), PANOPTIC, None, None)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 2 and all(folder in path.parents for path in written)


def test_void_is_no_class_where_a_class_has_number_0(tmp_path):
    """ADE20K's own files call walls 0."""
    write(tmp_path, "two_channel_png", [[1 * 1000, 2 * 1000, 0]], dataset="ade20k_panoptic")
    assert np.asarray(Image.open(tmp_path / "raw_semantic/town/one.png")).tolist() == [[0, 1, 255]]
    assert np.asarray(Image.open(tmp_path / "raw_panoptic/town/one.png")).tolist() == [
        [[0, 0, 0], [1, 0, 0], [255, 0, 0]]
    ]


@pytest.mark.parametrize(("taken", "void"), [((7, 8), 0), ((0, 255), 254), (range(256), 256)])
def test_void_gets_a_number_that_no_class_has(tmp_path, taken, void):
    classes = tuple(SegmentClass(n + 1, f"c{n}", False, (1, 2, 3), number) for n, number in enumerate(taken))
    descriptor = DatasetDescriptor("own", classes, len(classes) + 1, 0, 10)
    files = PredictionFiles(str(tmp_path), descriptor, raw_format="two_channel_numpy_array")
    files.begin()
    ids = np.array([[0, 10]])
    if void > 255:
        with pytest.raises(DataError, match="got class 256"):
            files.write("one.png", ids, None, None)
        return
    files.write("one.png", ids, None, None)
    assert np.load(tmp_path / "raw_panoptic/one.npy")[..., 0].tolist() == [[void, taken[0]]]


def test_training_ids_stay_on_request(tmp_path):
    write(tmp_path, "two_channel_png", PANOPTIC, source_ids=False)
    pixels = np.asarray(Image.open(tmp_path / "raw_panoptic/town/one.png"))
    assert pixels.tolist() == [[[0, 0, 0], [11, 3, 0], [255, 0, 0]]]


def test_three_channels_hold_large_instance_ids(tmp_path):
    write(tmp_path, "three_channel_png", [[11 * 1000 + 515]])
    assert np.asarray(Image.open(tmp_path / "raw_panoptic/town/one.png")).tolist() == [[[24, 2, 3]]]


def test_the_array_holds_anything(tmp_path):
    write(tmp_path, "two_channel_numpy_array", [[11 * 1000 + 515]])
    assert np.load(tmp_path / "raw_panoptic/town/one.npy").tolist() == [[[24, 515, 0]]]


def test_an_instance_that_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(
        DataError, match=r"town/one: expected ids up to 255.*got instance 300;.*two_channel_numpy_array"
    ):
        write(tmp_path, "two_channel_png", [[11 * 1000 + 300]])


def test_options_decide_what_is_written(tmp_path):
    descriptor = load_dataset("coco_panoptic")
    options = evaluator_pb2.EvaluatorOptions()
    assert build_prediction_files(options, descriptor, str(tmp_path)) is None
    options.save_predictions = True
    files = build_prediction_files(options, descriptor, str(tmp_path))
    assert (files.folder, files.pictures, files.raw_format) == (str(tmp_path / "vis"), 10, None)
    options.save_raw_predictions = True
    options.raw_panoptic_format = "jpeg"
    with pytest.raises(ConfigError, match="three_channel_png.*'jpeg'"):
        build_prediction_files(options, descriptor, str(tmp_path))


@pytest.mark.parametrize("raw_format", ["two_channel_png", "two_channel_numpy_array"])
def test_a_full_disk_is_told_with_the_folder_of_the_predictions(tmp_path, raw_format):
    """`override_save_dir` may lie on another disk than the run, whose folder is then not to blame."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    panoptic = np.random.RandomState(0).randint(0, 19, (300, 300)) * 1000
    expected = f"^cannot go on: {tmp_path}/vis/raw_.*File too large. The checkpoints in {tmp_path}/run are whole"
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # Python ignores the signal that goes with it.
    try:
        with pytest.raises(StorageError, match=expected), storage_errors(str(tmp_path / "run")):
            write(tmp_path / "vis", raw_format, panoptic)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _evaluate(files, *names):
    """One evaluation of images whose class says how many came before."""
    files.begin()
    for number, name in enumerate(names):
        files.write(name, np.array([[number * 1000]]), None, None)
    files.end()


def _written(folder, kind="raw_semantic"):
    """{name of a file: the class of its image}"""
    return {
        path.relative_to(folder / kind).as_posix(): int(np.asarray(Image.open(path)).flat[0])
        for path in (folder / kind).rglob("*.png")
    }


@pytest.fixture
def raw(tmp_path):
    descriptor = load_dataset("cityscapes_panoptic")
    return PredictionFiles(str(tmp_path), descriptor, raw_format="two_channel_png", source_ids=False)


def test_numbers_behind_a_dot_are_no_endings(raw, tmp_path, caplog):
    _evaluate(raw, "clip.0002", "clip.0004", "x/clip.0004.jpg")
    assert _written(tmp_path) == {"clip.0002.png": 0, "clip.0004.png": 1, "x/clip.0004.png": 2}
    assert _written(tmp_path, "raw_panoptic") == _written(tmp_path)
    assert not caplog.records


@pytest.mark.parametrize(
    "names",
    [
        ("a_b", "a_b.png"),
        ("a_b.png", "a_b.jpg", "a_b"),
        ("a/b", "a/b", "a/b"),
        ("a/b", "a//b", "a/./b", "/a/b"),
        ("", ".", "unnamed", ""),
        ("a\nb", "a\tb", "a_b"),
    ],
)
def test_no_image_replaces_the_files_of_another(raw, tmp_path, caplog, names):
    with caplog.at_level("WARNING", "absl"):
        _evaluate(raw, *names)
        once = _written(tmp_path)
        _evaluate(raw, *names)
    assert sorted(once.values()) == list(range(len(names)))
    assert once[f"{result_name(names[0])}.png"] == 0
    # Another evaluation replaces the files of the one before, name by name, and does not warn again.
    assert _written(tmp_path) == once and _written(tmp_path, "raw_panoptic") == once
    (record,) = caplog.records
    said = record.getMessage()
    assert f"{tmp_path}: {counted(len(names) - 1, 'image')} would have replaced" in said and repr(names[1]) in said


def test_a_changed_name_that_another_image_has_is_not_taken_twice(raw, tmp_path):
    changed = f"a-{checksum('a.png')}"
    _evaluate(raw, changed, "a", "a.png", "a.png", f"a-{checksum('a.png')}_2")
    assert sorted(_written(tmp_path).values()) == list(range(5))


def test_changed_names_depend_on_the_images_that_share_them_only(tmp_path, raw):
    """As where another process has the other images."""
    _evaluate(raw, "a", "b", "c", "c.png", "a.png")
    others = PredictionFiles(f"{tmp_path}/other", raw.descriptor, raw_format="two_channel_png")
    _evaluate(others, "a", "a.png")
    assert {*_written(tmp_path / "other")} <= {*_written(tmp_path)}


def test_classes_and_wrong_ones_are_pictures_as_in_deeplab2(tmp_path):
    descriptor = load_dataset("cityscapes_panoptic")
    files = PredictionFiles(str(tmp_path), descriptor, pictures=1)
    files.begin()
    predicted, true = np.array([[0, 11, 255]]), np.array([[0, 255, 13]])
    files.write("one.png", predicted * 1000, true * 1000, np.zeros((1, 3, 3)), predicted, true)
    road, person, car = (descriptor.by_id[class_id].color for class_id in (0, 11, 13))

    def shown(kind):
        return np.asarray(Image.open(tmp_path / f"000000_semantic_{kind}.png")).tolist()

    assert shown("prediction") == [[list(road), list(person), [0, 0, 0]]]
    assert shown("label") == [[list(road), [0, 0, 0], list(car)]]
    # Where there is a label and another prediction, void among them; one channel.
    assert shown("error") == [[0, 0, 255]]
    # The next image is not one to show; without labels there is nothing to be wrong about.
    files.write("two.png", predicted * 1000, None, None, predicted, None)
    assert len(list(tmp_path.iterdir())) == 6
    other = PredictionFiles(str(tmp_path / "other"), descriptor, pictures=1)
    other.begin()
    other.write("one.png", predicted * 1000, None, np.zeros((1, 3, 3)), predicted, None)
    names = sorted(path.name for path in (tmp_path / "other").iterdir())
    assert names == ["000000_image.png", "000000_panoptic_prediction.png", "000000_semantic_prediction.png"]
