"""Cityscapes and ADE20K: records equal those that DeepLab2's converters wrote for the same trees."""

import hashlib
import json
import os

import pytest
import tensorflow as tf

from deeplab2_kmax.converters.ade20k import convert_ade20k
from deeplab2_kmax.converters.cityscapes import convert_cityscapes

CASES = {
    "cityscapes_ignore": (convert_cityscapes, {}),
    "cityscapes_crowd": (convert_cityscapes, {"treat_crowd_as_ignore": False}),
    "cityscapes_semantic": (convert_cityscapes, {"create_panoptic_data": False}),
    "ade20k_ignore": (convert_ade20k, {}),
    "ade20k_crowd": (convert_ade20k, {"treat_crowd_as_ignore": False}),
}
LABEL = "image/segmentation/class/encoded"


@pytest.mark.parametrize("case", CASES)
def test_records_equal_deeplab2s(case, golden_tree, golden, tmp_path, examples):
    convert, options = CASES[case]
    expected = json.loads((golden / "converted_labels.json").read_text())
    tree = golden_tree(case.split("_")[0])
    written = {}
    for path in convert(str(tree.root), str(tmp_path / "out"), num_processes=1, **options):
        split = os.path.basename(path).split("-")[0]
        written.update({f"{split}/{name}": example.features.feature for name, example in examples([path]).items()})
    assert {name: _label_sha256(feature) for name, feature in written.items()} == expected["labels"][case]
    for name, feature in written.items():
        kind = "labelled" if LABEL in feature else "unlabelled"
        assert {key: f.WhichOneof("kind") for key, f in feature.items()} == expected["keys"][kind]
        scalars = {key: _value(f) for key, f in feature.items() if not key.endswith(("encoded", "filename"))}
        assert scalars == expected["scalars"][f"{case} {kind}"]
        image = tree.image_path(*name.split("/")).read_bytes()
        is_grey = case.startswith("ade20k") and name.endswith("2")
        assert (feature["image/encoded"].bytes_list.value[0] == image) != is_grey


def test_cityscapes_shards_are_named_as_deeplab2s(golden_tree, tmp_path):
    tree = golden_tree("cityscapes")
    for split in ("val", "test"):
        (tree.root / "leftImg8bit" / split).rename(tmp_path / split)
    for number in range(5):
        tree.add("train", f"ulm_000000_{number:06d}", [])
    paths = convert_cityscapes(str(tree.root), str(tmp_path / "out"), num_processes=1)
    assert [os.path.basename(path) for path in paths] == [f"train-{i:05d}-of-00010.tfrecord" for i in range(10)]


def _label_sha256(feature):
    """The hash of the raw panoptic label, or of a PNG label's pixels; None without label."""
    if LABEL not in feature:
        return None
    encoded = _value(feature[LABEL], text=False)
    if _value(feature["image/segmentation/class/format"]) == "png":
        encoded = tf.io.decode_image(encoded).numpy().tobytes()
    return hashlib.sha256(encoded).hexdigest()


def _value(feature, text=True):
    (value,) = getattr(feature, feature.WhichOneof("kind")).value
    return value.decode() if text and isinstance(value, bytes) else value
