"""The Cityscapes converter: labels by hand, and broken trees that are named."""

import json

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.converters.cityscapes import convert_cityscapes
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records import schema

AACHEN, BOCHUM, MUNSTER = "aachen_000000_000019", "bochum_000000_000313", "munster_000001_000019"
VOID = 255 * 1000


@pytest.mark.parametrize("treat_crowd_as_ignore", [True, False])
def test_labels_of_things_stuff_crowd_and_void(cityscapes, tmp_path, examples, label_of, treat_crowd_as_ignore):
    cityscapes.add_image("test", "berlin_000000_000019")
    options = {"treat_crowd_as_ignore": treat_crowd_as_ignore, "num_processes": 1}
    written = examples(convert_cityscapes(str(cityscapes.root), str(tmp_path / "out"), **options))
    # Ordered by city; called as evaluation expects it, without _leftImg8bit.
    assert list(written) == [AACHEN, BOCHUM, MUNSTER, "berlin_000000_000019"]
    expected = np.full((24, 32), VOID, np.int32)
    expected[:8] = 10 * 1000
    expected[10:20, :9] = 11 * 1000 + 1
    expected[10:20, 12:30] = 11 * 1000 + 2
    np.testing.assert_array_equal(label_of(written[AACHEN]), expected)
    crowd = VOID if treat_crowd_as_ignore else 13 * 1000
    assert label_of(written[BOCHUM])[12, 3] == crowd
    assert set(np.unique(label_of(written[BOCHUM]))) == {VOID, crowd, 13 * 1000 + 1}
    assert schema.LABEL_ENCODED not in written["berlin_000000_000019"].features.feature


def test_semantic_labels_are_the_train_id_pngs(cityscapes, tmp_path, examples):
    # The panoptic files are not needed then.
    cityscapes.json_path("train").unlink()
    paths = convert_cityscapes(str(cityscapes.root), str(tmp_path / "out"), create_panoptic_data=False)
    for name, example in examples(paths).items():
        split = "val" if name == MUNSTER else "train"
        feature = example.features.feature
        png = cityscapes.train_ids_path(split, name).read_bytes()
        assert feature[schema.LABEL_ENCODED].bytes_list.value[0] == png
        assert feature[schema.LABEL_FORMAT].bytes_list.value[0] == b"png"


def test_a_split_of_another_size_than_published_is_said(cityscapes, tmp_path, capsys):
    convert_cityscapes(str(cityscapes.root), str(tmp_path / "out"))
    assert "split train: 2 images found; the published split has 2975" in capsys.readouterr().out


def _rewrite(path, change):
    Image.fromarray(change(np.array(Image.open(path)))).save(path)


def _label_ids(cityscapes):
    """As csCreatePanopticImgs writes them without --use-train-id."""
    cityscapes.json["train"][0]["segments_info"][1]["category_id"] = 24
    cityscapes.save()


BREAKAGES = {
    "category": (
        _label_ids,
        f"{AACHEN}_gtFine_panoptic.png: segment 24000: expected the category_id of a class of .*got 24",
    ),
    "no json": (lambda c: c.json_path("val").unlink(), "val_trainId.json: no such file; .*--use-train-id"),
    "json cut": (lambda c: c.json_path("val").write_text('{"annot'), "val_trainId.json: expected JSON"),
    "no png": (lambda c: c.png_path("val", MUNSTER).unlink(), f"{MUNSTER}_gtFine_panoptic.png: no such file"),
    "other size": (
        lambda c: _rewrite(c.png_path("val", MUNSTER), lambda ids: np.pad(ids, ((0, 2), (0, 0), (0, 0)))),
        rf"{MUNSTER}_leftImg8bit.png: .*size, 32 x 24 pixels, got one of 32 x 26",
    ),
    "unlisted": (
        lambda c: c.add_image("train", "ulm_000000_000019"),
        "ulm_.*: expected an annotation in .*Id.json",
    ),
    "twice": (lambda c: c.json["train"].append(c.json["train"][0]) or c.save(), "expected one annotation an image"),
    "no image id": (
        lambda c: c.json_path("val").write_text(json.dumps({"annotations": [{"file_name": "a", "segments_info": []}]})),
        r"val_trainId.json: annotations\[0\]: expected the field image_id, which is missing",
    ),
    "same name": (
        lambda c: (
            (c.root / "leftImg8bit" / "train" / "ulm").mkdir()
            or (c.root / "leftImg8bit" / "train" / "ulm" / f"{AACHEN}_leftImg8bit.png").write_bytes(b"")
        ),
        f"ulm/{AACHEN}_leftImg8bit.png: expected image names that differ",
    ),
    "no images": (lambda c: c.image_path("val", MUNSTER).unlink(), r"leftImg8bit/val: expected images \*/\*_left"),
    "no split": (lambda c: c.root.rename(c.root.parent / "moved"), "cityscapes_root: expected at least one of"),
}
SEMANTIC_BREAKAGES = {
    "no png": (lambda c: c.train_ids_path("val", MUNSTER).unlink(), "TrainIds.png: no such file; .*csCreateTrainId"),
    "id": (
        lambda c: _rewrite(c.train_ids_path("val", MUNSTER), lambda ids: np.where(ids == 10, 33, ids)),
        f"{MUNSTER}_gtFine_labelTrainIds.png: class id 33 of 256 pixels: expected the id of a class",
    ),
    "color": (
        lambda c: _rewrite(c.train_ids_path("val", MUNSTER), lambda ids: np.stack([ids] * 3, -1)),
        "labelTrainIds.png: expected a grey PNG of class ids .*got PNG of mode RGB",
    ),
    "other size": (
        lambda c: _rewrite(c.train_ids_path("val", MUNSTER), lambda ids: ids[:20]),
        rf"{MUNSTER}_leftImg8bit.png: .*PNG label of the image's size, 32 x 24 pixels, got a PNG of 32 x 20",
    ),
    "cut": (
        lambda c: c.train_ids_path("val", MUNSTER).write_bytes(b"\x89PNG\r\n\x1a\n"),
        "labelTrainIds.png: expected a whole picture",
    ),
}
ALL_BREAKAGES = [(name, True) for name in BREAKAGES] + [(name, False) for name in SEMANTIC_BREAKAGES]


@pytest.mark.parametrize("name, panoptic", ALL_BREAKAGES)
def test_broken_input_is_named(cityscapes, tmp_path, name, panoptic):
    breakage, reason = (BREAKAGES if panoptic else SEMANTIC_BREAKAGES)[name]
    breakage(cityscapes)
    with pytest.raises(DataError, match=reason):
        convert_cityscapes(str(cityscapes.root), str(tmp_path / "out"), create_panoptic_data=panoptic, num_processes=1)
    assert not list(tmp_path.glob("out/*.tfrecord"))
