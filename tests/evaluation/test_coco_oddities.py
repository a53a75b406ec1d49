"""Files in COCO's format in which something is wrong: the truth counts as in panopticapi, the prediction is refused.

All figures here are panopticapi's (at 7bb4655, with NumPy 1.26), and can be checked by hand.
"""

import copy
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.datasets.segment_colors import ids_to_colors
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation import coco_format
from deeplab2_kmax.evaluation.coco_format import coco_panoptic_quality
from deeplab2_kmax.evaluation.report import quality_json, quality_table
from deeplab2_kmax.evaluation.scoring import rust_engine

CAT, DOG, SKY = 1, 2, 3
# A digit is the segment id of a pixel; 0 is void.
TRUTH = """
1111111111
1111111111
2222222222
3333300000"""
PREDICTION = """
1111111122
1111111122
2222222222
3333333333"""
# By category: sum of IoU, TP, FP, FN. The cat: 16 of 20 pixels; the dog: 10 of 14; the sky's void does not count.
FIGURES = {CAT: (0.8, 1, 0, 0), DOG: (10 / 14, 1, 0, 0), SKY: (1, 1, 0, 0)}
INFINITE = float("inf")


def label_map(text):
    return np.array([list(map(int, line)) for line in text.split()])


class Case:
    """Truth and prediction of an image, to be edited and then written as files."""

    def __init__(self):
        names = ((CAT, "cat", 1), (DOG, "dog", 1), (SKY, "sky", 0))
        self.categories = [{"id": i, "name": name, "isthing": thing} for i, name, thing in names]
        self.true_map, self.predicted_map = label_map(TRUTH), label_map(PREDICTION)
        areas = ((1, CAT, 20), (2, DOG, 10), (3, SKY, 5))
        self.true = [{"id": i, "category_id": c, "area": area, "iscrowd": 0} for i, c, area in areas]
        self.predicted = [{"id": i, "category_id": c} for i, c, _ in areas]
        self.truth = {
            "categories": self.categories,
            "annotations": [{"image_id": 7, "file_name": "7.png", "segments_info": self.true}],
        }
        self.prediction = {"annotations": [{"image_id": 7, "file_name": "7.png", "segments_info": self.predicted}]}

    def score(self, folder, save=Image.Image.save):
        """The result; `save(image, path)` writes the PNGs."""
        for name, content, ids in (
            ("gt", self.truth, self.true_map),
            ("pred", self.prediction, self.predicted_map),
        ):
            (folder / name).mkdir()
            (folder / f"{name}.json").write_text(json.dumps(content))
            save(Image.fromarray(ids_to_colors(ids)), folder / name / "7.png")
        return coco_panoptic_quality(folder / "gt.json", folder / "pred.json")


@pytest.fixture(params=["our own engine", "hotcoco"], autouse=True)
def engine(request, monkeypatch):
    """What is odd counts alike, and is refused alike, where hotcoco counts the rest."""
    if request.param == "hotcoco":
        pytest.importorskip("hotcoco")
        monkeypatch.setattr(coco_format, "score_pairs", rust_engine.score_pairs)


@pytest.fixture
def case():
    return Case()


def figures(result):
    rows = zip(result.descriptor.classes, result.iou, result.tp, result.fp, result.fn)
    return {c.id: row for c, *row in rows}


def assert_figures(result, expected):
    got = figures(result)
    assert got.keys() == expected.keys()
    for category, row in expected.items():
        assert got[category] == pytest.approx(row, abs=1e-12), category


def dog(**changes):
    """An edit of the true dog."""
    return lambda case: case.true[1].update(changes)


def cat(**changes):
    """An edit of the true cat."""
    return lambda case: case.true[0].update(changes)


def more(**segment):
    """An edit that lists one more true segment."""
    return lambda case: case.true.append({"category_id": DOG, "area": 4, "iscrowd": 0, **segment})


def two_dogs_crowd(case):
    case.true[1].update(iscrowd=1)
    more(id=9, iscrowd=1)(case)


def void_is_crowd(case):
    # The predicted sky lies in void by exactly half, which does not excuse it. As a crowd, void counts twice.
    case.true[2].update(category_id=DOG)
    more(id=0, category_id=SKY, iscrowd=1)(case)


def area_of_two_matches(case):
    # Predictions of 12 and of 26 pixels match one true cat: it has all 40 pixels and, by its JSON, an area of 14.
    case.true_map[2:] = 1
    case.predicted_map = label_map("4444444444 4455555555 5555555555 5555555500")
    case.true[:] = [{"id": 1, "category_id": CAT, "area": 14, "iscrowd": 0}]
    case.predicted[:] = [{"id": 4, "category_id": CAT}, {"id": 5, "category_id": CAT}]


