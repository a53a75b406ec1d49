"""The manifest says what was written, from what and how."""

import hashlib
import json

from deeplab2_kmax import __version__
from deeplab2_kmax.converters.cityscapes import convert_cityscapes
from deeplab2_kmax.converters.coco import convert_coco
from deeplab2_kmax.converters.shapes import convert_shapes


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())["splits"]


def sha256(*paths):
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def test_counts_sources_and_settings(coco, tmp_path):
    out = tmp_path / "out"
    coco.add_image("test", "t")
    convert_coco(str(coco.root), str(out), treat_crowd_as_ignore=False, num_shards=2, num_processes=1)
    splits = manifest_of(out)
    assert list(splits) == ["train", "val", "test"]
    train = splits["train"]
    assert (train["converter"], train["version"], train["source"]) == ("coco", __version__, str(coco.root))
    assert (train["dataset"], train["label_divisor"], train["ignore_label"]) == ("coco_panoptic", 256, 0)
    assert train["settings"] == {"treat_crowd_as_ignore": False}
    assert (train["images"], train["labelled_images"]) == (2, 2)
    assert train["annotations"] == {"annotations/panoptic_train2017.json": sha256(coco.json_path("train"))}
    assert train["shards"] == [
        {
            "name": f"train-0000{number}-of-00002.tfrecord",
            "images": 1,
            "bytes": (out / f"train-0000{number}-of-00002.tfrecord").stat().st_size,
            "source_sha256": sha256(coco.image_path("train", name), coco.png_path("train", name)),
        }
        for number, name in enumerate("ab")
    ]
    # a: sky, two persons; b: a dog, a crowd of dogs. What is left is void.
    counts = {c["name"]: (c["id"], c["images"], c["segments"], c["pixels"]) for c in train["classes"] if c["images"]}
    assert counts == {
        "person": (1, 1, 2, 90 + 180),
        "dog": (17, 1, 2, 90 + 180),
        "rug-merged": (133, 1, 1, 256),
        "void": (0, 2, 2, 2 * 24 * 32 - 2 * 270 - 256),
    }
    assert len(train["classes"]) == 134
    assert (splits["test"]["images"], splits["test"]["labelled_images"]) == (1, 0)
    assert "classes" not in splits["test"] and splits["test"]["annotations"] == {}


def test_semantic_labels_are_counted(cityscapes, tmp_path):
    convert_cityscapes(str(cityscapes.root), str(tmp_path / "out"), create_panoptic_data=False)
    val = manifest_of(tmp_path / "out")["val"]
    assert val["settings"] == {"create_panoptic_data": False} and val["annotations"] == {}
    counts = {c["name"]: (c["id"], c["images"], c["segments"], c["pixels"]) for c in val["classes"] if c["images"]}
    assert counts == {"sky": (10, 1, 1, 256), "void": (255, 1, 1, 512)}


def test_splits_of_other_runs_stay(tmp_path):
    convert_shapes(str(tmp_path), num_train=3, num_val=2, size=33)
    before = manifest_of(tmp_path)
    convert_shapes(str(tmp_path), num_train=0, num_val=4, size=33, seed=1)
    after = manifest_of(tmp_path)
    assert after["train"] == before["train"] and before["train"]["settings"]["seed"] == 0
    assert after["val"]["images"] == 4 and after["val"]["settings"]["seed"] == 1
