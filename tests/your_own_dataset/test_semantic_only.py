"""Data whose classes are all stuff trains and is evaluated; no instances are made up."""

import json

import numpy as np
import pytest

from deeplab2_kmax.config import load_config
from deeplab2_kmax.converters.folder import convert_folder
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.input_pipeline import build_dataset
from deeplab2_kmax.training import run_experiment as run

CLASSES = [{"id": n, "is_thing": False, "name": name} for n, name in enumerate(["ball", "box", "sky", "meadow"], 1)]


@pytest.fixture
def config(tmp_path, configs, make_folders, tiny_overrides):
    make_folders(tmp_path, 4)
    descriptor = tmp_path / "cityscapes_like.json"
    content = {"name": "own", "ignore_label": 0, "label_divisor": 256, "classes": CLASSES}
    descriptor.write_text(json.dumps(content))
    convert_folder(
        str(descriptor), str(tmp_path / "photos"), str(tmp_path / "semantic"), str(tmp_path / "r"), num_processes=1
    )
    overrides = [
        f"{split}_dataset_options.{field}={value}"
        for split in ("train", "eval")
        for field, value in [("dataset", descriptor), ("file_pattern", tmp_path / "r" / "train-*"), ("batch_size", 2)]
    ]
    overrides += ["model_options.max_deeplab.auxiliary_semantic_head.output_channels=5"]
    overrides += ["model_options.max_deeplab.transformer_decoder.num_blocks=0,0,1", "trainer_options.steps_per_loop=2"]
    overrides += ["trainer_options.solver_options.training_number_of_steps=2"]
    overrides += ["train_dataset_options.augmentations.panoptic_copy_paste.panoptic_copy_paste_scale=1.0"]
    return load_config(str(configs / "shapes" / "kmax_tiny.textproto"), [*tiny_overrides, *overrides])


def test_classes_alone_train_and_evaluate(config, tmp_path):
    batch = next(iter(build_dataset(config.train_dataset_options, is_training=True)))
    assert set(np.unique(batch["thing_id_mask_gt"])) == {-1} == set(np.unique(batch["thing_id_class_gt"]))
    assert set(np.unique(batch["semantic_gt"])) <= {1, 2, 3, 4}
    results = run(config, "train_and_eval", str(tmp_path / "runs"))
    assert load_dataset(config.eval_dataset_options.dataset).thing_class_ids == ()
    assert np.isfinite(results["losses/eval_total_loss"])
    assert 0 <= results["evaluation/pq/PQ"] <= 1 and 0 <= results["evaluation/iou/IoU"] <= 1
    metrics = json.loads((tmp_path / "runs" / "shapes_kmax_tiny" / "eval" / "metrics-2.json").read_text())
    assert metrics["images"] == 4
