"""Every field of a config is read, refused by name, or listed as ignored with one line that says so."""

import pathlib
import re

import pytest

import deeplab2_kmax
from deeplab2_kmax.config import load_config, load_with_notes
from deeplab2_kmax.config.notes import IGNORED, IGNORED_BY_KMAX, IGNORED_BY_MAX
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.input_pipeline.settings import PipelineSettings
from deeplab2_kmax.losses import build_loss
from deeplab2_kmax.model import build_model
from deeplab2_kmax.postprocessing import build_postprocessor
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.training.optimizers import SolverSettings
from helpers.traced_config import Traced

KMAX, MAX = "shapes/kmax_tiny", "shapes/max_deeplab_tiny"
# Fields that only matter if another one is set, and that one.
ONLY_WITH = {
    "model_options.max_deeplab.semantic_sample_k": "model_options.max_deeplab.sample_semantic_loss=true",
    "trainer_options.solver_options.clip_gradient_norm": "trainer_options.solver_options.use_gradient_clipping=true",
    "trainer_options.solver_options.learning_rate_scaling": (
        "trainer_options.solver_options.learning_rate_reference_batch_size=16"
    ),
    "train_dataset_options.small_instance_threshold": "train_dataset_options.increase_small_instance_weights=true",
    "eval_dataset_options.small_instance_threshold": "eval_dataset_options.increase_small_instance_weights=true",
    **{
        f"train_dataset_options.augmentations.panoptic_copy_paste.panoptic_copy_paste_{kind}_option": (
            "train_dataset_options.augmentations.panoptic_copy_paste.panoptic_copy_paste_scale=1"
        )
        for kind in ("thing", "stuff", "void")
    },
    "evaluator_options.maskwise_postprocessing": "evaluator_options.transformer_post_processing=maskwise",
    "train_dataset_options.resize_factor": "train_dataset_options.min_resize_value=65",
}
# Fields that a loaded config does not have, and those that a whole run reads, not one of its parts.
READ_BY_RUNS = {
    "model_options.max_deeplab.high_resolution_output_stride": "config/explicit.py",
    "base": "config/bases.py",
    "experiment_name": "training/run_folder.py",
    "model_options.backbone.stem_width_multiplier": "config/encoders.py",
    "model_options.backbone.backbone_width_multiplier": "config/encoders.py",
    "model_options.backbone.backbone_layer_multiplier": "config/encoders.py",
    "model_options.backbone.pretrained_weights": "training/checkpoints/initial_weights.py",
    "model_options.initial_checkpoint": "training/checkpoints/initial_weights.py",
    "model_options.restore_semantic_last_layer_from_initial_checkpoint": "training/checkpoints/initial_weights.py",
    "model_options.skip_other_shapes_from_initial_checkpoint": "training/checkpoints/initial_weights.py",
    "model_options.restore_averaged_weights_from_initial_checkpoint": "training/checkpoints/initial_weights.py",
    "trainer_options.num_checkpoints_to_keep": "training/run/run.py",
    "trainer_options.save_checkpoints_steps": "training/run/run.py",
    "trainer_options.save_summaries_steps": "training/run/run.py",
    "trainer_options.steps_per_loop": "training/run/run.py",
    "trainer_options.seed": "training/step/seeding.py",
    "trainer_options.deterministic_ops": "training/step/seeding.py",
    "trainer_options.num_summary_images": "training/run/run.py",
    "trainer_options.loggers": "training/run/run.py",
    "trainer_options.xla": "training/run/run.py",
    "trainer_options.gradient_accumulation_steps": "training/run/run.py",
    "trainer_options.non_finite_policy": "training/step/non_finite.py",
    "trainer_options.max_skipped_in_a_row": "training/step/non_finite.py",
    "evaluator_options.eval_steps": "training/run/modes.py",
    "evaluator_options.eval_interval": "training/run/modes.py",
    "evaluator_options.continuous_eval_timeout": "training/run/modes.py",
    "evaluator_options.use_tf_function": "training/run/run.py",
    "evaluator_options.save_predictions": "evaluation/prediction_files.py",
    "evaluator_options.override_save_dir": "evaluation/prediction_files.py",
    "evaluator_options.num_vis_samples": "evaluation/prediction_files.py",
    "evaluator_options.save_raw_predictions": "evaluation/prediction_files.py",
    "evaluator_options.raw_panoptic_format": "evaluation/prediction_files.py",
    "evaluator_options.convert_raw_to_eval_ids": "evaluation/prediction_files.py",
    "evaluator_options.add_flipped_images": "model/averaged_passes.py",
    "evaluator_options.eval_scales": "model/averaged_passes.py",
    "evaluator_options.detailed_ap_metrics": "evaluation/metric_set.py",
    "evaluator_options.cityscapes_ap": "evaluation/metric_set.py",
    "evaluator_options.boundary_ratio": "evaluation/metric_set.py",
    "evaluator_options.calibration": "evaluation/metric_set.py",
    "evaluator_options.best_checkpoint_metric": "training/run/modes.py",
    "evaluator_options.num_summary_images": "training/run/run.py",
    "evaluator_options.per_class_summaries": "training/run/run.py",
    "evaluator_options.use_averaged_weights": "training/run/run.py",
}
REFUSED = {
    "train_dataset_options.use_two_frames": "true",
    "train_dataset_options.use_next_frame": "true",
    "train_dataset_options.cameras_to_use": "front",
    "eval_dataset_options.use_two_frames": "true",
    "eval_dataset_options.use_next_frame": "true",
    "eval_dataset_options.cameras_to_use": "front",
}
OTHER_FAMILIES = ("deeplab_v3", "deeplab_v3_plus", "panoptic_deeplab", "motion_deeplab", "vip_deeplab")


