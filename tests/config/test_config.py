"""Reading, overriding, completing and checking experiment configs."""

import pytest
from google.protobuf import text_format

from deeplab2_kmax.config import ConfigError, load_config, require_supported
from deeplab2_kmax.config.support import nearest_config
from deeplab2_kmax.datasets import load_dataset, write_descriptor
from deeplab2_kmax.model import build_model

BATCH_SIZES = "train_dataset_options.batch_size or eval_dataset_options.batch_size"


@pytest.fixture
def write(tmp_path):
    def write_config(text):
        path = tmp_path / "experiment.textproto"
        path.write_text(text)
        return str(path)

    return write_config


# A config as DeepLab2's users have them: nothing of ours in it.
DEEPLAB2_STYLE = """
experiment_name: "${EXPERIMENT_NAME}"
model_options {
  initial_checkpoint: "${INIT_CHECKPOINT}"
  backbone { name: "kmax_resnet50" drop_path_keep_prob: 1.0 }
  decoder { feature_key: "feature_semantic" atrous_rates: 6 atrous_rates: 12 atrous_rates: 18 }
  max_deeplab {
    pixel_space_head { output_channels: 128 head_channels: 256 }
    auxiliary_semantic_head { output_channels: %d head_channels: 256 }
  }
}
trainer_options { solver_options { optimizer: "adamw" } }
train_dataset_options { dataset: "%s" file_pattern: "${TRAIN_SET}" crop_size: 641 crop_size: 641 }
eval_dataset_options { dataset: "%s" file_pattern: "${VAL_SET}" crop_size: 641 crop_size: 641 }
"""


@pytest.mark.parametrize(
    "dataset, classes, slots, stride, semantic_decoder, keep_prob, stages",
    [
        ("coco_panoptic", 134, 128, 4, True, 0.8, 4),
        ("cityscapes_panoptic", 19, 256, 2, False, 0.8, 5),
        ("ade20k_panoptic", 151, 128, 4, True, 1.0, 4),
        ("shapes", 9, 128, 4, True, 0.8, 4),
    ],
)
def test_what_deeplab2_infers_from_the_data_set_name(
    write, dataset, classes, slots, stride, semantic_decoder, keep_prob, stages
):
    options = load_config(write(DEEPLAB2_STYLE % (classes, dataset, dataset))).model_options.max_deeplab
    assert options.num_mask_slots == slots
    assert options.high_resolution_output_stride == stride
    assert options.use_auxiliary_semantic_decoder == semantic_decoder
    assert options.transformer_decoder_drop_path_keep_prob == pytest.approx(keep_prob)
    assert len(options.pixel_decoder.filters) == stages
    assert list(options.transformer_decoder.num_blocks) == [2, 2, 2]


@pytest.mark.parametrize("classes, dataset", [(134, "coco_panoptic"), (19, "cityscapes_panoptic")])
def test_a_data_set_that_is_not_named_is_told_by_its_classes(write, classes, dataset):
    unnamed = DEEPLAB2_STYLE.replace('dataset: "%s"', "") % classes
    assert load_config(write(unnamed)) == load_config(write(DEEPLAB2_STYLE % (classes, dataset, dataset)))
    with pytest.raises(ConfigError, match="train_dataset_options.dataset: .*got ''"):
        load_config(write(unnamed.replace(f"output_channels: {classes}", "output_channels: 77")))


def test_nothing_is_inferred_from_the_path_of_a_descriptor_file(write, tmp_path):
    path = tmp_path / "cityscapes_panoptic.json"
    write_descriptor(path, load_dataset("cityscapes_panoptic"))
    options = load_config(write(DEEPLAB2_STYLE % (19, path, path))).model_options.max_deeplab
    assert (options.num_mask_slots, options.high_resolution_output_stride) == (128, 4)


def test_explicit_fields_win_over_inference(write):
    text = DEEPLAB2_STYLE % (134, "coco_panoptic", "coco_panoptic")
    config = load_config(write(text), ["model_options.max_deeplab.num_mask_slots=7"])
    assert config.model_options.max_deeplab.num_mask_slots == 7


