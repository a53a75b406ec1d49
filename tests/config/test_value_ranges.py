"""Every number in a config has a range in its .proto, and a value outside of it is refused by the path of the field."""

import math

import pytest
from google.protobuf.descriptor import FieldDescriptor

from deeplab2_kmax.config import load_config
from deeplab2_kmax.config.value_ranges import declared_range, is_number, range_in_words, range_problems
from deeplab2_kmax.dependency_lines import is_repeated
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2, value_range_pb2
from deeplab2_kmax.training import run_experiment


def number_fields(message=None, path=(), seen=()):
    """Yields (names of the fields on the way, descriptor) of all number fields below a config."""
    descriptor = config_pb2.ExperimentOptions.DESCRIPTOR if message is None else message
    for field in descriptor.fields:
        if field.message_type is None:
            if is_number(field):
                yield (*path, field.name), field
        elif field.message_type.full_name not in seen:
            yield from number_fields(field.message_type, (*path, field.name), (*seen, field.message_type.full_name))


FIELDS = list(number_fields())


def is_whole(field):
    return field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)


def config_with(path, field, value):
    config = config_pb2.ExperimentOptions()
    message = config
    for name in path[:-1]:
        inner = getattr(message, name)
        message = inner.add() if is_repeated(message.DESCRIPTOR.fields_by_name[name]) else inner
    if is_repeated(field):
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)
    return config


def outside(field):
    """Values that the range of a field does not hold, on each side that it bounds."""
    bounds, step = declared_range(field), 1 if is_whole(field) else 1e-3
    values = [] if is_whole(field) else [math.nan, math.inf, -math.inf]
    values += [bounds.minimum - step] if bounds.HasField("minimum") else []
    values += [bounds.maximum + step] if bounds.HasField("maximum") else []
    values += [bounds.above, bounds.above - step] if bounds.HasField("above") else []
    values += [bounds.below, bounds.below + step] if bounds.HasField("below") else []
    if bounds.HasField("besides"):
        values = [value - step if value == bounds.besides else value for value in values]
    return [int(value) for value in values] if is_whole(field) else values


def inside(field):
    bounds = declared_range(field)
    values = [getattr(bounds, name) for name in ("minimum", "maximum", "besides") if bounds.HasField(name)]
    values += [field.default_value] if field.has_default_value else []
    return [int(value) for value in values] if is_whole(field) else values


def test_there_are_many_number_fields():
    assert len(FIELDS) > 100


@pytest.mark.parametrize("path, field", FIELDS, ids=[".".join(path) for path, _ in FIELDS])
def test_each_number_has_a_range_that_holds_its_default_and_refuses_what_is_outside(path, field):
    assert field.GetOptions().HasExtension(value_range_pb2.range), "declare its range in the .proto"
    for value in inside(field):
        assert range_problems(config_with(path, field, value)) == []
    for value in outside(field):
        (problem,) = range_problems(config_with(path, field, value))
        where, _, reason = problem.partition(": ")
        assert where.replace("[0]", "") == ".".join(path)
        got = str(value) if is_whole(field) else f"{value:g}"
        assert reason.startswith("expected a ") and reason.endswith(f", got {got}")


def test_most_numbers_have_a_bound():
    """A range without bounds is for numbers of which any will do, and is declared for these alone."""
    free = {path[-1] for path, field in FIELDS if declared_range(field) == value_range_pb2.ValueRange()}
    assert free == {"seed", "max_value_after_activation", "min_value_after_activation"}


def test_ranges_in_words():
    words = {path[-1]: range_in_words(field) for path, field in FIELDS}
    assert words["eval_steps"] == "a whole number, at least 1, or -1 (batches)"
    assert words["lookahead_slow_step_size"] == "a finite number, above 0 and at most 1"
    assert words["weight_average_decay"] == "a finite number, at least 0 and below 1"
    assert words["max_value_after_activation"] == "a finite number"


# Values of issue 13, all of which went through or ended in a traceback.
@pytest.mark.parametrize(
    "override",
    [
        "evaluator_options.pixel_confidence_threshold=nan",
        "evaluator_options.thing_area_limit=-5",
        "trainer_options.solver_options.base_learning_rate=-0.1",
        "trainer_options.solver_options.batchnorm_momentum=2",
        "trainer_options.solver_options.clip_gradient_norm=nan",
        "trainer_options.solver_options.warmup_steps=-1",
        "trainer_options.loss_options.pq_style_loss.weight=-1",
        "model_options.max_deeplab.num_mask_slots=0",
        "model_options.max_deeplab.high_resolution_output_stride=0",
        "model_options.max_deeplab.transformer_decoder.center_channels=0",
        "model_options.max_deeplab.transformer_decoder.num_blocks=-1,0,1",
        "train_dataset_options.augmentations.max_scale_factor=1e30",
        "train_dataset_options.augmentations.scale_factor_step_size=1e-30",
        "model_options.initial_checkpoint=a\0b",
        "train_dataset_options.file_pattern=a,\0",
    ],
)
def test_values_without_meaning_are_refused_by_name(override):
    with pytest.raises(ConfigError) as caught:
        load_config("shapes/kmax_tiny", [override])
    message = str(caught.value)
    assert "\n" not in message and override.split("=")[0] in message.replace("[0]", "")


def test_all_numbers_out_of_range_are_listed_at_once():
    with pytest.raises(
        ConfigError, match=r"(?s)batch_size: expected .* got 0\n .*warmup_steps|warmup_steps.*batch_size"
    ):
        load_config(
            "shapes/kmax_tiny",
            ["train_dataset_options.batch_size=0", "trainer_options.solver_options.warmup_steps=-1"],
        )


def test_a_config_made_in_code_is_checked_before_it_runs(tmp_path):
    config = load_config("shapes/kmax_tiny")
    config.trainer_options.solver_options.base_learning_rate = -1
    with pytest.raises(ConfigError, match="base_learning_rate: expected a finite number, at least 0, got -1"):
        run_experiment(config, "train", str(tmp_path))