def leaves(message, path=""):
    for field in message.fields:
        own = f"{path}.{field.name}" if path else field.name
        if field.message_type is None:
            yield own
        elif not (path == "model_options" and field.name in OTHER_FAMILIES):
            yield from leaves(field.message_type, own)


FIELDS = list(leaves(config_pb2.ExperimentOptions.DESCRIPTOR))


def read_fields(name, *overrides):
    """The fields that building the parts of an experiment reads."""
    reads = set()
    config = Traced(load_config(name, overrides), reads)
    build_model(config)
    build_loss(config)
    build_postprocessor(config)
    for is_training, data in ((True, config.train_dataset_options), (False, config.eval_dataset_options)):
        PipelineSettings.from_options(data, is_training)
    SolverSettings.from_options(config.trainer_options.solver_options, 8)
    return reads


@pytest.fixture(scope="module")
def reads():
    """The fields that are read by skeleton; by a third run if others are set."""
    more = sorted({*ONLY_WITH.values()})
    return {
        "kmax": read_fields(KMAX) | read_fields("shapes/cmt_tiny") | read_fields(KMAX, *more),
        "max": read_fields(MAX) | read_fields(MAX, *more),
    }


def is_listed(path, table):
    return any(path == name or path.startswith(f"{name}.") for name in table)


@pytest.mark.parametrize("skeleton", ["kmax", "max"])
def test_every_field_is_read_refused_or_listed_as_ignored(reads, skeleton):
    ignored = {**IGNORED, **(IGNORED_BY_KMAX if skeleton == "kmax" else IGNORED_BY_MAX)}
    # What only one skeleton reads and has no default is refused for the other, see the next but one test.
    others = reads["max" if skeleton == "kmax" else "kmax"]
    silent = [
        path
        for path in FIELDS
        if path not in reads[skeleton] | others and not is_listed(path, {**ignored, **READ_BY_RUNS, **REFUSED})
    ]
    # What only other encoders have.
    for path in silent:
        with pytest.raises(ConfigError, match=path.rsplit(".", 1)[-1]):
            load_config(KMAX if skeleton == "kmax" else MAX, [other_value(path)])
    both = [path for path in FIELDS if path in reads[skeleton] and is_listed(path, ignored)]
    # The settings of data are read for both sets; evaluation has no use for those of augmentation and order.
    assert [path for path in both if not path.startswith("eval_dataset_options")] == []


@pytest.mark.parametrize("path", sorted(READ_BY_RUNS))
def test_the_files_that_read_fields_do_so(path):
    text = (pathlib.Path(deeplab2_kmax.__file__).parent / READ_BY_RUNS[path]).read_text()
    assert re.search(rf"\b{path.rsplit('.', 1)[-1]}\b", text)


@pytest.mark.parametrize("path", sorted(REFUSED))
def test_what_is_not_supported_is_refused_by_name(path):
    with pytest.raises(ConfigError, match=re.escape(path)):
        load_config(KMAX, [f"{path}={REFUSED[path]}"])


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_other_families_are_refused_by_name(family, tmp_path):
    path = tmp_path / "own.textproto"
    path.write_text(f"model_options {{ {family} {{}} }}")
    with pytest.raises(ConfigError, match=rf"model_options\.{family}: .* is not implemented"):
        build_model(load_config(str(path)))


def other_value(path):
    """An override that sets a field to another value than its default, and to one that it may have."""
    special = {
        "feature_key": "res5",
        "thing_id_mask_annotations": "false",
        "resume_in_order": "false",
        "block_type": "axial",
        "encoder_features": "stage5",
        "name": "focal",
        "max_scale_factor": "2.0",
        "autoaugment_policy_name": "simple_classification_policy",
    }
    message = config_pb2.ExperimentOptions.DESCRIPTOR
    *parents, leaf = path.split(".")
    for name in parents:
        message = message.fields_by_name[name].message_type
    field = message.fields_by_name[leaf]
    if leaf in special:
        return f"{path}={special[leaf]}"
    if field.cpp_type == field.CPPTYPE_BOOL:
        return f"{path}={str(not field.default_value).lower()}"
    if field.cpp_type == field.CPPTYPE_STRING:
        return f"{path}=other"
    return f"{path}=2" if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64) else f"{path}=0.5"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        # Only CMT may have that loss.
        *[
            ("shapes/cmt_tiny" if "mask_approximation" in path else KMAX, path)
            for path in FIELDS
            if is_listed(path, {**IGNORED, **IGNORED_BY_KMAX})
        ],
        *[(MAX, path) for path in FIELDS if is_listed(path, IGNORED_BY_MAX)],
    ],
)
def test_an_ignored_field_that_is_set_is_told_in_one_line(name, path):
    before, after = (
        {note.text for note in load_with_notes(name, overrides)[1] if note.told}
        for overrides in ([], [other_value(path)])
    )
    (told,) = after - before or before
    listed = next(each for each in (*IGNORED, *IGNORED_BY_KMAX, *IGNORED_BY_MAX) if is_listed(path, [each]))
    assert told.startswith(f"{listed} is ignored: ")


@pytest.mark.parametrize("name", [KMAX, MAX])
def test_fields_of_the_other_skeleton_are_refused_or_told(name, reads):
    mine, others = (reads["kmax"], reads["max"]) if name == KMAX else (reads["max"], reads["kmax"])
    silent = []
    for path in sorted(others - mine - {*READ_BY_RUNS}):
        try:
            _, notes = load_with_notes(name, [other_value(path)])
        except ConfigError as error:
            assert path in str(error) or path.rsplit(".", 1)[0] in str(error)
        else:
            if not any(note.told and path.startswith(note.text.split(" is ")[0]) for note in notes):
                silent.append(path)
    assert silent == []
