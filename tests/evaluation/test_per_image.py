"""Figures of each image: their sum, and the file that holds them."""

import io
import uuid

import numpy as np
import pytest

from deeplab2_kmax.datasets import SegmentClass, load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQuality
from deeplab2_kmax.evaluation.per_image import ImageFigures, figures_path

DATASET = load_dataset("coco_panoptic")


def random_map(rng):
    classes = rng.integers(0, 134, 30)
    instances = np.where(np.isin(classes, DATASET.thing_class_ids), rng.integers(0, 3, 30), 0)
    return (classes * 256 + instances)[rng.integers(0, 30, (8, 8)).repeat(4, 0).repeat(4, 1)].astype(np.int32)


@pytest.fixture(scope="module")
def counted():
    """A metric that has seen 20 images, and what it said of each."""
    rng, metric = np.random.default_rng(0), PanopticQuality(DATASET)
    figures = ImageFigures(DATASET.name, DATASET.classes, "a1b2")
    states = []
    for number in range(20):
        truth = random_map(rng)
        prediction = np.where(rng.random(truth.shape) < 0.7, truth, random_map(rng))
        states.append(metric.update(truth, prediction))
        figures.add(f"aachen/{number}", states[-1])
    return metric, figures, np.array(states)


def test_the_images_sum_up_to_the_metric(counted):
    metric, figures, states = counted
    assert states[:, 0].any() and states[:, 2].any()
    np.testing.assert_array_equal(figures.states(), states)
    np.testing.assert_allclose(figures.state(), metric.state, rtol=1e-14)
    np.testing.assert_array_equal(figures.state()[1:], metric.state[1:])
    assert figures.result().all == pytest.approx(metric.result().all, rel=1e-14)


def test_the_sum_does_not_depend_on_who_counted_what(counted):
    _, figures, states = counted
    parts = [ImageFigures(DATASET.name, DATASET.classes) for _ in range(3)]
    for number in np.random.default_rng(1).permutation(20):
        parts[number % 3].add(str(number), states[number])
    for part in parts[1:]:
        parts[0].extend(part)
    np.testing.assert_array_equal(parts[0].state(), figures.state())
    assert sorted(map(int, parts[0].names)) == list(range(20))
    np.testing.assert_array_equal(parts[0].states(), states[list(map(int, parts[0].names))])


@pytest.mark.parametrize("remote", [False, True])
def test_a_file_gives_them_back(counted, tmp_path, remote):
    figures = counted[1]
    path = f"ram://{uuid.uuid4().hex}/images-7.npz" if remote else tmp_path / "images-7.npz"
    figures.save(path)
    read = ImageFigures.load(path)
    assert (read.dataset, read.settings, read.names) == ("coco_panoptic", "a1b2", figures.names)
    assert read.classes == DATASET.classes
    np.testing.assert_array_equal(read.states(), figures.states())
    if not remote:
        # 20 images with some 25 classes each, and the names of 133 classes. Dense states would take 85 kB.
        assert path.stat().st_size < 15_000


def test_no_image_and_no_class_are_fine(tmp_path):
    figures = ImageFigures("empty", DATASET.classes)
    assert len(figures) == 0 and not figures.state().any() and figures.states().shape == (0, 4, 133)
    figures.add("nothing in it", np.zeros((4, 133)))
    read = ImageFigures.from_bytes(figures.to_bytes(), "memory")
    assert read.names == ["nothing in it"] and not read.states().any()
    assert read.result().all.classes == 0


def test_odd_names_come_back(tmp_path):
    figures = ImageFigures("d", DATASET.classes)
    for name in ("bär\n.png", "a", "a", "\udce4", ""):
        figures.add(name, np.zeros((4, 133)))
    assert ImageFigures.from_bytes(figures.to_bytes(), "memory").names == figures.names


def other_archive(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: b"{}",
        lambda content: content[:-30],
        lambda content: content[:100] + bytes(100) + content[200:],
        lambda content: other_archive(images=np.arange(3)),
        lambda content: other_archive(about=np.array([{}])),
        lambda content: other_archive(
            **{**dict(np.load(io.BytesIO(content))), "columns": np.zeros(3, np.int32)},
        ),
        lambda content: other_archive(**{**dict(np.load(io.BytesIO(content))), "ends": np.array([1, 0])}),
    ],
)
def test_refuses_other_and_broken_files(counted, tmp_path, spoil):
    path = tmp_path / "images-7.npz"
    path.write_bytes(spoil(counted[1].to_bytes()))
    with pytest.raises(DataError, match=r"images-7.npz: expected an images-<step>.npz of an evaluation"):
        ImageFigures.load(path)


def test_refuses_other_versions_and_missing_files(counted, tmp_path):
    arrays = dict(np.load(io.BytesIO(counted[1].to_bytes())))
    about = arrays["about"].tobytes().replace(b'"version": 1', b'"version": 9')
    path = tmp_path / "images-7.npz"
    path.write_bytes(other_archive(**{**arrays, "about": np.frombuffer(about, np.uint8)}))
    with pytest.raises(DataError, match="expected figures of images of version 1, got version 9"):
        ImageFigures.load(path)
    with pytest.raises(DataError, match="cannot read the figures of images: No such file"):
        ImageFigures.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ("run/eval/metrics-120.json", "run/eval/images-120.npz"),
        ("gs://b/metrics-120-3-images-a1.json", "gs://b/images-120-3-images-a1.npz"),
        ("out/mine.json", "out/mine-images.npz"),
        ("mine", "mine-images.npz"),
    ],
)
def test_lies_beside_the_metrics(metrics, expected):
    assert figures_path(metrics) == expected


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0])
def test_figures_that_are_none_are_refused_by_image(wrong):
    found = ImageFigures("pets", [SegmentClass(1, "cat", True, (255, 0, 0), 17)])
    found.add("good", np.array([[0.8], [1], [0], [0]], float))
    found.add("nothing", np.zeros((4, 1)))
    found.add("bad", np.array([[wrong], [1], [0], [0]], float))
    with pytest.raises(DataError, match="a.npz: expected figures that are finite and not negative.* of image bad"):
        ImageFigures.from_bytes(found.to_bytes(), "a.npz")
