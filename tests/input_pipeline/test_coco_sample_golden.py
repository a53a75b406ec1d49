"""Evaluation input of two real COCO images against what DeepLab2 makes of them."""

import hashlib
import json
import pathlib

import numpy as np
import pytest

from deeplab2_kmax.converters.coco import convert_coco
from deeplab2_kmax.input_pipeline import build_dataset
from deeplab2_kmax.protos import dataset_pb2

REPOSITORY = pathlib.Path(__file__).parents[2]
SAMPLE = REPOSITORY.parent / "shared" / "coco_sample"
GOLDEN = REPOSITORY / "tests" / "golden"
# Targets of Panoptic-DeepLab, which mask transformers have no use for.
NOT_OURS = {"center_loss_weight", "instance_center_gt", "instance_regression_gt", "regression_loss_weight"}


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    convert_coco(SAMPLE, folder, num_processes=1)
    options = dataset_pb2.DatasetOptions(
        dataset="coco_panoptic",
        file_pattern=[str(folder / "val-*")],
        batch_size=1,
        crop_size=[641, 641],
        min_resize_value=[641],
        max_resize_value=[641],
    )
    return {batch["image_name"][0].numpy().decode(): batch for batch in build_dataset(options, is_training=False)}


@pytest.mark.skipif(not SAMPLE.exists(), reason="needs the real images of ../shared/coco_sample")
@pytest.mark.parametrize("name", ["000000142238", "000000439180"])
def test_real_images_equal_deeplab2s_input(batches, name):
    expected = json.loads((GOLDEN / "coco_sample_eval641.json").read_text())[name]
    batch = {key: value.numpy() for key, value in batches[name].items()}
    assert set(expected) - set(batch) == NOT_OURS
    assert set(batch) - set(expected) == {"size_resized"}
    for key in set(expected) & set(batch):
        facts, got = expected[key], batch[key]
        assert list(got.shape) == facts["shape"], key
        if "sha256" in facts:
            assert hashlib.sha256(got.astype(np.int32).tobytes()).hexdigest() == facts["sha256"], key
        elif "mean" in facts:
            assert got.mean(dtype=np.float64) == pytest.approx(facts["mean"], abs=1e-2), key
            assert (got.min(), got.max()) == (facts["min"], facts["max"]), key
    assert not batch["is_crowd_gt"].any() and not batch["is_crowd_raw"].any()
    with np.load(GOLDEN / f"coco_sample_eval641_{name}.npz") as every_fourth:
        np.testing.assert_allclose(batch["image"][0, ::4, ::4], every_fourth["image"], atol=1e-2)
        for key in ("semantic_gt", "thing_id_mask_gt"):
            np.testing.assert_array_equal(batch[key][0, ::4, ::4], every_fourth[key])
        np.testing.assert_array_equal(batch["thing_id_class_gt"][0], every_fourth["thing_id_class_gt"])
        np.testing.assert_array_equal(batch["size_raw"][0], every_fourth["size_raw"])