TRUTHS = {
    "as it should be": (lambda case: None, {}),
    "a segment of the PNG is not in the JSON": (lambda case: case.true.pop(1), {DOG: (0, 0, 1, 0)}),
    "a segment of the JSON is not in the PNG": (more(id=9), {DOG: (10 / 14, 1, 0, 1)}),
    "an id of 2^24": (more(id=2**24), {DOG: (10 / 14, 1, 0, 1)}),
    "an id of 2^31": (more(id=2**31), {DOG: (10 / 14, 1, 0, 1)}),
    "an id of 2^31 in place of its own": (dog(id=2**31), {DOG: (0, 0, 1, 1)}),
    "a negative id": (more(id=-1), {DOG: (10 / 14, 1, 0, 1)}),
    "an id that is a text": (more(id="2"), {DOG: (10 / 14, 1, 0, 1)}),
    "an id of void that matches": (more(id=0, category_id=SKY, area=5), {SKY: (2, 2, 0, 0)}),
    "an id of void that is missed": (more(id=0), {DOG: (10 / 14, 1, 0, 1)}),
    "an id of void that is a crowd": (void_is_crowd, {DOG: (10 / 14, 1, 0, 1), SKY: (0, 0, 0, 0)}),
    "an unknown category": (dog(category_id=99), {DOG: (0, 0, 1, 0)}),
    "a category of 2^31": (dog(category_id=2**31), {DOG: (0, 0, 1, 0)}),
    "an unknown category of a crowd": (dog(category_id=99, iscrowd=1), {DOG: (0, 0, 1, 0)}),
    "a segment twice": (more(id=2, area=10), {}),
    "a segment twice, differently": (more(id=2, category_id=CAT), {CAT: (0.8, 1, 0, 1), DOG: (0, 0, 1, 0)}),
    "an area that is too large": (cat(area=40), {CAT: (0, 0, 1, 1)}),
    "an area that is too small": (cat(area=18), {CAT: (16 / 18, 1, 0, 0)}),
    "an area that is no whole number": (cat(area=19.5), {CAT: (16 / 19.5, 1, 0, 0)}),
    "an area of 2^31": (cat(area=2**31), {CAT: (0, 0, 1, 1)}),
    "an area without end": (cat(area=INFINITE), {CAT: (0, 0, 1, 1)}),
    "an area of thousands of digits": (cat(area=10**400), {CAT: (0, 0, 1, 1)}),
    "an area that is not a number": (cat(area=float("nan")), {CAT: (0, 0, 1, 1)}),
    "a negative area": (cat(area=-5), {CAT: (0, 0, 1, 1)}),
    "an area of 0": (cat(area=0), {CAT: (INFINITE, 1, 0, 0)}),
    "two matches of one segment": (area_of_two_matches, {CAT: (38 / 14, 2, 0, 0), DOG: 4 * (0,), SKY: 4 * (0,)}),
    "a crowd": (dog(iscrowd=1), {DOG: (0, 0, 0, 0)}),
    "a crowd by a word": (dog(iscrowd=True), {DOG: (0, 0, 0, 0)}),
    "a text is no crowd": (dog(iscrowd="1"), {}),
    "2 is no crowd": (dog(iscrowd=2), {}),
    "the last crowd excuses, though it is not in the PNG": (two_dogs_crowd, {DOG: (0, 0, 1, 0)}),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "expected"), TRUTHS.values(), ids=TRUTHS)
def test_truth_counts_as_in_panopticapi(case, tmp_path, edit, expected):
    edit(case)
    assert_figures(case.score(tmp_path), {**FIGURES, **expected})


@pytest.mark.parametrize("segment", [{}, {"area": None}, {"area": "20"}])
def test_an_area_that_is_missing_is_counted_and_no_flag_is_no_crowd(case, tmp_path, segment):
    """Panopticapi ends with an error here."""
    case.true[0] = {"id": 1, "category_id": CAT, **segment}
    assert_figures(case.score(tmp_path), FIGURES)


def test_a_true_image_twice_counts_twice(case, tmp_path):
    case.truth["annotations"] *= 2
    assert_figures(case.score(tmp_path), {c: tuple(2 * value for value in row) for c, row in FIGURES.items()})


