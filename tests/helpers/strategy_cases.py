"""Training that is the same however its work is divided, for the tests of strategies; also run as a process.

    python strategy_cases.py mirrored config.textproto model_dir       two replicas on two logical CPUs
    python strategy_cases.py compiled config.textproto model_dir       one replica, compiled by XLA

Nothing is random: there is no drop path, no dropout, no sampling of pixels, and a flip does not change the records. A
step sees the whole data set, so that all divisions of the work have the same global batch.
"""

import pathlib
import sys

import numpy as np
import tensorflow as tf

from deeplab2_kmax.checkpoints import save_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config import config_to_text, load_config
from deeplab2_kmax.converters.shapes import convert_shapes
from deeplab2_kmax.model import build_model
from deeplab2_kmax.records import schema

STEPS = 10
_CONFIGS = pathlib.Path(__file__).parents[2] / "configs" / "shapes"
_DECODER = "model_options.max_deeplab.transformer_decoder."
_OVERRIDES = (
    "train_dataset_options.batch_size=4",
    "eval_dataset_options.batch_size=2",
    "train_dataset_options.crop_size=33,33",
    "eval_dataset_options.crop_size=33,33",
    "model_options.backbone.drop_path_keep_prob=1.0",
    "model_options.max_deeplab.transformer_decoder_drop_path_keep_prob=1.0",
    # That decoder has a dropout.
    "model_options.max_deeplab.use_auxiliary_semantic_decoder=false",
    "trainer_options.steps_per_loop=1",
    f"trainer_options.num_checkpoints_to_keep={STEPS}",
    "trainer_options.save_checkpoints_steps=1",
    "trainer_options.num_summary_images=0",
    f"trainer_options.solver_options.training_number_of_steps={STEPS}",
    # SGD's momentum after the first step is the gradient times the learning rate.
    "trainer_options.solver_options.optimizer=sgd",
    # Small, so that few pixels come to lie between two clusters. Rounding decides to which cluster such a pixel goes,
    # and the loss of that step differs by a thousandth (seen at 0.0003; the next one was equal to a millionth again).
    "trainer_options.solver_options.base_learning_rate=0.00005",
    "trainer_options.solver_options.warmup_steps=0",
    f"evaluator_options.eval_interval={STEPS}",
    "evaluator_options.num_summary_images=0",
    "evaluator_options.save_predictions=true",
    "evaluator_options.save_raw_predictions=true",
    # Weights that have learned nothing give low confidences.
    "evaluator_options.transformer_post_processing=pixelwise",
    "evaluator_options.transformer_class_confidence_threshold=0.0",
    "evaluator_options.pixel_confidence_threshold=0.0",
    "evaluator_options.thing_area_limit=0",
    "evaluator_options.stuff_area_limit=0",
)
_RULES = {
    "kmax": (
        f"{_DECODER}num_blocks=0,0,1",
        "model_options.max_deeplab.pixel_decoder.block_type=axial,bottleneck,bottleneck,bottleneck",
    ),
    # Samples as many pixels as there are, that is, all of them.
    "cmt": (f"{_DECODER}num_blocks=0,0,1", "model_options.max_deeplab.instance_discrimination_sample_k=81"),
    # No more masks than slots: otherwise similarities are rounded as in DeepLab2, and the two ways of matching choose
    # differently among assignments that then cost the same.
    # At five times this learning rate the curves differ from the fifth step on, by 0.6 % at the tenth.
    "max_deeplab": (
        "train_dataset_options.max_thing_id=8",
        "eval_dataset_options.max_thing_id=8",
        "trainer_options.solver_options.base_learning_rate=0.00001",
    ),
}


def write_case(folder: pathlib.Path, rule: str, narrow, golden_value) -> pathlib.Path:
    """Records, initial weights and the config that names them; returns its path."""
    records = folder / "records"
    if not records.exists():
        _write_symmetric_shapes(records, train=4, val=3, size=33)
    config = load_config(
        str(_CONFIGS / f"{rule}_tiny.textproto"),
        [
            *narrow,
            *_OVERRIDES,
            *_RULES[rule],
            f"train_dataset_options.file_pattern={records}/train-*",
            f"eval_dataset_options.file_pattern={records}/val-*",
            f"model_options.initial_checkpoint={folder / rule}",
        ],
    )
    model = build_model(config)
    for key, variable in checkpoint_variables(model).items():
        variable.assign(golden_value(key, tuple(variable.shape)))
    save_checkpoint(model, str(folder / rule))
    path = folder / f"{rule}.textproto"
    path.write_text(config_to_text(config))
    return path


def _write_symmetric_shapes(folder: pathlib.Path, train: int, val: int, size: int) -> None:
    """Drawn scenes, the right half of each the mirror image of the left, in two shards a split."""
    convert_shapes(str(folder), num_train=train, num_val=val, size=size, num_shards=2, num_processes=1)
    for shard in folder.glob("*.tfrecord"):
        records = [_symmetric(record.numpy()) for record in tf.data.TFRecordDataset(str(shard))]
        with tf.io.TFRecordWriter(str(shard)) as writer:
            for record in records:
                writer.write(record)
    (folder / "manifest.json").unlink()  # It tells the sizes that the shards had.


def _symmetric(serialized: bytes) -> bytes:
    features = tf.train.Example.FromString(serialized).features.feature

    def value(name: str) -> bytes:
        return features[name].bytes_list.value[0]

    image = tf.io.decode_image(value(schema.IMAGE_ENCODED)).numpy()
    label = np.frombuffer(value(schema.LABEL_ENCODED), schema.LABEL_DTYPE).reshape(image.shape[:2])
    half = (image.shape[1] + 1) // 2
    image, label = (np.concatenate([x[:, :half], x[:, : half - 1][:, ::-1]], axis=1) for x in (image, label))
    name = value(schema.IMAGE_FILENAME).decode()
    return schema.encode_record(tf.io.encode_png(image).numpy(), "png", name, np.ascontiguousarray(label))


def losses(run_folder: pathlib.Path) -> list[float]:
    """The total loss of each step, as TensorBoard has it."""
    found = {}
    for path in (run_folder / "train").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag == "losses/train_total_loss":
                    found[event.step] = float(tf.make_ndarray(value.tensor))
    assert sorted(found) == list(range(1, STEPS + 1))
    return [found[step] for step in sorted(found)]


def first_gradients(run_folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The momentum of each variable after the first step."""
    reader = tf.train.load_checkpoint(str(run_folder / "ckpt-1"))
    keys = [key for key in reader.get_variable_to_shape_map() if key.endswith("/momentum/.ATTRIBUTES/VARIABLE_VALUE")]
    assert len(keys) > 50
    return {key: reader.get_tensor(key) for key in keys}


def main(kind: str, config_path: str, model_dir: str) -> None:
    from deeplab2_kmax.training.mode import Mode
    from deeplab2_kmax.training.run import start

    config = load_config(config_path, ["trainer_options.xla=true"] if kind == "compiled" else [])
    if kind == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        start.create_strategy = lambda *_: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    start.start(config, Mode.TRAIN, model_dir)


if __name__ == "__main__":
    main(*sys.argv[1:])
