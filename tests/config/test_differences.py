"""Comparing two configs."""

from google.protobuf import text_format

from deeplab2_kmax.config import differences
from deeplab2_kmax.protos import config_pb2


def config(text):
    return text_format.Parse(text, config_pb2.ExperimentOptions())


def test_values_in_effect_are_compared_whether_stated_or_not():
    stated = config('trainer_options { steps_per_loop: 1000 solver_options { optimizer: "adam" } }')
    silent = config("trainer_options { solver_options { } }")
    assert differences(stated, silent) == {}


def test_values_are_told_as_the_text_format_writes_them():
    one = config(
        'experiment_name: "a" train_dataset_options { crop_size: [65, 97] increase_small_instance_weights: true }'
    )
    other = config('experiment_name: "b" train_dataset_options { crop_size: [97, 65] small_instance_weight: 0.1 }')
    assert differences(one, other) == {
        "experiment_name": ('"a"', '"b"'),
        "train_dataset_options.crop_size": ("[65, 97]", "[97, 65]"),
        "train_dataset_options.increase_small_instance_weights": ("true", "false"),
        "train_dataset_options.small_instance_weight": ("3.0", "0.1"),
    }


def test_lists_of_messages_and_enums():
    skips = 'model_options { max_deeplab { auxiliary_low_level { feature_key: "res%d" channels_project: 8 } } }'
    weight = " trainer_options { loss_options { unmatched_slot_weight: %s } }"
    assert differences(config(skips % 3 + weight % "ONE"), config(skips % 2 + weight % "VOID_OVERLAP")) == {
        "model_options.max_deeplab.auxiliary_low_level": (
            '[{ feature_key: "res3" channels_project: 8 }]',
            '[{ feature_key: "res2" channels_project: 8 }]',
        ),
        "trainer_options.loss_options.unmatched_slot_weight": ("ONE", "VOID_OVERLAP"),
    }


def test_what_is_not_there_is_unset():
    some = config("model_options { max_deeplab { num_mask_slots: 5 } }")
    none = config("model_options { }")
    found = differences(none, some)
    assert found["model_options.max_deeplab.num_mask_slots"] == ("unset", "5")
    assert found["model_options.max_deeplab.semantic_sample_k"] == ("unset", "0")
    assert "model_options.max_deeplab.high_resolution_output_stride" not in found
    assert differences(some, none) == {path: values[::-1] for path, values in found.items()}