def test_categories_as_in_panopticapi(case, tmp_path):
    # 2^31 is an id like any other; of one id that stands twice, the last says whether it is a thing; 2 is no flag.
    case.categories[2].update(id=2**31, name="cat")
    case.true[2]["category_id"] = case.predicted[2]["category_id"] = 2**31
    case.categories[1] = {"id": DOG, "isthing": 2}
    case.categories.append({"id": CAT, "name": "cat", "isthing": 0})
    result = case.score(tmp_path)
    assert_figures(result, {CAT: FIGURES[CAT], DOG: FIGURES[DOG], 2**31: FIGURES[SKY]})
    assert result.things == (0, 0, 0, 0)
    assert result.stuff == pytest.approx(((0.8 + 10 / 14 + 1) / 3, (0.8 + 10 / 14 + 1) / 3, 1, 3))
    # Names that are equal, or missing, are told apart, as results are kept by name.
    names = ["cat (1)", "category 2", "cat (2147483648)"]
    assert list(quality_json(result)["panoptic_quality"]["per_class"]) == names
    assert all(name in quality_table(result, per_class=True) for name in names)


def with_alpha(image, path):
    image.putalpha(3)
    image.save(path)


def turned(image, path):
    # By EXIF alone, and only one of the two. It does not count.
    exif = Image.Exif()
    exif[0x0112] = 6 if path.parent.name == "gt" else 1
    image.save(path, exif=exif)


