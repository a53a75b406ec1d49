"""Writes panoptic_cases.npz: 300 pairs of label maps in COCO's panoptic format, and what panopticapi makes of them.

    python tests/golden/make_panoptic_cases.py FOLDER

FOLDER holds cocodataset/panopticapi (7bb4655). Maps are drawn from a seed; each kind of case is drawn 20 times.
"""

import contextlib
import copy
import io
import json
import pathlib
import sys
import tempfile

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 16, 20
CATEGORIES = [{"id": i, "name": f"class {i}", "isthing": int(i <= 4)} for i in range(1, 8)]
EACH = 20
LARGEST = 2**24 - 1


def blobs(rng, count):
    """A map of `count` numbers 0.. in patches around random points, [H, W]."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    centers = rng.random((count, 2)) * (HEIGHT, WIDTH)
    return ((rows[..., None] - centers[:, 0]) ** 2 + (columns[..., None] - centers[:, 1]) ** 2).argmin(-1)


def draw_ids(rng, count, largest=5000):
    """Different ids from 1 on; the first is the largest there may be."""
    ids = rng.choice(np.arange(1, largest), count, replace=False)
    ids[0] = largest
    return ids


def listed(ids, rng, crowd=0.0, categories=7):
    """`segments_info` of the ids of a map, each with its area; 0 is void."""
    values, areas = np.unique(ids, return_counts=True)
    return [
        {
            "id": int(value),
            "category_id": int(rng.integers(1, categories + 1)),
            "area": int(area),
            "iscrowd": int(rng.random() < crowd),
        }
        for value, area in zip(values, areas)
        if value
    ]


def guess(rng, truth, segments):
    """A prediction that is right in most places: shifted, and with some other ids, classes and void."""
    ids = np.roll(truth, rng.integers(-2, 3, 2), (0, 1))
    values = np.unique(ids[ids > 0])
    new = dict(zip(values.tolist(), draw_ids(rng, len(values), 9000).tolist())) if len(values) else {}
    predicted = np.vectorize(lambda value: new.get(value, 0), otypes=[np.int64])(ids)
    old = {new[value]: value for value in new}
    categories = {segment["id"]: segment["category_id"] for segment in segments}
    guessed = listed(predicted, rng)
    for segment in guessed:
        if rng.random() < 0.8 and old[segment["id"]] in categories:
            segment["category_id"] = categories[old[segment["id"]]]
    return predicted, guessed


def usual(rng, largest=5000, crowd=0.0, void=0.2, count=9):
    ids = draw_ids(rng, count, largest)
    ids[1:][rng.random(count - 1) < void] = 0
    truth = ids[blobs(rng, count)]
    segments = listed(truth, rng, crowd)
    return truth, segments, *guess(rng, truth, segments)


def void_only(rng):
    _, _, predicted, guessed = usual(rng)
    nothing = np.zeros((HEIGHT, WIDTH), np.int64)
    return (nothing, [], predicted, guessed) if rng.random() < 0.8 else (nothing, [], nothing, [])


def crowds(rng):
    return usual(rng, crowd=0.6, void=0.3)


def one_pixel(rng):
    truth, segments, predicted, guessed = usual(rng)
    for ids, entries in ((truth, segments), (predicted, guessed)):
        for number in range(6):
            ids[rng.integers(0, HEIGHT), rng.integers(0, WIDTH)] = 20000 + number
        areas = dict(zip(*(values.tolist() for values in np.unique(ids, return_counts=True))))
        entries[:] = [{**entry, "area": areas[entry["id"]]} for entry in entries if entry["id"] in areas]
        entries += [
            {"id": 20000 + n, "category_id": 1 + n, "area": areas[20000 + n], "iscrowd": 0}
            for n in range(6)
            if 20000 + n in areas
        ]
    return truth, segments, predicted, guessed


def large_ids(rng):
    truth, segments, predicted, guessed = usual(rng)
    scaled = []
    for ids, entries in ((truth, segments), (predicted, guessed)):
        # Ids that differ in one color only, and the largest there is.
        values = np.unique(ids[ids > 0])
        new = [LARGEST, LARGEST - 1, 255, 256, 65535, 65536, 2**16 * 255, 257, 512, 2**19, 2**19 - 1][: len(values)]
        table = {0: 0, **dict(zip(values.tolist(), new))}
        scaled.append(np.vectorize(table.get, otypes=[np.int64])(ids))
        entries[:] = [{**entry, "id": table[entry["id"]]} for entry in entries]
    return scaled[0], segments, scaled[1], guessed


def many(rng):
    """255 segments each, of a pixel or a few."""
    pixels = rng.permutation(HEIGHT * WIDTH)
    truth = np.zeros(HEIGHT * WIDTH, np.int64)
    truth[pixels] = np.arange(HEIGHT * WIDTH) % 255 + 1
    truth = truth.reshape(HEIGHT, WIDTH)
    segments = listed(truth, rng, 0.1)
    predicted = truth.copy()
    wrong = rng.random(truth.shape) < 0.3
    predicted[wrong] = np.roll(truth, 1)[wrong]
    present = set(np.unique(predicted).tolist())
    return truth, segments, predicted, [copy.deepcopy(s) for s in segments if s["id"] in present]


def nothing_predicted(rng):
    truth, segments, _, _ = usual(rng, crowd=0.2)
    return truth, segments, np.zeros_like(truth), []


def nothing_true(rng):
    """No instances, but stuff over the whole picture."""
    truth = np.full((HEIGHT, WIDTH), 7, np.int64)
    segments = [{"id": 7, "category_id": 7, "area": HEIGHT * WIDTH, "iscrowd": 0}]
    return truth, segments, *guess(rng, truth, segments)


def half_iou(rng):
    """A prediction that shares 2/3 of the area of two segments of equal size has an IoU of exactly a half."""
    truth, predicted = np.zeros((2, HEIGHT, WIDTH), np.int64)
    row = int(rng.integers(0, HEIGHT - 4))
    width = int(rng.integers(1, 4)) * 3
    truth[row : row + 3, :width], predicted[row : row + 3, width // 3 : width + width // 3] = 5, 6
    # Not void outside of them, so that the prediction's other third counts.
    truth[truth == 0] = 1
    truth[HEIGHT - 1, WIDTH - int(rng.integers(1, 3)) :] = 0
    predicted[HEIGHT - 1] = 3
    category = int(rng.integers(1, 8))
    segments = listed(truth, rng)
    for segment in segments:
        segment["category_id"] = category if segment["id"] == 5 else category % 7 + 1
    guessed = [{"id": 6, "category_id": category}, {"id": 3, "category_id": category % 7 + 1}]
    if rng.random() < 0.5:  # One pixel more, or one less.
        predicted[row, width // 3 - 1 if rng.random() < 0.5 else width // 3] = 6 if rng.random() < 0.5 else 0
    return truth, segments, predicted, guessed


def half_void(rng):
    """A prediction of which exactly half lies in void, or in a crowd, or in both together."""
    truth, predicted = np.full((2, HEIGHT, WIDTH), 1, np.int64)
    truth[:, : WIDTH // 2] = 0
    if rng.random() < 0.5:
        truth[: HEIGHT // 2, : WIDTH // 2] = 2
    predicted[:] = 0
    predicted[2:14, WIDTH // 2 - 4 : WIDTH // 2 + 4] = 8
    category = int(rng.integers(1, 8))
    segments = listed(truth, rng)
    for segment in segments:
        segment.update({"category_id": category if segment["id"] == 2 else category % 7 + 1})
        segment["iscrowd"] = int(segment["id"] == 2)
    if rng.random() < 0.5:  # One pixel more, or one less.
        predicted[5, WIDTH // 2 - (5 if rng.random() < 0.5 else 4)] ^= 8
    return truth, segments, predicted, [{"id": 8, "category_id": category}]


def odd_truth(rng):
    """What panopticapi takes of a truth although JSON and PNG differ."""
    truth, segments, predicted, guessed = usual(rng, crowd=0.3)
    kind = rng.integers(0, 5)
    if kind == 0 and len(segments) > 1:
        segments.pop(int(rng.integers(0, len(segments))))
    elif kind == 1:
        segments.append({"id": 123456, "category_id": 1, "area": 9, "iscrowd": int(rng.integers(0, 2))})
    elif kind == 2:
        segments[0]["category_id"] = 99
    elif kind == 3:
        segments[0]["area"] = max(1, int(segments[0]["area"] * rng.random() * 2))
    else:
        segments.append({"id": 0, "category_id": 2, "area": int((truth == 0).sum()) or 1, "iscrowd": 0})
    return truth, segments, predicted, guessed


def not_in_json(rng):
    truth, segments, predicted, guessed = usual(rng)
    guessed.pop(int(rng.integers(0, len(guessed))))
    return truth, segments, predicted, guessed


def not_in_png(rng):
    truth, segments, predicted, guessed = usual(rng)
    guessed.append({"id": int(rng.choice([70000, LARGEST, 2**24, 0])), "category_id": 1})
    predicted[predicted == 0] = guessed[0]["id"]
    return truth, segments, predicted, guessed


def unknown_class(rng):
    truth, segments, predicted, guessed = usual(rng)
    guessed[int(rng.integers(0, len(guessed)))]["category_id"] = 42
    return truth, segments, predicted, guessed


KINDS = [
    usual, void_only, crowds, one_pixel, large_ids, many, nothing_predicted, nothing_true, half_iou, half_void,
    odd_truth, lambda rng: usual(rng, largest=LARGEST, crowd=0.3), not_in_json, not_in_png, unknown_class,
]  # fmt: skip


def colors(ids):
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def of_panopticapi(evaluation, folder, truth, segments, predicted, guessed):
    """Sum of IoU, TP, FP and FN of each class, [7, 4]; or how it refuses the prediction."""
    for name, ids in (("gt.png", truth), ("pred.png", predicted)):
        Image.fromarray(colors(ids)).save(f"{folder}/{name}")
    pair = (
        {"image_id": 1, "file_name": "gt.png", "segments_info": copy.deepcopy(segments)},
        {"image_id": 1, "file_name": "pred.png", "segments_info": copy.deepcopy(guessed)},
    )
    categories = {category["id"]: category for category in CATEGORIES}
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = evaluation.pq_compute_single_core(0, [pair], folder, folder, categories)
    except KeyError as error:
        return error.args[0]
    rows = [found.pq_per_cat[category] for category in categories]
    return [[float(row.iou), int(row.tp), int(row.fp), int(row.fn)] for row in rows]


def main(panopticapi):
    sys.path.insert(0, panopticapi)
    from panopticapi import evaluation

    rng = np.random.default_rng(20261130)
    maps, facts = [], []
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            for _ in range(EACH):
                truth, segments, predicted, guessed = kind(rng)
                result = of_panopticapi(evaluation, folder, truth, segments, predicted, guessed)
                maps.append([truth, predicted])
                facts.append({"truth": segments, "prediction": guessed, "result": result})
    content = json.dumps({"categories": CATEGORIES, "cases": facts}).encode()
    path = pathlib.Path(__file__).parent / "panoptic_cases.npz"
    np.savez_compressed(path, maps=np.array(maps, np.int32), facts=np.frombuffer(content, np.uint8))
    refused = sum(isinstance(each["result"], str) for each in facts)
    print(f"{len(facts)} cases, of which panopticapi refuses {refused}")


if __name__ == "__main__":
    main(sys.argv[1])