def test_overrides_of_every_kind(configs):
    config = load_config(
        str(configs / "shapes" / "kmax_tiny.textproto"),
        [
            "train_dataset_options.crop_size=65,129",
            "train_dataset_options.file_pattern=a b/*.tfrecord",
            "trainer_options.solver_options.base_learning_rate=1e-2",
            "trainer_options.solver_options.use_sync_batchnorm=false",
            "trainer_options.loss_options.unmatched_slot_weight=VOID_OVERLAP",
            "train_dataset_options.seed=5",
        ],
    )
    assert list(config.train_dataset_options.crop_size) == [65, 129]
    assert list(config.train_dataset_options.file_pattern) == ["a b/*.tfrecord"]
    assert config.trainer_options.solver_options.base_learning_rate == pytest.approx(1e-2)
    assert not config.trainer_options.solver_options.use_sync_batchnorm
    assert config.trainer_options.loss_options.unmatched_slot_weight == 0
    assert config.train_dataset_options.seed == 5


@pytest.mark.parametrize(
    "override, words",
    [
        ("no_equals_sign", ["no_equals_sign", "field.sub_field=value"]),
        ("trainer_options.sovler=1", ["TrainerOptions has no field 'sovler'", "solver_options"]),
        ("trainer_options.steps_per_loop=many", ["steps_per_loop expects an integer", "'many'"]),
        ("batchsize=2", [f"did you mean {BATCH_SIZES}?"]),
        ("model_options.num_mask_slots=9", ["it belongs at model_options.max_deeplab.num_mask_slots"]),
        ("trainer_options.loss_options.unmatched_slot_weight=one", ["one of VOID_OVERLAP, ONE", "did you mean 'ONE'?"]),
        ("trainer_options.solver_options=adam", ["solver_options is a SolverOptions", "base_learning_rate"]),
        ("experiment_name.x=1", ["experiment_name has no sub-fields"]),
    ],
)
def test_wrong_overrides(configs, override, words):
    with pytest.raises(ConfigError) as error:
        load_config(str(configs / "shapes" / "kmax_tiny.textproto"), [override])
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    "text, words",
    [
        ('model_options {\n  backbnoe { name: "x" }\n}', [":2:", "ModelOptions", "backbnoe"]),
        ("trainer_options {\n\n  steps_per_loop: yes\n}", [":3:", "steps_per_loop: yes"]),
        ('experiment_name: "a', [":1:"]),
    ],
)
def test_syntax_errors_name_file_line_and_source(write, text, words):
    path = write(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert path in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    "text, told",
    [
        ("train_dataset_options { batchsize: 2 }", "DatasetOptions has no field 'batchsize'; did you mean batch_size?"),
        ("batchsize: 2", f"ExperimentOptions has no field 'batchsize'; did you mean {BATCH_SIZES}?"),
        # Right names in the wrong message.
        ("batch_size: 2", f"ExperimentOptions has no field 'batch_size'; it belongs at {BATCH_SIZES}"),
        (
            "model_options { num_mask_slots: 128 }",
            "ModelOptions has no field 'num_mask_slots'; it belongs at model_options.max_deeplab.num_mask_slots",
        ),
        # Not among the losses of families that are not implemented.
        (
            "trainer_options { top_k_percent: 1 }",
            "semantic_loss.top_k_percent or trainer_options.loss_options.pq_",
        ),
        ("trainer_options { xyzzy: 1 }", "TrainerOptions has no field 'xyzzy'; it has: num_checkpoints_to_keep, save_"),
        (
            "trainer_options { input_size: 65 }",
            "is no field but an override, which sets several fields: --override=",
        ),
        (
            "trainer_options { loss_options { unmatched_slot_weight: ONEs } }",
            "expected one of VOID_OVERLAP, ONE, got 'ONEs'; did you mean 'ONE'?",
        ),
        ("trainer_options { steps_per_loop: yes }", "expected an integer, got 'yes'"),
        ("trainer_options { solver_options { base_learning_rate: low } }", "expected a number, got 'low'"),
        ("experiment_name: mine", "expected text in quotes, got 'mine'"),
        ("trainer_options.steps_per_loop: 3", "paths with dots are for --override"),
    ],
)
def test_mistyped_and_misplaced_names_in_a_file(write, text, told):
    path = write(f"\n{text}")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    where, source = str(error.value).split("\n")
    assert where.startswith(f"{path}:2: ") and told in where
    assert source == f"    {text}"


def test_a_bare_model_options_is_told_from_an_experiment(write):
    with pytest.raises(ConfigError, match="expected an experiment .* got a bare ModelOptions"):
        load_config(write('backbone { name: "resnet50" } motion_deeplab { }'))


def test_a_byte_order_mark_is_left_out(write):
    """As editors on Windows write it."""
    assert load_config(write("\ufeff" + 'experiment_name: "a"')).experiment_name == "a"


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="no_such.textproto"):
        load_config(str(tmp_path / "no_such.textproto"))


