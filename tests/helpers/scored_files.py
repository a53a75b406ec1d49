"""One truth and one prediction, written in every format that `deeplab2-kmax score` reads."""

import json

import numpy as np
from PIL import Image

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.datasets.segment_colors import ids_to_colors
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQuality
from deeplab2_kmax.evaluation.prediction_files import PredictionFiles
from deeplab2_kmax.evaluation.submission.cityscapes import write_instances, write_semantic
from deeplab2_kmax.evaluation.submission.coco_panoptic import write_cityscapes_panoptic, write_coco_zip
from deeplab2_kmax.evaluation.submission.predicted_maps import PredictionFolder

DATASET = load_dataset("cityscapes_panoptic")
DIVISOR, VOID = DATASET.label_divisor, DATASET.ignore_label
NAMES = [f"frankfurt_{number:06d}_000019" for number in range(4)]
SOURCE = {c.id: c.source_id for c in DATASET.classes}


def label_map(rng, crowds):
    """Panoptic ids by training ids, int32 [24, 40]: things, stuff, void, and perhaps crowds."""
    classes = rng.choice([0, 2, 8, 10, 11, 12, 13, VOID], 12)
    instances = np.where(np.isin(classes, DATASET.thing_class_ids), rng.integers(1 - crowds, 4, 12), 0)
    ids = (classes * DIVISOR + instances).astype(np.int32)
    return ids[rng.integers(0, 12, (6, 10))].repeat(4, 0).repeat(4, 1)


