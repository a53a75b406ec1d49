"""Multiply-adds by hand, of a narrow network by TensorFlow's own counter, and of kMaX-R50."""

import math

import pytest
import tensorflow as tf

from deeplab2_kmax.config import load_config
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.multiply_adds import count_multiply_adds, multiply_adds
from deeplab2_kmax.model.parameter_counts import PREDICTED, ancestors


def _convolution():
    # Stride 2 leaves 5 x 4 of 9 x 7 pixels; each of the 8 results is a sum over 3 x 3 x 6.
    return tf.nn.conv2d(tf.zeros([2, 9, 7, 6]), tf.zeros([3, 3, 6, 8]), 2, "SAME"), 2 * 5 * 4 * 8 * (3 * 3 * 6)


def _grouped_convolution():
    return tf.nn.conv2d(tf.zeros([1, 9, 9, 6]), tf.zeros([3, 3, 2, 9]), 1, "VALID"), 7 * 7 * 9 * (3 * 3 * 2)


def _depthwise_convolution():
    filters = tf.zeros([5, 5, 6, 2])
    return tf.nn.depthwise_conv2d(tf.zeros([1, 9, 9, 6]), filters, [1] * 4, "SAME"), 9 * 9 * 6 * 2 * (5 * 5)


def _product():
    return tf.matmul(tf.zeros([4, 7]), tf.zeros([7, 5])), 4 * 7 * 5


def _transposed_product():
    return tf.matmul(tf.zeros([7, 4]), tf.zeros([5, 7]), transpose_a=True, transpose_b=True), 4 * 7 * 5


def _batch_of_products():
    return tf.matmul(tf.zeros([2, 3, 4, 7]), tf.zeros([2, 3, 7, 5])), 2 * 3 * 4 * 7 * 5


def _batch_of_transposed_products():
    return tf.matmul(tf.zeros([3, 7, 4]), tf.zeros([3, 7, 5]), transpose_a=True), 3 * 4 * 7 * 5


def _einsum():
    return tf.einsum("bhwd,bnd->bhwn", tf.zeros([2, 3, 4, 5]), tf.zeros([2, 6, 5])), 2 * 3 * 4 * 5 * 6


def _einsum_with_dimensions_left_over():
    return tf.einsum("...ld,d...m->...lm", tf.zeros([2, 3, 4, 5]), tf.zeros([5, 2, 3, 6])), 2 * 3 * 4 * 5 * 6


def _nothing_but_sums():
    return tf.nn.relu(tf.zeros([3, 4]) + 1.0), 0


@pytest.mark.parametrize(
    "case",
    [
        _convolution,
        _grouped_convolution,
        _depthwise_convolution,
        _product,
        _transposed_product,
        _batch_of_products,
        _batch_of_transposed_products,
        _einsum,
        _einsum_with_dimensions_left_over,
        _nothing_but_sums,
    ],
)
def test_by_hand(case):
    with tf.Graph().as_default():
        result, expected = case()
        assert multiply_adds(ancestors([result.op])) == expected


def test_what_cannot_be_counted_is_refused():
    with tf.Graph().as_default():
        product = tf.matmul(tf.compat.v1.placeholder(tf.float32, [None, 7]), tf.zeros([7, 5]))
        with pytest.raises(ValueError, match=r"expected known shapes, got \(None, 7\)"):
            multiply_adds([product.op])
        called = tf.function(tf.matmul)(tf.zeros([4, 7]), tf.zeros([7, 5]))
        with pytest.raises(ValueError, match="expected a graph without calls of functions, got .*PartitionedCall"):
            multiply_adds(ancestors([called.op]))


def test_a_narrow_network_by_tensorflows_own_counter(config):
    # It takes another way to the same figures, for those operations that it gets right, turned products not among them.
    checked = {"Conv2D": 0, "DepthwiseConv2dNative": 0, "MatMul": 0}
    with tf.Graph().as_default() as graph:
        outputs = build_model(config)(tf.zeros([1, 65, 65, 3]), training=False)
        used = ancestors(outputs[name].op for name in PREDICTED)
        options = tf.compat.v1.profiler.ProfileOptionBuilder(
            tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        )
        nodes = [tf.compat.v1.profiler.profile(graph, options=options.with_empty_output().build())]
        operations = {}
        while nodes:
            node = nodes.pop()
            operations[node.name] = node.float_ops
            nodes += node.children
        for operation in used:
            if operation.type in checked:
                assert 2 * multiply_adds([operation]) == operations[operation.name], operation.name
                checked[operation.type] += 1
        assert min(checked.values()) > 0
        total = multiply_adds(used)
    assert count_multiply_adds(config) == total


def test_a_larger_image_takes_more(config):
    larger = type(config)()
    larger.CopyFrom(config)
    larger.eval_dataset_options.crop_size[:] = [129, 129]
    # A little less than four times, because some products do not depend on the size.
    assert 2.5 < count_multiply_adds(larger) / count_multiply_adds(config) < 4


@pytest.mark.slow
def test_kmax_r50():
    """Of the size for which kMaX-DeepLab's authors publish 168 G."""
    config = load_config("coco/kmax_r50", ["input_size=801,1201"])
    assert math.isclose(count_multiply_adds(config), 168e9, rel_tol=0.05)