@pytest.mark.parametrize(
    "override, words",
    [
        ("train_dataset_options.dataset=coko_panoptic", ["train_dataset_options.dataset: ", "mean 'coco_panoptic'?"]),
        ("train_dataset_options.dataset=coco", ["did you mean 'coco_panoptic'?"]),
        ("train_dataset_options.dataset=kitti_step", ["DeepLab2 itself is needed", "docs/your_own_dataset.md"]),
        ("train_dataset_options.dataset=xyzzy", ["got 'xyzzy'; docs/your_own_dataset.md shows how"]),
        ("train_dataset_options.crop_size=100,97", ["crop_size", "100", "97 and 101"]),
        ("train_dataset_options.crop_size=97", ["crop_size", "height and width"]),
        ("train_dataset_options.max_resize_value=129", ["max_resize_value", "exceeds crop_size [97, 97]"]),
        ("train_dataset_options.augmentations.min_scale_factor=3", ["min_scale_factor"]),
        ("model_options.max_deeplab.auxiliary_semantic_head.output_channels=8", ["9 classes", "output_channels is 8"]),
        ("model_options.backbone.stage_blocks=3,4", ["stage_blocks", "kmax_resnet50 needs 4 values", "[3, 4]"]),
        ("model_options.backbone.position_embedding=true", ["position_embedding", "kmax_resnet50 has no such choice"]),
        (
            "model_options.backbone.drop_path_keep_prob=0",
            ["backbone.drop_path_keep_prob", "at most 1, got 0"],
        ),
        ("model_options.max_deeplab.high_resolution_output_stride=8", ["high_resolution_output_stride", "got 8"]),
        ("model_options.max_deeplab.pixel_decoder.filters=8,8,8", ["pixel_decoder.filters", "expected 5"]),
        ("model_options.max_deeplab.transformer_decoder.update_rule=mean", ["update_rule", "'mean'"]),
        ("model_options.max_deeplab.transformer_decoder.update_rule=kmaens", ["update_rule", "did you mean 'kmax'?"]),
        ("model_options.max_deeplab.transformer_decoder.pixel_update=atention", ["pixel_update", "with update_rule"]),
        ("model_options.max_deeplab.pixel_decoder.block_type=axail", ["block_type", "did you mean 'axial'?"]),
        ("model_options.max_deeplab.pixel_decoder.encoder_features=stag5", ["did you mean 'stage5'?"]),
        ("model_options.precision=bfloat16", ["model_options.precision: ", "did you mean 'mixed_bfloat16'?"]),
        ("trainer_options.solver_options.optimizer=AdamW", ["optimizer", "did you mean 'adamw'?"]),
        ("trainer_options.loss_options.semantic_loss.name=cross_entropy", ["mean 'softmax_cross_entropy'?"]),
        ("model_options.max_deeplab.transformer_decoder.key_channels=12", ["key_channels", "num_heads 8"]),
        ("trainer_options.solver_options.optimizer=lion", ["optimizer", "'lion'", "adamw"]),
        ("trainer_options.solver_options.learning_policy=step", ["learning_policy", "'step'"]),
        (
            "trainer_options.steps_per_loop=0",
            ["trainer_options.steps_per_loop: expected a whole number, at least 1"],
        ),
        ("trainer_options.loss_options.semantic_loss.top_k_percent=1.5", ["semantic_loss.top_k_percent", "got 1.5"]),
        (
            "model_options.max_deeplab.transformer_decoder.num_heads=0",
            ["num_heads: expected a whole number"],
        ),
        (
            "model_options.max_deeplab.high_resolution_output_stride=0",
            ["output_stride: expected a whole number"],
        ),
        ("eval_dataset_options.min_resize_value=1,2,3", ["eval_dataset_options.min_resize_value", "[1, 2, 3]"]),
        ("eval_dataset_options.cameras_to_use=left", ["eval_dataset_options.cameras_to_use", "not supported"]),
        (
            "eval_dataset_options.max_bad_records=-1",
            ["max_bad_records: expected a whole number, at least 0"],
        ),
        ("eval_dataset_options.resume_in_order=true", ["eval_dataset_options.resume_in_order: needs a seed"]),
        ("train_dataset_options.augmentations.autoaugment_policy_name=v0", ["autoaugment_policy_name", "'v0'"]),
        (
            "train_dataset_options.augmentations.autoaugment_policy_name=classification",
            ["mean 'simple_"],
        ),
        ("evaluator_options.transformer_post_processing=nms", ["transformer_post_processing", "'nms'"]),
    ],
)
def test_contradictions_are_found_before_anything_is_built(configs, override, words):
    path = str(configs / "shapes" / "kmax_tiny.textproto")
    with pytest.raises(ConfigError) as error:
        load_config(path, [override])
    assert path in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