def maps():
    """The true and the predicted maps."""
    rng = np.random.default_rng(5)
    truths = [label_map(rng, crowds=1) for _ in NAMES]
    predictions = []
    for truth in truths:
        guess = np.where(truth // DIVISOR == VOID, 10000, truth)
        guess[:8][rng.random((8, 40)) < 0.5] = 11005
        guess[guess // DIVISOR == 13] = 12009
        guess[-3:] = VOID * DIVISOR
        # There are no crowds in a prediction.
        crowd = np.isin(guess // DIVISOR, DATASET.thing_class_ids) & (guess % DIVISOR == 0)
        predictions.append(np.where(crowd, guess + 7, guess).astype(np.int32))
    return truths, predictions


def expected():
    """The figures of each image, float64 [N, 4, C]."""
    metric = PanopticQuality(DATASET)
    return np.array([metric.update(truth, prediction) for truth, prediction in zip(*maps())])


def write_records(folder, truths):
    import tensorflow as tf  # Late, as what makes the golden figures runs without.

    from deeplab2_kmax.records import schema

    picture = tf.io.encode_png(np.zeros((24, 40, 3), np.uint8)).numpy()
    for shard in range(2):
        with tf.io.TFRecordWriter(str(folder / f"val-{shard:05d}-of-00002.tfrecord")) as writer:
            for name, truth in list(zip(NAMES, truths))[shard::2]:
                writer.write(schema.encode_record(picture, "png", name, truth))


def write_instance_ids(folder, truths):
    """Cityscapes' gtFine: instances count from 0, a group has the class alone, void is class 3."""
    (folder / "frankfurt").mkdir(parents=True)
    for name, truth in zip(NAMES, truths):
        classes, instances = np.divmod(truth, DIVISOR)
        source = np.vectorize(lambda c: SOURCE.get(c, 3))(classes)
        ids = np.where(instances > 0, source * 1000 + instances - 1, source)
        Image.fromarray(ids.astype(np.uint16)).save(folder / "frankfurt" / f"{name}_gtFine_instanceIds.png")


def write_coco(path, panoptic_maps, ending="_gtFine_panoptic.png"):
    """JSON and PNGs in COCO's format, classes by source ids; crowds are marked."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True)
    annotations = []
    for name, panoptic in zip(NAMES, panoptic_maps):
        ids = np.where(panoptic // DIVISOR == VOID, 0, panoptic + 1)
        segments = []
        for segment_id, area in zip(*(values.tolist() for values in np.unique(ids, return_counts=True))):
            if segment_id:
                class_id, instance = divmod(segment_id - 1, DIVISOR)
                crowd = int(class_id in DATASET.thing_class_ids and instance == 0)
                entry = {"id": segment_id, "category_id": SOURCE[class_id], "area": area, "iscrowd": crowd}
                segments.append(entry)
        Image.fromarray(ids_to_colors(ids)).save(folder / f"{name}{ending}")
        annotations.append({"image_id": name, "file_name": f"{name}{ending}", "segments_info": segments})
    categories = [{"id": c.source_id, "name": c.name, "isthing": int(c.is_thing)} for c in DATASET.classes]
    path.write_text(json.dumps({"annotations": annotations, "categories": categories}))


def write_raw(folder, panoptic_maps, raw_format, source_ids=True):
    """What evaluation writes."""
    files = PredictionFiles(str(folder), DATASET, raw_format=raw_format, source_ids=source_ids)
    files.begin()
    for name, panoptic in zip(NAMES, panoptic_maps):
        files.write(f"{name}_leftImg8bit.png", panoptic, None, None)
    files.end()


def score_of(segment_id):
    """A confidence that means and six decimals do not change."""
    return (32 + segment_id * 7919 % 31) / 64


def write_predict_output(folder, panoptic_maps):
    """What `deeplab2-kmax predict` writes, without overlays."""
    folder.mkdir(parents=True)
    for name, panoptic in zip(NAMES, panoptic_maps):
        Image.fromarray(ids_to_colors(panoptic)).save(folder / f"{name}_panoptic.png")
        ids = [i for i in np.unique(panoptic).tolist() if i // DIVISOR != VOID]
        segments = [{"id": i, "class_id": i // DIVISOR, "score": score_of(i)} for i in ids]
        table = {"dataset": DATASET.name, "void_id": VOID * DIVISOR, "label_divisor": DIVISOR, "segments": segments}
        (folder / f"{name}_segments.json").write_text(json.dumps(table))


def write_all(folder):
    """Everything; returns the arguments of `score` for each truth, and for each prediction."""
    truths, predictions = maps()
    write_records(folder, truths)
    write_instance_ids(folder / "gtFine", truths)
    write_coco(folder / "gt.json", truths)
    write_coco(folder / "pred.json", predictions)
    write_predict_output(folder / "predict", predictions)
    for raw_format in ("two_channel_png", "three_channel_png", "two_channel_numpy_array"):
        for side, panoptic_maps in (("truth", truths), ("prediction", predictions)):
            write_raw(folder / f"{side}_{raw_format}", panoptic_maps, raw_format)
            write_raw(folder / f"{side}_{raw_format}_train", panoptic_maps, raw_format, source_ids=False)
    dataset = {"dataset": DATASET.name}
    of_truth = {
        "records": ("val-*.tfrecord", dataset),
        "gtFine": ("gtFine", {}),
        "coco": ("gt.json", {}),
        "cityscapes": ("gt.json", {"format": "cityscapes"}),
        "two_channel_png": ("truth_two_channel_png", dataset),
    }
    of_prediction = {
        "coco": ("pred.json", {}),
        "predict": ("predict", {}),
        "two_channel_png": ("prediction_two_channel_png", {}),
        "three_channel_png": ("prediction_three_channel_png", {"raw_format": "three_channel_png"}),
        "two_channel_numpy_array": ("prediction_two_channel_numpy_array", {}),
        "training ids": ("prediction_two_channel_png_train", {"training_ids": True, **dataset}),
        "raw_panoptic": ("prediction_two_channel_png/raw_panoptic", {}),
    }
    return of_truth, of_prediction


def write_submissions(folder):
    """Truth and predictions, four times as large, as Cityscapes has them and in all forms of `submission`."""
    truths, predictions = ([m.repeat(4, 0).repeat(4, 1) for m in side] for side in maps())
    write_coco(folder / "gt.json", truths)
    write_instance_ids(folder / "gtFine/val", truths)
    for path in folder.glob("gtFine/val/*/*_instanceIds.png"):
        ids = np.asarray(Image.open(path)).astype(int)
        labels = np.where(ids < 1000, ids, ids // 1000).astype(np.uint8)
        Image.fromarray(labels).save(str(path).replace("instanceIds", "labelIds"))
    write_predict_output(folder / "predict", predictions)
    images = {"images": [{"id": name, "file_name": f"{name}.png"} for name in NAMES]}
    (folder / "images.json").write_text(json.dumps(images))
    found = PredictionFolder(str(folder / "predict"))
    write_coco_zip(found, str(folder / "results.zip"), str(folder / "images.json"))
    write_cityscapes_panoptic(found, str(folder / "panoptic"))
    write_semantic(found, str(folder / "semantic"))
    write_instances(found, str(folder / "instance"))
    return truths, predictions
