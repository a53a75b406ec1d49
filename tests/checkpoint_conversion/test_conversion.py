"""Converted weights give the outputs of the PyTorch modules. The figures were computed by bytedance/kmax-deeplab."""

import os
import pickle

import numpy as np
import pytest

from deeplab2_kmax.checkpoint_conversion import as_in_pytorch
from deeplab2_kmax.checkpoints import load_checkpoint
from deeplab2_kmax.cli import main as command
from deeplab2_kmax.config import ConfigError, config_to_text, load_config
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.layers.resize import resize_like
from helpers.pytorch_port import SIZE, STEP, port_image, port_shapes, port_value

CROP = tuple(
    f"--override={part}_dataset_options.{field}"
    for part in ("train", "eval")
    for field in (f"crop_size={SIZE[0]},{SIZE[1]}", "min_resize_value=", "max_resize_value=")
)


def run(capsys, *arguments):
    """(exit status or message, what was printed) of the console command."""
    with pytest.raises(SystemExit) as ended:
        command.main(["convert-checkpoint", *map(str, arguments)])
    return ended.value.code, capsys.readouterr().out


def pickled(arrays, path):
    with open(path, "wb") as file:
        pickle.dump({"model": arrays, "__author__": "third_party"}, file, pickle.HIGHEST_PROTOCOL)
    return path


@pytest.mark.parametrize("data", ["coco", "cityscapes"])
def test_outputs_are_those_of_the_pytorch_modules(data, configs, golden, tmp_path, capsys):
    case = f"r50_{data}"
    shapes = port_shapes(case)
    source = pickled({name: port_value(name, shape) for name, shape in shapes.items()}, tmp_path / "model.pkl")
    path = configs / data / "kmax_r50.textproto"
    status, printed = run(capsys, source, f"--config_file={path}", *CROP, "-o", tmp_path / "out" / "ckpt")
    assert status == 0
    counters = sum(name.endswith("num_batches_tracked") for name in shapes)
    assert f"{len(shapes) - counters:,} tensors" in printed and f"as no weights: {counters}\n" in printed

    config = load_config(str(tmp_path / "out" / "ckpt.textproto"))
    model = build_model(config)
    assert load_checkpoint(model, str(tmp_path / "out" / "ckpt")).complete
    outputs = outputs_by_layer(model, port_image().astype(np.float32))
    expected = np.load(golden / f"pytorch_{case}.npz")
    assert {name for name in expected.files if not name.endswith("/shape")} == outputs.keys()
    dataset = load_dataset(config.train_dataset_options.dataset)
    for name, value in outputs.items():
        value = in_the_ports_class_order(name, np.asarray(value), dataset)
        assert value.shape == tuple(expected[f"{name}/shape"]), name
        tolerance = 1e-4 * np.abs(expected[name]).max()
        np.testing.assert_allclose(value.ravel()[::STEP], expected[name], rtol=0, atol=tolerance, err_msg=name)


def outputs_by_layer(model, images):
    outputs = model(images, training=False)
    masks = outputs["pixel_space_mask_logits"]
    named = {
        "final/mask": masks,
        "final/cls": outputs["transformer_class_logits"],
        "final/feature": outputs["pixel_space_normalized_feature"],
        "semantic": outputs["semantic_logits"],
    }
    for number, prediction in enumerate(layer_predictions(model, images)):
        named[f"layer{number}/mask"] = resize_like(prediction.mask_logits, masks)
        named[f"layer{number}/cls"] = prediction.class_logits
        named[f"layer{number}/feature"] = resize_like(prediction.pixel_feature, masks)
    return named


def layer_predictions(model, images):
    """Those that the model itself puts out in training only, when batch norms would use other statistics."""
    pixels, state = None, model.transformer_decoder.initial_state(len(images))
    skips = model.pixel_decoder.skips(model.pixel_encoder(images / 127.5 - 1.0))
    for stage, skip in enumerate(skips):
        pixels = model.pixel_decoder.stage(stage, pixels, skip)
        pixels, state = model.transformer_decoder.update(stage, pixels, state)
    return [output.prediction for output in state.outputs]


