"""The evaluator with a stand-in for the model whose answers are known."""

import io
import json
import uuid

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass, load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.evaluator import Evaluator
from deeplab2_kmax.evaluation.metric_set import MetricSettings
from deeplab2_kmax.evaluation.per_image import ImageFigures
from deeplab2_kmax.evaluation.prediction_files import PredictionFiles
from deeplab2_kmax.evaluation.summary_pictures import SummaryPictures
from deeplab2_kmax.files import list_folder, read_bytes, read_text
from deeplab2_kmax.postprocessing import build_postprocessor

DESCRIPTOR = DatasetDescriptor(
    name="two",
    classes=(SegmentClass(1, "thing", True, (255, 0, 0), 17), SegmentClass(2, "stuff", False, (0, 255, 0), 42)),
    num_classes=3,
    ignore_label=0,
    label_divisor=256,
)
CROP = 9
# Original sizes of the three images; the first two make up a batch, so the second is padded there.
SIZES = ((17, 9), (9, 17), (9, 9))
RESIZED = ((9, 5), (5, 9), (9, 9))


def truth(height, width):
    """The true panoptic map: the left half is stuff, the right half a thing."""
    labels = np.full((height, width), 2 * 256, np.int32)
    labels[:, width // 2 + 1 :] = 1 * 256 + 1
    return labels


NAMES = [f"picture{index}.jpg" for index in range(len(SIZES))]


def sample(index):
    (height, width), (rows, columns) = SIZES[index], RESIZED[index]
    panoptic = truth(height, width)
    prediction = np.zeros((CROP, CROP), np.int32)
    # The map that `undo_resize` (nearest pixel, corners aligned) turns into the truth.
    y = np.rint(np.linspace(0, height - 1, rows)).astype(int)
    x = np.rint(np.linspace(0, width - 1, columns)).astype(int)
    prediction[:rows, :columns] = panoptic[y][:, x]
    image = np.full((CROP, CROP, 3), 100.0, np.float32)
    image[..., 0] = prediction
    return {
        "image": image,
        "image_name": NAMES[index],
        "size_raw": np.array([height, width], np.int32),
        "size_resized": np.array([rows, columns], np.int32),
        "panoptic_raw": panoptic,
        "semantic_raw": panoptic // 256,
    }


def samples(labels=True):
    entries = [sample(index) for index in range(len(SIZES))]
    names = [name for name in entries[0] if labels or name not in ("panoptic_raw", "semantic_raw")]
    arrays = {name: [np.asarray(entry[name]) for entry in entries] for name in names}
    return tf.data.Dataset.from_generator(
        lambda: ({name: entry[name] for name in names} for entry in entries),
        output_signature={
            name: tf.TensorSpec(
                [None] * values[0].ndim if name in ("panoptic_raw", "semantic_raw") else values[0].shape,
                tf.string if name == "image_name" else values[0].dtype,
            )
            for name, values in arrays.items()
        },
    )


class Answers(tf.keras.Model):
    """A model without weights, whose answer is the red channel of the image."""

    def call(self, images, training=False):
        return {"answer": tf.cast(images[..., 0], tf.int32)}


def sure_of(panoptic):
    """Scores of a model that is sure of everything."""
    ones = tf.ones(tf.shape(panoptic))
    return {"instance_scores": ones, "semantic_scores": ones}


def make_evaluator(folder, wrong=False, files=None, labels=True, void_columns=0, **more):
    def postprocess(outputs):
        answer = outputs["answer"]
        panoptic = tf.where(tf.range(answer.shape[2]) < void_columns, 0, answer)
        if wrong:
            panoptic = tf.where(panoptic == 2 * 256, 0, panoptic)
        return {"panoptic_pred": panoptic, "semantic_pred": panoptic // 256, **sure_of(panoptic)}

    said = []
    evaluator = Evaluator(
        model=Answers(),
        loss=lambda batch, outputs: {"total_loss": tf.cast(batch["size_raw"][:, 0], tf.float32)},
        loss_names=("total_loss",),
        postprocess=postprocess,
        descriptor=DESCRIPTOR,
        dataset=samples(labels).padded_batch(2),
        global_step=tf.Variable(120, dtype=tf.int64),
        output_folder=str(folder),
        files=files,
        has_labels=labels,
        say=said.append,
        **more,
    )
    return evaluator, said


def test_perfect_answers_score_one_at_original_size(tmp_path):
    evaluator, said = make_evaluator(tmp_path)
    results = evaluator.evaluate(tf.constant(-1))
    assert results["evaluation/pq/PQ"] == pytest.approx(1.0)
    assert results["evaluation/pq/TP"] == pytest.approx(3.0)
    assert results["evaluation/iou/IoU"] == pytest.approx(1.0)
    # The mean over images, not over batches.
    assert results["losses/eval_total_loss"] == pytest.approx(np.mean([17, 9, 9]))
    assert results["evaluation/ap/AP_Mask"] == pytest.approx(1.0)
    assert any("PQ" in line and "instance AP   " in line for line in said)


def test_on_tpus_maps_are_made_on_the_host(config, model, tmp_path):
    """XLA compiles what the replicas then do, and the maps are those that replicas make elsewhere."""
    size = config.eval_dataset_options.crop_size
    images = np.random.RandomState(0).randint(0, 256, (3, *size, 3)).astype(np.float32)
    facts = np.tile(np.array(size, np.int32), (3, 1))
    data = {"image": images, "size_resized": facts, "size_raw": facts, "image_name": ["a", "b", "c"]}

    found = []
    for on_host in (False, True):
        files = PredictionFiles(str(tmp_path / str(on_host)), load_dataset("shapes"), raw_format="two_channel_png")
        evaluator = Evaluator(
            model=model,
            loss=None,
            loss_names=(),
            postprocess=build_postprocessor(config),
            descriptor=load_dataset("shapes"),
            dataset=tf.data.Dataset.from_tensor_slices(data).batch(3, drop_remainder=True),
            global_step=tf.Variable(0, dtype=tf.int64),
            output_folder=str(tmp_path),
            files=files,
            has_labels=False,
            postprocess_on_host=on_host,
            say=lambda line: None,
        )
        evaluator.evaluate(tf.constant(-1))
        found.append([np.asarray(Image.open(path)) for path in sorted((tmp_path / str(on_host)).rglob("*.png"))])
    assert len(found[0]) == 6
    for on_replicas, on_the_host in zip(*found):
        np.testing.assert_array_equal(on_replicas, on_the_host)
    compiled = tf.function(evaluator._replica_step, jit_compile=True, autograph=False)
    logits = compiled({"image": tf.constant(images)})
    assert logits.keys() == {"pixel_space_mask_logits", "transformer_class_logits"}


def test_results_are_filed_by_step(tmp_path):
    evaluator, _ = make_evaluator(tmp_path / "eval", wrong=True)
    evaluator.evaluate(tf.constant(-1))
    content = json.loads((tmp_path / "eval" / "metrics-120.json").read_text())
    assert content["step"] == 120 and content["images"] == 3 and content["dataset"] == "two"
    assert content["panoptic_quality"]["things"]["pq"] == pytest.approx(1.0)
    assert content["panoptic_quality"]["stuff"]["pq"] == 0.0


def test_figures_of_each_image_lie_beside_the_results(tmp_path):
    evaluator, _ = make_evaluator(tmp_path, wrong=True, settings="a1")
    results = evaluator.evaluate(tf.constant(-1))
    figures = ImageFigures.load(tmp_path / "images-120.npz")
    assert (figures.names, figures.dataset, figures.settings) == (NAMES, "two", "a1")
    # In each image, the thing is matched and the stuff missed.
    np.testing.assert_array_equal(figures.states(), [[[1, 0], [1, 0], [0, 0], [0, 1]]] * 3)
    assert figures.result().as_scalars()["evaluation/pq/PQ"] == results["evaluation/pq/PQ"]


def test_further_metrics_are_options(tmp_path):
    evaluator, said = make_evaluator(
        tmp_path, metrics=MetricSettings(True, True, True, boundary_ratio=0.02, calibration=True)
    )
    results = evaluator.evaluate(tf.constant(-1))
    assert results["evaluation/ap/AR_Mask_maxdets=10"] == pytest.approx(1.0)
    # No object has 100 pixels.
    assert results["evaluation/ap_cityscapes/AP"] == 0.0
    assert set(results) == set(evaluator.figure_names)
    content = json.loads((tmp_path / "metrics-120.json").read_text())
    assert content["instance_ap"]["ap_small"] == pytest.approx(1.0) and content["instance_ap"]["ap_large"] is None
    assert content["cityscapes_ap"]["classes"] == 0
    # Semantic maps and scores get there, too: answers that are sure and right have no calibration error.
    assert content["boundary"]["iou"]["mean"] == content["boundary"]["panoptic_quality"]["all"]["pq"] == 1.0
    assert content["calibration"]["pixels"]["ece"] == 0.0
    assert content["panoptic_quality_by_size"]["small"]["all"]["pq"] == 1.0
    assert content["mean_iou"]["frequency_weighted"] == pytest.approx(1.0)
    table = said[-1].split("\n")
    assert max(map(len, table[:-1])) <= 80 and any(line.startswith("AR by size") for line in table)


def test_results_and_predictions_of_a_remote_run_lie_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # A remote path taken for a local one makes a folder "ram:" here.
    remote = f"ram://run/{uuid.uuid4().hex}"
    predictions = PredictionFiles(f"{remote}/vis", DESCRIPTOR, pictures=1, raw_format="two_channel_numpy_array")
    evaluator, said = make_evaluator(f"{remote}/eval", files=predictions)
    evaluator.evaluate(tf.constant(-1))
    assert not list(tmp_path.iterdir())
    assert json.loads(read_text(f"{remote}/eval/metrics-120.json"))["images"] == 3
    assert any(f"per class in {remote}/eval/metrics-120.json" in line for line in said)
    assert "000000_image.png" in list_folder(f"{remote}/vis")
    raw = np.load(io.BytesIO(read_bytes(f"{remote}/vis/raw_panoptic/picture2.npy")))
    assert raw.shape == (9, 9, 3)
    assert list_folder(f"{remote}/vis/raw_semantic") == [f"picture{index}.png" for index in range(3)]


def test_a_second_evaluation_starts_anew(tmp_path):
    evaluator, _ = make_evaluator(tmp_path)
    first, second = (evaluator.evaluate(tf.constant(-1)) for _ in range(2))
    assert first == second


def test_nothing_is_left_of_an_evaluation_of_fewer_images(tmp_path):
    # With the first column void, pictures of different widths have different figures.
    fresh, _ = make_evaluator(tmp_path, void_columns=1)
    expected = fresh.evaluate(tf.constant(-1))
    evaluator, _ = make_evaluator(tmp_path, void_columns=1)
    assert evaluator.evaluate(tf.constant(1))["evaluation/iou/IoU"] != expected["evaluation/iou/IoU"]
    assert evaluator.evaluate(tf.constant(-1)) == expected


def test_the_number_of_steps_can_be_limited(tmp_path):
    evaluator, _ = make_evaluator(tmp_path)
    evaluator.evaluate(tf.constant(1))
    assert json.loads((tmp_path / "metrics-120.json").read_text())["images"] == 2


def test_results_of_fewer_images_or_other_settings_replace_none(tmp_path):
    def evaluated(settings, steps=-1, wrong=False):
        evaluator, said = make_evaluator(tmp_path, wrong=wrong, settings=settings)
        evaluator.evaluate(tf.constant(steps))
        return said[-1]

    usual = tmp_path / "metrics-120.json"
    evaluated("a", steps=1)
    evaluated("b")  # More images: they say more, whatever the settings are.
    before = usual.read_text()
    assert json.loads(before)["images"] == 3
    assert f"per class in {tmp_path}/metrics-120-2-images-b.json" in evaluated("b", steps=1)
    assert f"per class in {tmp_path}/metrics-120-3-images-a.json" in evaluated("a", wrong=True)
    assert usual.read_text() == before
    evaluated("b", wrong=True)
    assert usual.read_text() != before


@pytest.mark.parametrize("labels", [True, False])
def test_an_evaluation_of_nothing_is_an_error(tmp_path, labels):
    evaluator, _ = make_evaluator(tmp_path, labels=labels)
    with pytest.raises(DataError, match="evaluation: expected at least one image, got none"):
        evaluator.evaluate(tf.constant(0))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("labels", [True, False])
def test_the_first_images_are_shown_in_tensorboard(tmp_path, labels):
    pictures = SummaryPictures(DESCRIPTOR, count=2, step=tf.Variable(120, dtype=tf.int64))
    evaluator, _ = make_evaluator(tmp_path, wrong=True, labels=labels, pictures=pictures)
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        for _ in range(2):
            evaluator.evaluate(tf.constant(-1))
    shown = [
        (event.step, value.tag, tf.io.decode_png(tf.make_ndarray(value.tensor)[2]).numpy())
        for path in tmp_path.glob("events*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]
    assert [item[:2] for item in shown] == [(120, "panoptic/000_picture0"), (120, "panoptic/001_picture1")] * 2
    # Picture 0 is 9 wide, 17 high and enlarged 36 times. Its left half is stuff, green, which is predicted as void.
    panels = np.split(shown[0][2][-300:-40], np.arange(1, 3 if labels else 2) * (9 * 36 + 12), axis=1)
    greenness = [float(np.mean(panel[:, 40:80, 1].astype(float) - panel[:, 40:80, 0])) for panel in panels]
    image, *truths, prediction = greenness
    assert image == pytest.approx(prediction, abs=1)
    assert [truth > image + 50 for truth in truths] == [True] * labels


def test_figures_of_classes_are_an_option(tmp_path):
    evaluator, _ = make_evaluator(tmp_path, wrong=True, per_class=True)
    results = evaluator.evaluate(tf.constant(-1))
    assert results["evaluation/pq_class/thing"] == pytest.approx(1.0)
    assert results["evaluation/rq_class/stuff"] == 0.0
    plain, _ = make_evaluator(tmp_path)
    assert set(plain.evaluate(tf.constant(-1))) == set(plain.figure_names)


def test_pictures_and_raw_maps(tmp_path):
    files = PredictionFiles(str(tmp_path / "vis"), DESCRIPTOR, pictures=2, raw_format="two_channel_png")
    evaluator, _ = make_evaluator(tmp_path, files=files)
    evaluator.evaluate(tf.constant(-1))
    vis = tmp_path / "vis"
    names = sorted(str(path.relative_to(vis)) for path in vis.rglob("*.*"))
    panoptic, semantic = ("panoptic_label", "panoptic_prediction"), ("semantic_label", "semantic_prediction")
    kinds = ("image", *panoptic, *semantic, "semantic_error")
    pictures = [f"{index:06d}_{kind}.png" for index in range(2) for kind in kinds]
    raw = [f"{folder}/picture{index}.png" for folder in ("raw_panoptic", "raw_semantic") for index in range(3)]
    assert names == sorted(pictures + raw)
    for index in range(2):
        picture = np.asarray(Image.open(vis / f"{index:06d}_image.png"))
        assert picture.shape[:2] == SIZES[index]
        # Red tells the image from the padding of the crop, where it is 0; see `sample`.
        assert (picture[..., 0] == 255).all()
        assert not np.asarray(Image.open(vis / f"{index:06d}_semantic_error.png")).any()


def test_without_labels_predictions_are_written_and_nothing_is_measured(tmp_path):
    files = PredictionFiles(str(tmp_path / "vis"), DESCRIPTOR, raw_format="two_channel_numpy_array")
    evaluator, _ = make_evaluator(tmp_path, files=files, labels=False)
    assert evaluator.evaluate(tf.constant(-1)) == {}
    assert len(list((tmp_path / "vis" / "raw_panoptic").iterdir())) == 3
    assert not (tmp_path / "metrics-120.json").exists()


def test_an_evaluation_warns_of_images_of_one_name(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(f"{__name__}.NAMES", ["a_b", "a_b.png", "c.0001"])
    files = PredictionFiles(str(tmp_path / "vis"), DESCRIPTOR, raw_format="two_channel_png")
    evaluator, _ = make_evaluator(tmp_path, files=files)
    with caplog.at_level("WARNING", "absl"):
        evaluator.evaluate(tf.constant(-1))
    assert len(list((tmp_path / "vis" / "raw_panoptic").iterdir())) == 3
    assert ["1 image would have replaced" in record.getMessage() for record in caplog.records] == [True]


def test_pictures_in_tensorboard_keep_numbers_behind_a_dot(tmp_path):
    pictures = SummaryPictures(DESCRIPTOR, count=1, step=tf.Variable(1, dtype=tf.int64))
    pictures.begin()
    ids = np.full((8, 8), 256, np.int32)
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        pictures.add("a/clip.0002", np.zeros((8, 8, 3), np.uint8), None, ids)
    (path,) = tmp_path.glob("events*")
    events = tf.compat.v1.train.summary_iterator(str(path))
    assert [value.tag for event in events for value in event.summary.value] == ["panoptic/000_clip.0002"]
