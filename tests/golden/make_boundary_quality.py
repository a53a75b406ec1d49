"""Writes boundary_quality.json: Boundary PQ of generated maps, and boundaries of classes, by the authors' code.

    PYTHONPATH=.:tests:FOLDER_OF_boundary-iou-api:FOLDER_OF_panopticapi python tests/golden/make_boundary_quality.py

Maps are those of helpers/generated_maps.py. bowenc0221/boundary-iou-api gets files in COCO's panoptic format. For
Boundary IoU of classes, of which it has no script, its `mask_to_boundary` is called for each class and map.
"""

import contextlib
import io
import json
import pathlib
import tempfile

import numpy as np
from boundary_iou.coco_panoptic_api.evaluation import pq_compute
from boundary_iou.utils import mask_to_boundary
from PIL import Image

from helpers.generated_maps import DATASET, DIVISOR, VOID, Pair, generated_pairs

COUNT = 60
RATIOS = (0.02, 0.005)
_FIRST_ID = 1000  # The authors' code needs an id that no segment has, next to the largest class id.


def write(folder: pathlib.Path, kind: str, pairs: list[Pair]) -> tuple[str, str]:
    """Writes the true or the predicted maps as files; returns the paths of JSON and folder."""
    (folder / kind).mkdir()
    annotations = []
    for number, pair in enumerate(pairs):
        panoptic = pair.truth if kind == "truth" else pair.prediction
        ids, segments = np.zeros(panoptic.shape, np.int64), []
        for place, label in enumerate(np.unique(panoptic).tolist()):
            if label == VOID:
                continue
            mask = panoptic == label
            ids[mask] = _FIRST_ID + place
            thing = label // DIVISOR in DATASET.thing_class_ids
            crowd = int(kind == "truth" and thing and label % DIVISOR == 0)
            segment = {"id": _FIRST_ID + place, "category_id": label // DIVISOR + 1, "iscrowd": crowd}
            segments.append({**segment, "area": int(mask.sum())})
        name = f"{number:03d}.png"
        channels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1)
        Image.fromarray(channels.astype(np.uint8)).save(folder / kind / name)
        annotations.append({"image_id": number, "file_name": name, "segments_info": segments})
    content = {
        "images": [{"id": number} for number in range(len(pairs))],
        "annotations": annotations,
        "categories": [{"id": c.id + 1, "name": c.name, "isthing": int(c.is_thing)} for c in DATASET.classes],
    }
    path = folder / f"{kind}.json"
    path.write_text(json.dumps(content))
    return str(path), str(folder / kind)


def boundary_pq(pairs: list[Pair], ratio: float) -> dict:
    """The authors' PQ, SQ and RQ of all, things, stuff and each class."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = pathlib.Path(name)
        (truth, truth_folder), (found, found_folder) = (write(folder, kind, pairs) for kind in ("truth", "prediction"))
        results = pq_compute(truth, found, truth_folder, found_folder, iou_type="boundary", dilation_ratio=ratio)
    per_class = results.pop("per_class")
    results["per_class"] = {DATASET.by_id[each - 1].name: values for each, values in per_class.items()}
    return results


def boundary_iou(pairs: list[Pair], ratio: float) -> dict:
    """Intersection over union of the authors' boundaries of each class, summed over images."""
    sums = {c.name: [0, 0] for c in DATASET.classes}
    for pair in pairs:
        labelled = pair.truth != VOID
        for c in DATASET.classes:
            true, predicted = (
                mask_to_boundary((panoptic // DIVISOR == c.id).astype(np.uint8), ratio).astype(bool) & labelled
                for panoptic in (pair.truth, pair.prediction)
            )
            sums[c.name][0] += int((true & predicted).sum())
            sums[c.name][1] += int((true | predicted).sum())
    return {name: both / union for name, (both, union) in sums.items() if union}


def main() -> None:
    """Writes the figures for both widths of boundaries, and PQ of each pair for one."""
    pairs = generated_pairs(COUNT)
    figures = {str(ratio): {"pq": boundary_pq(pairs, ratio), "iou": boundary_iou(pairs, ratio)} for ratio in RATIOS}
    target = pathlib.Path(__file__).with_name("boundary_quality.json")
    target.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
