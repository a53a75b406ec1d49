"""What runs on a device, op by op: each has the kernel it needs on a GPU, under deterministic_ops, and under XLA.

TensorFlow's Linux wheels register the kernels of GPUs also where there is none, so no device is needed. Which of them
refuse to work under `enable_op_determinism` stands in their code only, and with it in the library:

    strings -n 12 .../tensorflow/libtensorflow_cc.so.2 | grep -i "determinis.* not "

The list below is that of TensorFlow 2.15 and 2.20, which do not differ.
"""

import dataclasses
import functools

import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework_config
from tensorflow.python.framework import kernels, op_def_registry

from deeplab2_kmax.losses import build_loss
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.layers.normalization import xla_compiled
from deeplab2_kmax.postprocessing import build_postprocessor
from deeplab2_kmax.postprocessing.postprocessor import Postprocessor
from deeplab2_kmax.training.optimizers import Schedule, SolverSettings, WeightAverages, build_optimizers
from deeplab2_kmax.training.optimizers.settings import OPTIMIZERS
from deeplab2_kmax.training.step.loss_scale import LossScale
from deeplab2_kmax.training.step.seeding import Seeding
from deeplab2_kmax.training.step.step import TrainStep
from helpers.families import FAMILIES, config_of_family

REFUSED_IF_DETERMINISTIC = frozenset(
    [
        "AdjustContrast",
        "AdjustContrastv2",
        "Bincount",
        "CropAndResizeGradBoxes",
        "CropAndResizeGradImage",
        "DebugNumericSummaryV2",
        "DenseBincount",
        "Dilation2DBackpropFilter",
        "Dilation2DBackpropInput",
        "FakeQuantWithMinMaxVarsGradient",
        "FakeQuantWithMinMaxVarsPerChannelGradient",
        "MaxPoolGradWithArgmax",
        "RaggedBincount",
        "ResizeNearestNeighborGrad",
        "ScatterAdd",
        "ScatterDiv",
        "ScatterMax",
        "ScatterMin",
        "ScatterMul",
        "ScatterSub",
        "ScatterUpdate",
        "SoftmaxCrossEntropyWithLogits",
        "SparseBincount",
        "SparseSoftmaxCrossEntropyWithLogits",
        "SparseTensorDenseMatMul",
        "Svd",
        "Timestamp",
    ]
)
# XLA has kernels of its own, of which these refuse.
REFUSED_BY_XLA_IF_DETERMINISTIC = frozenset(["MaxPool3DGrad", "MaxPoolGrad"])
# "DEFAULT" stands for all devices.
GPU = ("GPU", "DEFAULT")
# SciPy matches masks, where XLA does not compile the step.
ON_HOST = frozenset(["PyFunc"])

# Tracing and converting one takes 20 seconds and up to 6 GB; the others are shown by `pytest -m slow` of this file.
IN_THE_SUITE = ("kmax_resnet50", "update rule cmt")


