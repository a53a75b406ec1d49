"""Every tensor of the port has one variable, in the right layout and class order."""

import numpy as np
import pytest

from deeplab2_kmax.checkpoint_conversion import converted_values
from deeplab2_kmax.checkpoint_conversion.torch_tensors import class_order, from_torch, is_ignored, torch_name
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import CheckpointError
from helpers.pytorch_port import port_shapes


def zeros(shapes):
    """Arrays of these shapes that take no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


@pytest.fixture(params=["r50_coco", "convnext_tiny_coco"])
def port_and_deeplab2(request, golden_keys):
    """(the port's tensors, DeepLab2's variables of the same model), names -> shapes."""
    return port_shapes(request.param), golden_keys(f"kmax_{request.param}")


def test_each_tensor_is_used_once(port_and_deeplab2):
    port, deeplab2 = port_and_deeplab2
    names = [torch_name(key, semantic_decoder=True) for key in deeplab2]
    assert len(set(names)) == len(names)
    assert set(names) == {name for name in port if not is_ignored(name)}
    assert {name.rsplit(".", 1)[-1] for name in port if is_ignored(name)} == {"num_batches_tracked"}


def test_shapes_fit(port_and_deeplab2):
    port, deeplab2 = port_and_deeplab2
    values = converted_values(zeros(port), deeplab2, load_dataset("coco_panoptic"), semantic_decoder=True)
    assert {key: list(value.shape) for key, value in values.items()} == deeplab2
    assert all(value.dtype == np.float32 for value in values.values())


def test_loss_weights_and_pixel_statistics_are_left_out():
    assert is_ignored("criterion.empty_weight") and is_ignored("pixel_mean") and is_ignored("pixel_std")
    assert not is_ignored("backbone.stem.conv1.norm.running_mean")


def test_what_does_not_fit_is_named(port_and_deeplab2):
    port, deeplab2 = port_and_deeplab2
    arrays = zeros(port)
    removed = "sem_seg_head.predictor._class_embedding_projection.conv.weight"
    del arrays[removed]
    changed = "sem_seg_head.predictor._predcitor._transformer_class_head.conv.weight"
    arrays[changed] = np.zeros([20, 256, 1])
    arrays["backbone.extra"] = np.zeros([2])
    with pytest.raises(CheckpointError) as error:
        converted_values(arrays, deeplab2, load_dataset("coco_panoptic"), True, "x.pth: does not fit")
    message = str(error.value)
    assert message.startswith("x.pth: does not fit; nothing was written")
    assert f"1 missing: {removed}" in message
    assert "1 unused: backbone.extra" in message
    assert f"1 misshaped: {changed} [20, 256, 1] for transformer_class_head/_conv/kernel [1, 256, 134]" in message


def test_the_weights_of_another_encoder_are_refused(golden_keys):
    deeplab2 = golden_keys("kmax_convnext_tiny_coco")
    with pytest.raises(
        CheckpointError, match=r"missing: backbone.downsample_layers.*\n.*unused: backbone.res2.0.conv1"
    ):
        converted_values(zeros(port_shapes("r50_coco")), deeplab2, load_dataset("coco_panoptic"), True)


@pytest.mark.parametrize(
    "key, source, shape, position",
    [
        # (position in ours) of the element [1, 2, 3, 4] of the source, whatever its rank
        ("encoder/_stem/_conv/kernel", (5, 6, 7, 7), (7, 7, 6, 5), (3, 4, 2, 1)),
        ("x/_depthwise_conv/depthwise_kernel", (5, 1, 7, 7), (7, 7, 5, 1), (3, 4, 1, 0)),
        ("encoder/stages/0/layer_with_weights-0/depthwise_conv/kernel", (5, 1, 7, 7), (7, 7, 1, 5), (3, 4, 0, 1)),
        ("x/_memory_conv1_bn_act/_conv/kernel", (5, 6, 1), (1, 6, 5), (0, 2, 1)),
        ("x/_pixel_conv1_bn_act/_conv/kernel", (5, 6, 1, 1), (1, 6, 5), (0, 2, 1)),
        ("x/qkv_kernel", (5, 6, 1), (6, 5), (2, 1)),
        ("x/pointwise_conv1/kernel", (5, 6), (6, 5), (2, 1)),
        ("transformer_decoder/cluster_centers", (5, 6), (1, 6, 5), (0, 2, 1)),
        ("x/_query_rpe/embeddings", (5, 6), (5, 6), (1, 2)),
        ("x/_batch_norm_similarity/gamma", (24,), (3, 1, 8, 1, 1), (0, 0, 1, 0, 0)),
        ("x/layer_scale", (6,), (1, 1, 1, 6), (0, 0, 0, 1)),
    ],
)
def test_layouts(key, source, shape, position):
    array = np.zeros(source)
    marked = tuple(min(wanted, size - 1) for wanted, size in zip((1, 2, 3, 4), source))
    array[marked] = 1
    value = from_torch(key, array, shape)
    assert value.shape == shape and value[position] == 1 and value.sum() == 1


@pytest.mark.parametrize(
    "key, source, shape",
    [
        ("x/kernel", (5, 6, 3, 3), (1, 6, 5)),
        ("x/kernel", (6, 5, 1, 1), (1, 1, 6, 5)),
        ("x/kernel", (5,), (6, 5)),
        ("x/gamma", (24,), (3, 1, 7, 1, 1)),
        ("x/gamma", (3, 8), (3, 1, 8, 1, 1)),
        ("x/depthwise_kernel", (5, 7, 7), (7, 7, 5, 1)),
        ("x/embeddings", (5, 6), (6, 5)),
    ],
)
def test_what_has_another_shape_is_no_layout_of_it(key, source, shape):
    assert from_torch(key, np.zeros(source), shape) is None


def test_class_logits_are_things_stuff_void():
    key = "transformer_decoder/_kmax_decoder/3/_block1_transformer/_auxiliary_clustering_predictor/"
    key += "_transformer_class_head/_conv/bias"
    assert class_order(key, load_dataset("coco_panoptic")) == list(range(134))
    # Cityscapes: the port goes by train id, in which the eight things come last.
    assert class_order(key, load_dataset("cityscapes_panoptic")) == [*range(11, 19), *range(11), 19]
    # ADE20K: things and stuff alternate; bed, the first thing, is class 8 of 1 .. 150.
    ade20k = class_order(key, load_dataset("ade20k_panoptic"))
    assert ade20k[:3] == [7, 8, 10] and ade20k[100:103] == [0, 1, 2] and ade20k[-1] == 150
    assert sorted(ade20k) == list(range(151))


def test_semantic_logits_are_indexed_by_class_id():
    for leaf in ("kernel", "bias"):
        key = f"semantic_last_layer/{leaf}"
        assert class_order(key, load_dataset("coco_panoptic")) == [133, *range(133)]
        assert class_order(key, load_dataset("ade20k_panoptic")) == [150, *range(150)]
        assert class_order(key, load_dataset("cityscapes_panoptic")) == list(range(19))
    assert class_order("pixel_space_head/final_conv/bias", load_dataset("coco_panoptic")) is None