def test_all_contradictions_are_listed_at_once(configs):
    with pytest.raises(ConfigError) as error:
        load_config(
            str(configs / "shapes" / "kmax_tiny.textproto"),
            ["trainer_options.solver_options.optimizer=lion", "train_dataset_options.crop_size=97"],
        )
    assert "optimizer" in str(error.value) and "crop_size" in str(error.value)


@pytest.mark.parametrize(
    "model, name",
    [
        ('backbone { name: "resnet50" } panoptic_deeplab { }', "Panoptic-DeepLab"),
        ('backbone { name: "resnet50" } motion_deeplab { }', "Motion-DeepLab"),
        ('backbone { name: "resnet50" } vip_deeplab { }', "ViP-DeepLab"),
        ('backbone { name: "resnet50" } deeplab_v3_plus { }', "DeepLabV3+"),
        ('backbone { name: "max_deeplab_xl" } max_deeplab { }', "max_deeplab_xl"),
        ('backbone { name: "kmax_vit" } max_deeplab { }', "kmax_vit"),
    ],
)
@pytest.mark.parametrize("build", [require_supported, build_model])
def test_other_families_parse_and_are_refused_by_name(write, model, name, build):
    config = load_config(write(f'model_options {{ {model} }} train_dataset_options {{ dataset: "kitti_step" }}'))
    with pytest.raises(ConfigError) as error:
        build(config)
    assert name in str(error.value) and "kmax_resnet50" in str(error.value)


@pytest.mark.parametrize(
    "dataset, backbone, family, lines",
    [
        (
            "cityscapes_panoptic",
            "swidernet",
            "panoptic_deeplab",
            ["=cityscapes/kmax_convnext_large", "google-"],
        ),
        (
            "coco_panoptic",
            "axial_swidernet",
            "panoptic_deeplab",
            ["_file=coco/kmax_axial_r50", "DeepLab2 itself"],
        ),
        ("coco_panoptic", "max_deeplab_xl", "max_deeplab", ["It has: kmax_resnet50", "=coco/max_s_1025_100k"]),
        ("ade20k_panoptic", "mobilenet_v3_large", "deeplab_v3", ["--config_file=ade20k/kmax_r50", "DeepLab2 itself"]),
        ("coco_panoptic", "resnet50", "max_deeplab", ["you mean 'kmax_resnet50'?", "_file=coco/kmax_r50"]),
        (
            "kitti_step",
            "resnet50",
            "motion_deeplab",
            ["docs/your_own_dataset.md", "videos are not supported"],
        ),
    ],
)
def test_refusals_say_how_to_go_on(write, dataset, backbone, family, lines):
    model = f'model_options {{ backbone {{ name: "{backbone}" }} {family} {{ }} }}'
    config = load_config(write(f'{model} train_dataset_options {{ dataset: "{dataset}" }}'))
    with pytest.raises(ConfigError) as error:
        require_supported(config)
    assert all(line in str(error.value) for line in lines), error.value
    assert ("DeepLab2 itself" in str(error.value)) == (family != "max_deeplab")


def test_every_family_and_encoder_has_a_nearest_config_that_can_be_built():
    for dataset in ("coco_panoptic", "cityscapes_panoptic", "ade20k_panoptic", "shapes"):
        for backbone in ("resnet50", "axial_deeplab", "max_deeplab_l_backbone", "convnext_h"):
            require_supported(load_config(nearest_config(dataset, backbone)))
    assert nearest_config("kitti_step", "resnet50") is None


def test_deeplab2s_own_configs_parse(request):
    folder = request.config.rootpath.parent / "shared" / "deeplab2_configs"
    if not folder.is_dir():
        pytest.skip(f"no DeepLab2 configs at {folder}")
    paths = sorted(folder.rglob("*.textproto"))
    assert len(paths) == 62
    bare_model_options = "example_kitti-step_motion_deeplab"
    for path in paths:
        if path.stem == bare_model_options:
            from deeplab2_kmax.protos import model_pb2

            text_format.Parse(path.read_text(), model_pb2.ModelOptions())
        else:
            load_config(str(path))
