"""The checked-in *_pb2.py files are what the *.proto files give, and the contract with DeepLab2's numbers holds."""

import pathlib
import re
import runpy

import pytest

from deeplab2_kmax.protos import config_pb2

ROOT = pathlib.Path(__file__).parents[2]


def test_generated_modules_are_up_to_date(tmp_path):
    pytest.importorskip("grpc_tools")
    generate = runpy.run_path(str(ROOT / "protos" / "generate.py"))["generate"]
    generate(tmp_path)
    generated = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert len(generated) == 2 * len(list((ROOT / "protos").glob("*.proto")))
    for name, text in generated.items():
        assert (ROOT / "deeplab2_kmax/protos" / name).read_text() == text, f"run python protos/generate.py ({name})"


def test_additions_are_numbered_from_1000():
    own_messages = {"PixelDecoderOptions", "TransformerDecoderOptions"}

    def numbers(message, seen):
        for field in message.fields:
            yield message.name, field.name, field.number
            if field.message_type and field.message_type.full_name not in seen:
                seen.add(field.message_type.full_name)
                yield from numbers(field.message_type, seen)

    own = {
        (message, name)
        for message, name, number in numbers(config_pb2.ExperimentOptions.DESCRIPTOR, set())
        if number >= 1000 and message not in own_messages
    }
    assert own == {
        ("ExperimentOptions", "base"),
        ("BackboneOptions", "stage_blocks"),
        ("BackboneOptions", "stage_filters"),
        ("BackboneOptions", "stem_channels"),
        ("BackboneOptions", "position_embedding"),
        ("BackboneOptions", "stem"),
        ("BackboneOptions", "first_stage_blocks"),
        ("BackboneOptions", "convolution_block"),
        ("BackboneOptions", "axial_expansion"),
        ("BackboneOptions", "drop_path_beyond_stride"),
        ("BackboneOptions", "decoder_layers_beyond_stride"),
        ("BackboneOptions", "backbone_decoder_stacks"),
        ("BackboneOptions", "backbone_decoder_blocks"),
        ("BackboneOptions", "extra_decoder_stacks"),
        ("BackboneOptions", "extra_decoder_blocks"),
        ("BackboneOptions", "stem_max_pool"),
        ("BackboneOptions", "activated_features"),
        ("MaXDeepLabOptions", "transformer_decoder_drop_path_keep_prob"),
        ("MaXDeepLabOptions", "num_mask_slots"),
        ("MaXDeepLabOptions", "high_resolution_output_stride"),
        ("MaXDeepLabOptions", "use_auxiliary_semantic_decoder"),
        ("MaXDeepLabOptions", "pixel_decoder"),
        ("MaXDeepLabOptions", "transformer_decoder"),
        ("MaXDeepLabOptions", "sample_semantic_loss"),
        ("MaXDeepLabOptions", "activate_semantic_skips"),
        ("ModelOptions", "skip_other_shapes_from_initial_checkpoint"),
        ("ModelOptions", "restore_averaged_weights_from_initial_checkpoint"),
        ("SolverOptions", "lookahead_sync_period"),
        ("SolverOptions", "lookahead_slow_step_size"),
        ("SolverOptions", "weight_average_decay"),
        ("EvaluatorOptions", "use_averaged_weights"),
        ("ModelOptions", "precision"),
        ("TrainerOptions", "seed"),
        ("TrainerOptions", "deterministic_ops"),
        ("TrainerOptions", "xla"),
        ("SolverOptions", "learning_rate_reference_batch_size"),
        ("SolverOptions", "learning_rate_scaling"),
        ("SolverOptions", "clipped_gradients"),
        ("TrainerOptions", "gradient_accumulation_steps"),
        ("TrainerOptions", "non_finite_policy"),
        ("TrainerOptions", "max_skipped_in_a_row"),
        ("ModelOptions", "recompute_blocks"),
        ("LossOptions", "unmatched_slot_weight"),
        ("LossOptions", "mask_approximation_loss"),
        ("LossOptions", "mask_approximation_things_only"),
        ("TrainerOptions", "num_summary_images"),
        ("TrainerOptions", "loggers"),
        ("EvaluatorOptions", "best_checkpoint_metric"),
        ("EvaluatorOptions", "boundary_ratio"),
        ("EvaluatorOptions", "calibration"),
        ("EvaluatorOptions", "cityscapes_ap"),
        ("EvaluatorOptions", "num_summary_images"),
        ("EvaluatorOptions", "per_class_summaries"),
        ("DatasetOptions", "resume_in_order"),
        ("DatasetOptions", "max_bad_records"),
        ("DatasetOptions", "seed"),
        ("DatasetOptions", "shuffle_buffer_size"),
    }


def test_files_live_under_a_path_and_package_of_their_own():
    assert config_pb2.DESCRIPTOR.name == "deeplab2_kmax/protos/config.proto"
    assert re.fullmatch("deeplab2_kmax", config_pb2.DESCRIPTOR.package)