def of_16_bits(image, path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in (np.asarray(image, np.int32) * 256 + 17).astype(">u2"))
    head = struct.pack(">IIBBBBB", *image.size, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize("save", [with_alpha, turned, of_16_bits])
def test_pngs_count_as_they_are_stored(case, tmp_path, save):
    assert_figures(case.score(tmp_path, save), FIGURES)


def predicted_void(case):
    # Void that is listed is a segment like any other: 5 of its 10 pixels are the true sky's, 5 are void.
    case.predicted_map[3] = 0
    case.predicted[2]["id"] = 0


def predicted_twice(case):
    case.predicted.append({"id": 2, "category_id": SKY})


def image_twice(case):
    other = copy.deepcopy(case.prediction["annotations"][0])
    other["segments_info"][1]["category_id"] = CAT
    case.prediction["annotations"].append(other)


PREDICTIONS = {
    "void that is listed": (predicted_void, {}),
    "a segment twice, of which the last counts": (predicted_twice, {DOG: (0, 0, 0, 1), SKY: (1, 1, 1, 0)}),
    "an image twice, of which the last counts": (image_twice, {CAT: (0.8, 1, 1, 0), DOG: (0, 0, 0, 1)}),
    "areas and crowds do not count": (lambda case: case.predicted[0].update(area="-", iscrowd="0"), {}),
    "an image that the truth lacks": (lambda case: case.prediction["annotations"].append({"image_id": 8}), {}),
    "categories are those of the truth": (lambda case: case.prediction.update(categories=[{"id": [1]}, 3]), {}),
}


@pytest.mark.parametrize(("edit", "expected"), PREDICTIONS.values(), ids=PREDICTIONS)
def test_prediction_counts_as_in_panopticapi(case, tmp_path, edit, expected):
    edit(case)
    assert_figures(case.score(tmp_path), {**FIGURES, **expected})


def predicted(number, **changes):
    return lambda case: case.predicted[number].update(changes)


def without(number, field):
    return lambda case: case.predicted[number].pop(field)


def more_predicted(segment_id):
    return lambda case: case.predicted.append({"id": segment_id, "category_id": DOG})


REFUSED_PREDICTIONS = {
    "a segment of the PNG is not in the JSON": (
        lambda case: case.predicted.pop(1),
        r"pred/7.png: segment 2 is in the PNG but not in its JSON; expected .*, got 14 pixels of .* List it",
    ),
    "a segment of the JSON is not in the PNG": (
        more_predicted(9),
        r"pred/7.png: segment 9 is in the JSON but not in its PNG; expected .*, got none of this id. Take it out",
    ),
    "an id of 2^24": (more_predicted(2**24), "segment 16777216 is in the JSON .* numbers up to 16,777,215"),
    "an id of 2^31": (predicted(2, id=2**31), "segment 3 is in the PNG but not in its JSON"),
    "an id that is a text": (more_predicted("2"), "segment '2' is in the JSON but not in its PNG"),
    "an id that is a list": (
        predicted(1, id=[2]),
        r"pred/7.png: segments_info, entry 1: expected a number as id, got \[2\]",
    ),
    "void that the PNG does not have": (more_predicted(0), "segment 0 is in the JSON but not in its PNG"),
    "an unknown category": (predicted(1, category_id=9), "pred/7.png: segment 2 has category 9, which is unknown"),
    "a category that is a text": (predicted(1, category_id="2"), "segment 2 has category '2', which is unknown"),
    "a category that is a list": (
        predicted(1, category_id=[2]),
        r"segment 2: expected a number as category_id, got \[2\]",
    ),
    "no category": (
        without(1, "category_id"),
        "pred/7.png: segment 2: expected an object with category_id, got {'id': 2}",
    ),
    "no id": (
        without(1, "id"),
        "pred/7.png: segments_info, entry 1: expected an object with id, got {'category_id': 2}",
    ),
    "another height": (
        lambda case: setattr(case, "predicted_map", case.predicted_map[1:]),
        r"pred/7.png: expected the size of .*gt/7.png, \[4, 10\]; got \[3, 10\]. Bring",
    ),
    # NumPy, and with it panopticapi, would repeat the row.
    "a single row": (
        lambda case: setattr(case, "predicted_map", label_map("1111223333")[:1]),
        r"expected the size of .*, \[4, 10\]; got \[1, 10\]",
    ),
    "no annotation of the image": (
        lambda case: case.prediction["annotations"][0].update(image_id="7"),
        "pred.json: expected a prediction for each image .*got none for image 7$",
    ),
    "no PNG of this name": (
        lambda case: case.prediction["annotations"][0].update(file_name="8.png"),
        "pred/8.png: cannot read the panoptic PNG: No such file",
    ),
    "a name that is a number": (
        lambda case: case.prediction["annotations"][0].update(file_name=8),
        "pred.json: annotation of image 7: expected the name of a PNG as file_name, got 8",
    ),
    "segments that are no list": (
        lambda case: case.prediction["annotations"][0].update(segments_info=None),
        "pred.json: annotation of image 7: expected a list as segments_info, got None",
    ),
    "an annotation without image": (
        lambda case: case.prediction["annotations"].append({}),
        "pred.json: annotation 1: expected an object with image_id, got {}",
    ),
}


@pytest.mark.parametrize(("edit", "message"), REFUSED_PREDICTIONS.values(), ids=REFUSED_PREDICTIONS)
def test_refuses_predictions_in_one_line(case, tmp_path, edit, message):
    edit(case)
    with pytest.raises(DataError, match=message) as error:
        case.score(tmp_path)
    assert "\n" not in str(error.value)


def flipped(place):
    def spoil(content):
        content[place] ^= 1
        return content

    return spoil


def huge(content):
    """Says, with the right checksum, that it is 60,000 x 60,000 pixels large."""
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return content


BROKEN = {
    "no file at all": lambda content: b"",
    "cut in its header": lambda content: content[:20],
    "cut in its data": lambda content: content[:60],
    "a wrong start": flipped(3),
    "a wrong checksum of the header": flipped(30),
    "wrong data": flipped(50),
    "huge": huge,
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_refuses_broken_pngs(case, tmp_path, spoil):
    def save(image, path):
        image.save(path)
        if path.parent.name == "pred":
            path.write_bytes(bytes(spoil(bytearray(path.read_bytes()))))

    with pytest.raises(DataError, match="pred/7.png: expected a "):
        case.score(tmp_path, save)


@pytest.mark.parametrize("mode", ["P", "L", "LA", "1"])
def test_refuses_pictures_without_three_channels(case, tmp_path, mode):
    def save(image, path):
        (image.convert(mode) if path.parent.name == "pred" else image).save(path)

    with pytest.raises(DataError, match=f"pred/7.png: expected an RGB PNG .*, got PNG of mode {mode}; save"):
        case.score(tmp_path, save)


REFUSED_TRUTHS = {
    "no segment id": (
        lambda case: case.true[0].pop("id"),
        "gt/7.png: segments_info, entry 0: expected an object with id",
    ),
    "no category": (
        lambda case: case.true[0].pop("category_id"),
        "gt/7.png: segment 1: expected an object with category_id",
    ),
    "no isthing": (
        lambda case: case.categories[0].pop("isthing"),
        r"gt.json: category 1 \(cat\): expected the field isthing",
    ),
    "no category id": (
        lambda case: case.categories[1].pop("id"),
        "gt.json: category 1: expected an object with id, got",
    ),
    "no categories": (
        lambda case: case.truth.pop("categories"),
        'gt.json: expected the classes under "categories", got none',
    ),
    "no image id": (
        lambda case: case.truth["annotations"][0].pop("image_id"),
        "gt.json: annotation 0: expected file_name, .* missing: image_id",
    ),
}


@pytest.mark.parametrize(("edit", "message"), REFUSED_TRUTHS.values(), ids=REFUSED_TRUTHS)
def test_names_what_a_truth_lacks(case, tmp_path, edit, message):
    edit(case)
    with pytest.raises(DataError, match=message):
        case.score(tmp_path)
