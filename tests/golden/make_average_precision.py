"""Writes average_precision.json: AP of generated maps by DeepLab2, by pycocotools and by Cityscapes' own script.

    PYTHONPATH=.:tests:FOLDER_WITH_deeplab2:cityscapesScripts python tests/golden/make_average_precision.py

Maps and scores are those of helpers/generated_maps.py. DeepLab2's class gets them as its evaluator would give them;
pycocotools and Cityscapes' script get files, with the scores that DeepLab2 gives the segments.
"""

import json
import pathlib
import tempfile

import numpy as np
import tensorflow as tf
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as cityscapes
from deeplab2.evaluation.coco_instance_ap import PanopticInstanceAveragePrecision
from deeplab2.utils import panoptic_instances
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from helpers.generated_maps import DATASET, DIVISOR, Pair, generated_pairs

COUNT = 40


def by_deeplab2(pairs: list[Pair]) -> list[float]:
    """DeepLab2's twelve figures."""
    metric = PanopticInstanceAveragePrecision(
        DATASET.num_classes, DATASET.thing_class_ids, DIVISOR, DATASET.ignore_label
    )
    for pair in pairs:
        crowd = np.isin(pair.truth // DIVISOR, DATASET.thing_class_ids) & (pair.truth % DIVISOR == 0)
        maps = (pair.truth, pair.prediction, pair.semantic_scores, pair.instance_scores, crowd)
        metric.update_state(*map(tf.constant, maps))
    return np.asarray(metric.result()).tolist()


def detections_of(pair: Pair) -> list[tuple[int, float]]:
    """Panoptic id and score of each thing segment that is predicted."""
    labels, scores = panoptic_instances.combined_instance_scores(
        pair.prediction, pair.semantic_scores, pair.instance_scores, DIVISOR, DATASET.ignore_label
    )
    found = zip(labels.numpy().tolist(), scores.numpy().tolist())
    return [(label, score) for label, score in found if label // DIVISOR in DATASET.thing_class_ids]


def by_pycocotools(pairs: list[Pair], folder: pathlib.Path) -> dict:
    """The twelve figures, and AP of each class, of files in COCO's format."""
    things = [{"id": each, "name": DATASET.by_id[each].name} for each in DATASET.thing_class_ids]
    truth: dict = {"images": [], "annotations": [], "categories": things}
    found = []
    for number, pair in enumerate(pairs):
        height, width = pair.truth.shape
        truth["images"].append({"id": number, "height": height, "width": width, "file_name": pair.name})
        for label in np.unique(pair.truth).tolist():
            if label // DIVISOR in DATASET.thing_class_ids:
                mask = pair.truth == label
                truth["annotations"].append(
                    {
                        "id": len(truth["annotations"]) + 1,
                        "image_id": number,
                        "category_id": label // DIVISOR,
                        "segmentation": as_text(mask),
                        "area": int(mask.sum()),
                        "bbox": coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask))).tolist(),
                        "iscrowd": int(label % DIVISOR == 0),
                    }
                )
        for label, score in detections_of(pair):
            segment = as_text(pair.prediction == label)
            found.append({"image_id": number, "category_id": label // DIVISOR, "segmentation": segment, "score": score})
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(found))
    coco = COCO(str(folder / "truth.json"))
    evaluation = COCOeval(coco, coco.loadRes(str(folder / "found.json")), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_class = {thing["name"]: float(precision[:, :, row].mean()) for row, thing in enumerate(things)}
    return {"figures": evaluation.stats.tolist(), "per_class": per_class}


def as_text(mask: np.ndarray) -> dict:
    """A mask as COCO's files have it."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {**encoded, "counts": encoded["counts"].decode()}


def by_cityscapes(pairs: list[Pair], folder: pathlib.Path) -> dict:
    """AP and AP at 50 %, over all classes and of each, of files in Cityscapes' layout."""
    cityscapes.args.quiet, cityscapes.args.JSONOutput = True, False
    cityscapes.args.predictionPath = str(folder)
    cityscapes.args.gtInstancesFile = str(folder / "instances.json")
    source_ids = np.zeros(256, np.int32)
    for each in DATASET.classes:
        source_ids[each.id] = each.source_id
    predictions, truths = [], []
    for pair in pairs:
        classes, instances = source_ids[pair.truth // DIVISOR], pair.truth % DIVISOR
        ids = np.where(instances > 0, classes * 1000 + instances, classes)
        truths.append(str(folder / f"{pair.name}_gtFine_instanceIds.png"))
        Image.fromarray(ids.astype(np.uint16)).save(truths[-1])
        lines = []
        for label, score in detections_of(pair):
            name = f"{pair.name}_{label}.png"
            Image.fromarray((pair.prediction == label).astype(np.uint8)).save(folder / name)
            lines.append(f"{name} {source_ids[label // DIVISOR]} {score!r}\n")
        predictions.append(str(folder / f"{pair.name}.txt"))
        pathlib.Path(predictions[-1]).write_text("".join(lines))
    averages = cityscapes.evaluateImgLists(predictions, truths, cityscapes.args)["averages"]
    per_class = {name: each["ap"] for name, each in averages["classes"].items()}
    return {"ap": float(averages["allAp"]), "ap_50": float(averages["allAp50%"]), "per_class": per_class}


def main() -> None:
    """Writes the figures of all pairs together, and DeepLab2's of each."""
    pairs = generated_pairs(COUNT)
    with tempfile.TemporaryDirectory() as folder:
        figures = {
            "deeplab2": by_deeplab2(pairs),
            "deeplab2_of_each": [by_deeplab2([pair]) for pair in pairs],
            "pycocotools": by_pycocotools(pairs, pathlib.Path(folder)),
            "cityscapes": by_cityscapes(pairs, pathlib.Path(folder)),
        }
    target = pathlib.Path(__file__).with_name("average_precision.json")
    target.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
