"""Checks a whole config for contradictions, so that mistakes surface before anything is built.

The rules for one message of a config are functions that return problems (`problems`): `model_checks`, `data_checks`,
`update_rules`, and below those for losses, solver and evaluation. Each rule stands in one place: settings classes
outside of this folder, which may be made from a config that nobody has checked, call the same functions and `refuse`
what they find.
"""

from __future__ import annotations

import math

from deeplab2_kmax.config.data_checks import data_problems
from deeplab2_kmax.config.model_checks import model_problems
from deeplab2_kmax.config.problems import choice_problems, refuse
from deeplab2_kmax.config.update_rules import update_rule_problems
from deeplab2_kmax.config.value_ranges import range_problems
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2, dataset_pb2, evaluator_pb2, model_pb2, trainer_pb2
from deeplab2_kmax.wording import counted

OPTIMIZERS = ("adam", "adamw", "sgd", "radam", "lamb")
LOGGERS = ("wandb", "mlflow")
LEARNING_POLICIES = ("poly", "cosine")
POST_PROCESSINGS = ("pixelwise", "maskwise")
# DeepLab2 has others for other families; the remaining losses of mask transformers have one form each.
SEMANTIC_LOSSES = ("softmax_cross_entropy",)

_LOSSES = "trainer_options.loss_options"
# Of the semantic decoder's logits, whatever the stride of the masks is: it ends with the encoder's stage 2.
_SEMANTIC_STRIDE = 4
_TRAINED_TERMS = ("pq_style_loss", "mask_id_cross_entropy_loss", "instance_discrimination_loss", "semantic_loss")


def check_config(config: config_pb2.ExperimentOptions, path: str = "config") -> None:
    """Checks everything that can be told from the config alone.

    Args:
        config: its model is supported and its fields are explicit, see `explicit.explicit_fields`.
        path: what the message calls the config.

    Raises:
        ConfigError: lists every contradiction found.
    """
    # First and by themselves: the other rules compute with the numbers.
    refuse(range_problems(config), path)
    problems = [*model_problems(config.model_options), *update_rule_problems(config)]
    problems += [*trainer_problems(config.trainer_options), *loss_problems(config.trainer_options.loss_options)]
    problems += evaluator_problems(config.evaluator_options)
    for name in ("train_dataset_options", "eval_dataset_options"):
        if config.HasField(name):
            options = getattr(config, name)
            problems += data_problems(options, name)
            problems += _model_and_data_problems(config.model_options.max_deeplab, options, name)
    refuse(problems, path)


def trainer_problems(options: trainer_pb2.TrainerOptions) -> list[str]:
    """What contradicts itself in the options of training, apart from those of the losses."""
    solver = options.solver_options
    where = "trainer_options.solver_options"
    return [
        *choice_problems(f"{where}.optimizer", solver.optimizer, OPTIMIZERS),
        *choice_problems(f"{where}.learning_policy", solver.learning_policy, LEARNING_POLICIES),
        *(problem for name in options.loggers for problem in choice_problems("trainer_options.loggers", name, LOGGERS)),
    ]


def loss_problems(options: trainer_pb2.LossOptions) -> list[str]:
    """What contradicts itself in the options of the losses that mask transformers have."""
    problems = range_problems(options, _LOSSES)
    if name := options.semantic_loss.name:
        problems += choice_problems(f"{_LOSSES}.semantic_loss.name", name, SEMANTIC_LOSSES)
    return problems


def training_loss_problems(options: trainer_pb2.LossOptions) -> list[str]:
    """`loss_problems`, and whether there is any loss at all; a config that is loaded for prediction needs none."""
    problems = loss_problems(options)
    # The loss of reference masks does not count: it trains neither the masks nor the classes that are predicted.
    if not any(options.HasField(name) and getattr(options, name).weight for name in _TRAINED_TERMS):
        problems.append(
            f"{_LOSSES}: expected at least one of {', '.join(_TRAINED_TERMS)} with a weight other than 0, got none"
        )
    return problems


def evaluator_problems(options: evaluator_pb2.EvaluatorOptions) -> list[str]:
    """What contradicts itself in the options of evaluation and post-processing."""
    where = "evaluator_options"
    return [
        *range_problems(options, where),
        *choice_problems(f"{where}.transformer_post_processing", options.transformer_post_processing, POST_PROCESSINGS),
    ]


def _model_and_data_problems(
    max_deeplab: model_pb2.ModelOptions.MaXDeepLabOptions, options: dataset_pb2.DatasetOptions, where: str
) -> list[str]:
    """Where the model does not fit the data of `options`, whose own problems `data_problems` lists."""
    problems = []
    try:
        classes = load_dataset(options.dataset).num_classes
    except ConfigError:
        return []
    channels = max_deeplab.auxiliary_semantic_head.output_channels
    if channels != classes:
        problems.append(
            f"{where}.dataset: {options.dataset} has {counted(classes, 'class', 'classes')}, but"
            f" model_options.max_deeplab.auxiliary_semantic_head.output_channels is {channels}"
        )
    stride = max_deeplab.high_resolution_output_stride
    if max_deeplab.use_auxiliary_semantic_decoder and stride >= 1:
        stride = math.lcm(stride, _SEMANTIC_STRIDE)
    # Resizing keeps the centers of corner pixels at the corners, which needs stride * k + 1 pixels. A stride below 1 is
    # one of the model's own problems.
    sizes = [size for size in options.crop_size if size >= 1] if stride >= 1 else []
    wrong = [size for size in dict.fromkeys(sizes) if _nearest(size, stride) != (size,)]
    if wrong:
        near = [f"the nearest to {size} {_are(_nearest(size, stride))}" for size in wrong]
        fitting = ",".join(
            str(min(reversed(_nearest(size, stride)), key=lambda near: abs(near - size))) for size in sizes
        )
        problems.append(
            f"{where}.crop_size: expected multiples of the output stride {stride} plus one, got {sizes};"
            f" {', '.join(near)}. --override=input_size={fitting} sets all sizes at once"
        )
    return problems


def _are(sizes: tuple[int, ...]) -> str:
    return f"{'is' if len(sizes) == 1 else 'are'} {' and '.join(map(str, sizes))}"


def _nearest(size: int, stride: int) -> tuple[int, ...]:
    """The sides of a crop next to `size` that are a multiple of the stride plus one; only `size` if it is one."""
    lower = max(1, (size - 1) // stride) * stride + 1
    return (lower,) if lower >= size else (lower, lower + stride)