def in_the_ports_class_order(name, value, dataset):
    """Class and semantic logits with their classes by ascending class id, then void."""
    if name.endswith("/cls"):
        return value[..., [*np.argsort(dataset.index_to_class_id), -1]]
    if name == "semantic":
        ids = [c.id for c in dataset.classes]
        return value[..., ids + sorted(set(range(dataset.num_classes)) - set(ids))]
    return value


def test_a_file_that_does_not_fit_leaves_nothing_behind(tmp_path, capsys, configs, tiny_overrides):
    source = pickled({"backbone.stem.conv1.weight": np.zeros([8, 3, 7, 7], np.float32)}, tmp_path / "model.pkl")
    path = configs / "shapes" / "kmax_tiny.textproto"
    overrides = [f"--override={override}" for override in tiny_overrides]
    status, _ = run(capsys, source, f"--config_file={path}", *overrides, "-o", tmp_path / "out" / "ckpt")
    assert status.startswith(f"error: {source}: does not fit kmax_resnet50 on shapes; nothing was written")
    assert "missing: backbone.res2.0.conv1.norm.bias" in status
    assert os.listdir(tmp_path) == ["model.pkl"]


def test_what_is_there_is_not_overwritten(tmp_path, capsys, configs):
    (tmp_path / "ckpt.index").write_text("precious")
    path = configs / "coco" / "kmax_r50.textproto"
    status, _ = run(capsys, tmp_path / "model.pkl", f"--config_file={path}", "-o", tmp_path / "ckpt")
    assert "ckpt.index exists already" in status
    assert (tmp_path / "ckpt.index").read_text() == "precious"


@pytest.mark.parametrize("index", [None, b"torn"])
def test_what_a_killed_conversion_has_left_is_replaced(tmp_path, capsys, configs, index):
    path = configs / "coco" / "kmax_r50.textproto"
    ported = config_to_text(as_in_pytorch(load_config(str(path))))
    (tmp_path / "ckpt.textproto").write_text(ported)
    if index:
        (tmp_path / "ckpt.index").write_bytes(index)
    arguments = [tmp_path / "model.pkl", f"--config_file={path}", "-o", tmp_path / "ckpt"]
    status, _ = run(capsys, *arguments)
    assert "model.pkl" in status and "exists already" not in status  # It goes on to the source, which is not there.
    (tmp_path / "ckpt.textproto").write_text(ported + "# mine\n")
    status, _ = run(capsys, *arguments)
    assert "ckpt.textproto exists already" in status


def test_the_ports_choices(configs):
    def ported(name):
        return as_in_pytorch(load_config(str(configs / f"{name}.textproto"))).model_options

    r50 = ported("coco/kmax_r50")
    assert r50.backbone.stem_max_pool and r50.backbone.activated_features
    assert r50.max_deeplab.pixel_decoder.bottleneck_atrous_rate == 1
    assert not r50.max_deeplab.pixel_decoder.encoder_features
    assert r50.max_deeplab.high_resolution_output_stride == 4
    cityscapes = ported("cityscapes/kmax_r50").max_deeplab
    assert list(cityscapes.pixel_decoder.encoder_features) == ["stage5", "stage4", "stage3", "stage1", "stage2"]
    assert cityscapes.high_resolution_output_stride == 4
    convnext = ported("coco/kmax_convnext_tiny")
    assert not convnext.max_deeplab.activate_semantic_skips
    assert not convnext.backbone.stem_max_pool and not convnext.backbone.activated_features
    with pytest.raises(ConfigError, match="ResNet-50 or ConvNeXt, got 'kmax_axial_resnet50'"):
        ported("coco/kmax_axial_r50")


def test_the_given_config_stays_as_it_is(configs):
    config = load_config(str(configs / "coco" / "kmax_r50.textproto"))
    as_in_pytorch(config)
    assert config == load_config(str(configs / "coco" / "kmax_r50.textproto"))