@pytest.fixture(
    params=[name if name in IN_THE_SUITE else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def family(request, tiny_overrides, tiny_max_overrides):
    """The config of a narrow network of each architecture."""
    return config_of_family(request.param, tiny_overrides, tiny_max_overrides)


@pytest.fixture
def deterministic():
    seeding = Seeding(seed=1, deterministic_ops=True)
    seeding.begin()
    yield seeding
    framework_config.disable_op_determinism()
    tf.random.set_seed(None)


def batch(images=2, size=65, things=16):
    grid = [images, size, size]
    return {
        "image": tf.zeros([*grid, 3]),
        "semantic_gt": tf.zeros(grid, tf.int32),
        "thing_id_mask_gt": tf.fill(grid, -1),
        "thing_id_class_gt": tf.fill([images, things], -1),
        "semantic_loss_weight": tf.ones(grid),
    }


def evaluation(model, loss):
    return lambda batch: loss(batch, model(batch["image"], training=False))


def gradients(model, loss, seeding):
    """A function of a batch: what depends on the architecture in a step; the optimizers do not."""

    def function(batch):
        with tf.GradientTape() as tape, seeding.draws(tf.zeros([], tf.int64)):
            total = tf.reduce_mean(loss(batch, model(batch["image"], training=True))["total_loss"])
        found = tape.gradient(total, model.trainable_variables)
        return [tf.convert_to_tensor(gradient) for gradient in found if gradient is not None]

    return function


def nodes_of(function, *arguments):
    """All nodes of a function's graph and of those that it calls, but its arguments."""
    graph = tf.function(function, autograph=False).get_concrete_function(*arguments).graph.as_graph_def()
    nodes = [*graph.node, *(node for called in graph.library.function for node in called.node_def)]
    return [node for node in nodes if node.op != "Placeholder"]


def refused(nodes, refused_ops=REFUSED_IF_DETERMINISTIC):
    """The ops that GPUs refuse under deterministic_ops, unless they are on the host."""
    found = set()
    for node in nodes:
        is_frozen = node.op.startswith("FusedBatchNormGrad") and not node.attr["is_training"].b
        if (node.op in refused_ops or is_frozen) and "CPU" not in node.device:
            found.add(node.op)
    return found


def without_kernel(nodes, *devices):
    """The ops that none of the devices has a kernel for, as their types are, unless they are on the host."""
    found = set()
    for node in nodes:
        fits = (k.device_type in devices and _takes_types(k, node) for k in _registered(node.op))
        if not any(fits) and "CPU" not in node.device:
            found.add(node.op)
    return found


@functools.cache
def _registered(op):
    return list(kernels.get_registered_kernels_for_op(op).kernel)


def _takes_types(kernel, node):
    def types(value):
        return [value.type] if value.WhichOneof("value") == "type" else value.list.type

    return all(set(types(node.attr[c.name])) <= set(c.allowed_values.list.type) for c in kernel.constraint)


def require_gpu_kernels(nodes, *devices):
    if without_kernel(nodes_of(tf.matmul, tf.ones([2, 2]), tf.ones([2, 2])), "GPU"):
        pytest.skip("this TensorFlow was built without kernels for GPUs")
    assert nodes and without_kernel(nodes, *devices) <= ON_HOST


def test_ops_that_are_refused_are_found():
    """Also in a function that another one calls."""
    inner = tf.function(lambda x: tf.math.bincount(x, minlength=3, maxlength=3, axis=-1), autograph=False)
    nodes = nodes_of(lambda x: inner(x) + inner(x + 1), tf.zeros([2, 5], tf.int32))
    assert refused(nodes) == {"DenseBincount"}
    assert without_kernel(nodes_of(lambda x: tf.strings.length(x) + tf.size(x), tf.constant(["a"])), *GPU)
    assert all(op_def_registry.get(name) for name in REFUSED_IF_DETERMINISTIC | REFUSED_BY_XLA_IF_DETERMINISTIC)


def test_every_architecture_trains_and_is_evaluated_deterministically_on_gpus(family, deterministic):
    model, loss = build_model(family), build_loss(family, "host")
    for function in (gradients(model, loss, deterministic), evaluation(model, loss)):
        nodes = nodes_of(function, batch())
        assert not refused(nodes)
        require_gpu_kernels(nodes, *GPU)


def test_xla_compiles_the_step_and_the_evaluation_of_every_architecture(family, deterministic):
    model, loss = build_model(family), build_loss(family, "xla")
    for function in (gradients(model, loss, deterministic), evaluation(model, loss)):
        compiled = xla_compiled(function)
        # The conversion alone; making machine code of it would take minutes.
        assert compiled.experimental_get_compiler_ir(batch())(stage="hlo")
        nodes = nodes_of(compiled, batch())
        assert not refused(nodes, REFUSED_IF_DETERMINISTIC | REFUSED_BY_XLA_IF_DETERMINISTIC)
        require_gpu_kernels(nodes, "XLA_GPU_JIT")


@pytest.mark.parametrize("pixel_confidence", [0.4, 0.2])
@pytest.mark.parametrize("is_maskwise", [True, False])
def test_every_way_of_postprocessing_is_deterministic_on_gpus(
    tiny_config, is_maskwise, pixel_confidence, deterministic
):
    settings = dataclasses.replace(build_postprocessor(tiny_config).settings, pixel_confidence=pixel_confidence)
    if not is_maskwise:
        settings = dataclasses.replace(settings, maskwise=None)
    outputs = {
        "pixel_space_mask_logits": tf.zeros([2, 17, 17, 16]),
        "transformer_class_logits": tf.zeros([2, 16, len(settings.index_to_class_id) + 1]),
    }
    nodes = nodes_of(Postprocessor(settings), outputs)
    assert "DenseBincount" in {node.op for node in nodes}
    assert not refused(nodes)
    require_gpu_kernels(nodes, *GPU)


class _OneWeight(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.kernel = self.add_weight("kernel", shape=[3, 1], initializer="ones")
        self.bias = self.add_weight("bias", shape=[1], initializer="ones")

    def call(self, images, training=False):
        return {"prediction": tf.matmul(images, self.kernel) + self.bias}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("compiled", [False, True])
def test_every_optimizer_is_deterministic_on_gpus(optimizer, compiled, deterministic):
    """With all that a step can have beside it."""
    model = _OneWeight()
    weights = model.trainable_variables
    settings = SolverSettings(optimizer, Schedule(0.1, total_steps=100), weight_decay=0.1, lookahead_sync_period=2)
    averages = WeightAverages({weight.name: weight for weight in weights}, decay=0.9)
    step = TrainStep(
        model=model,
        loss=lambda batch, outputs: {"total_loss": tf.square(outputs["prediction"][:, 0])},
        loss_names=("total_loss",),
        optimizers=build_optimizers(settings, weights, weights[:1], averages),
        compiled=compiled,
        micro_batches=2,
        loss_scale=LossScale(),
    )
    nodes = nodes_of(step, {"image": tf.ones([4, 3])})
    assert not refused(nodes)
    require_gpu_kernels(nodes, *GPU)
