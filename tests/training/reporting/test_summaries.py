"""What TensorBoard gets from training."""

import numpy as np
import tensorflow as tf

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.training.reporting.step_clock import StepClock
from deeplab2_kmax.training.reporting.summaries import TrainingPictures, TrainingSummaries

SHAPES = load_dataset("shapes")
CIRCLE, SKY = (next(c.id for c in SHAPES.classes if c.name == name) for name in ("circle", "sky"))


def written(folder):
    """(step, tag) -> value or picture."""
    found = {}
    for path in folder.glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                content = tf.make_ndarray(value.tensor)
                is_picture = value.metadata.plugin_data.plugin_name == "images"
                found[event.step, value.tag] = tf.io.decode_png(content[2]).numpy() if is_picture else float(content)
    return found


def batches():
    """Batches of three dark pictures; the left half is sky, the right half a circle."""
    label = np.full([3, 40, 40], SKY * SHAPES.label_divisor, np.int32)
    label[:, :, 20:] = CIRCLE * SHAPES.label_divisor + 1
    batch = {"image": np.full([3, 40, 40, 3], 20.0, np.float32), "panoptic_gt": label}
    return iter(tf.data.Dataset.from_tensors(batch).repeat())


def test_scalars_and_pictures_of_a_loop(tmp_path):
    step, clock = tf.Variable(0, dtype=tf.int64), StepClock(images_per_step=3)
    pictures = TrainingPictures(SHAPES, count=2, interval=10, fetch=clock.fetch)
    summaries = TrainingSummaries(str(tmp_path), step, clock, pictures)
    iterator = batches()
    for _ in range(4):
        for _ in range(5):
            summaries.fetch(iterator)
            clock.on_step()
        step.assign_add(5)
        clock.end_loop(5)
        # What orbit's controller does; its own speed counts evaluations.
        summaries.write_summaries({"losses/train_total_loss": tf.constant(2.5), "steps_per_second": 1e-9})
        summaries.flush()
    found = written(tmp_path)
    assert [number for number, tag in found if tag == "losses/train_total_loss"] == [5, 10, 15, 20]
    assert found[20, "losses/train_total_loss"] == 2.5
    assert found[20, "steps_per_second"] > 1e-3
    parts = [found[20, f"seconds_per_step/{part}"] for part in ("input", "step", "between_loops")]
    np.testing.assert_allclose(sum(parts), 1 / found[20, "steps_per_second"], rtol=1e-4)
    np.testing.assert_allclose(found[20, "images_per_second"], 3 * found[20, "steps_per_second"], rtol=1e-4)
    # The first loop's, and ten steps later.
    assert {key for key in found if "training/" in key[1]} == {
        (number, f"training/{index:03d}") for number in (5, 15) for index in (0, 1)
    }
    # Enlarged eight times, a gap of six between image and label.
    image, label = np.split(found[5, "training/000"][-300:-20].astype(float), [6 + 320], axis=1)
    assert np.ptp(image[:, 40:300]) == 0
    assert np.mean(label[:, 40:100, 2]) > np.mean(label[:, 40:100, 0]) + 20  # Sky is blue,
    assert np.mean(label[:, 220:280, 0]) > np.mean(label[:, 220:280, 2]) + 20  # and circles are red.


def test_nothing_is_written_where_there_is_no_folder_or_no_batch(tmp_path):
    pictures = TrainingPictures(SHAPES, count=1, interval=1)
    assert not pictures.write(1)
    step = tf.Variable(1, dtype=tf.int64)
    summaries = TrainingSummaries(None, step, StepClock(), pictures)
    summaries.fetch(batches())
    summaries.write_summaries({"losses/train_total_loss": tf.constant(2.5)})
    summaries.flush()
    assert not list(tmp_path.iterdir())
