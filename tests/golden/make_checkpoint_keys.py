"""Writes checkpoint_keys.json.xz, the checkpoint keys of DeepLab2's models: make_checkpoint_keys.py FOLDER

FOLDER is the folder `configs` of google-research/deeplab2, which has to be importable; this project is not needed. One
model is built for each data set and encoder (30 s and up to 4 GB each), and the checkpoint that DeepLab2 writes for it
is read back.
"""

import json
import lzma
import pathlib
import re
import sys
import tempfile

import tensorflow as tf
from deeplab2 import config_pb2
from deeplab2.data import dataset
from deeplab2.trainer import train_lib
from google.protobuf import text_format

CROP = (65, 97)
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# A field that one config sets and DeepLab2 does not know.
UNKNOWN = "transformer_decoder_drop_path_keep_prob"


def read(path: pathlib.Path) -> config_pb2.ExperimentOptions:
    """The config at `path` for images of CROP, without files of weights."""
    text = "\n".join(line for line in path.read_text().splitlines() if UNKNOWN not in line)
    config = text_format.Parse(text, config_pb2.ExperimentOptions())
    for options in (config.train_dataset_options, config.eval_dataset_options):
        options.dataset = options.dataset or "coco_panoptic"
        options.crop_size[:] = CROP
        options.ClearField("min_resize_value")
        options.ClearField("max_resize_value")
    config.model_options.backbone.ClearField("pretrained_weights")
    config.model_options.ClearField("initial_checkpoint")
    return config


def architecture_name(config: config_pb2.ExperimentOptions) -> str:
    """kmax_r50_coco, max_l_coco: the name stands for encoder and data set, on which alone the variables depend."""
    encoder = re.sub("_deeplab|esnet", "", config.model_options.backbone.name)
    return f"{encoder}_{config.train_dataset_options.dataset.removesuffix('_panoptic')}"


def shapes_by_key(config: config_pb2.ExperimentOptions) -> dict:
    """{checkpoint key: shape} of the model's checkpoint."""
    descriptor = dataset.MAP_NAME_TO_DATASET_INFO[config.train_dataset_options.dataset]
    model = train_lib.create_deeplab_model(config, descriptor)
    model(tf.keras.Input([*CROP, 3], batch_size=1), training=False)
    with tempfile.TemporaryDirectory() as folder:
        prefix = tf.train.Checkpoint(**model.checkpoint_items).write(f"{folder}/ckpt")
        stored = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    return {key[: -len(VALUE)]: list(stored[key]) for key in sorted(stored) if key.endswith(VALUE)}


def write(experiments: dict, architectures: dict) -> None:
    """Stores the result beside this file."""
    text = json.dumps({"experiments": experiments, "architectures": architectures}, sort_keys=True)
    pathlib.Path(__file__).with_name("checkpoint_keys.json.xz").write_bytes(lzma.compress(text.encode(), preset=9))


def main(folder: pathlib.Path) -> None:
    """Collects the keys of every config with a max_deeplab model below `folder`."""
    experiments, architectures = {}, {}
    for path in sorted(folder.rglob("*.textproto")):
        if "max_deeplab {" in path.read_text():
            config = read(path)
            name = architecture_name(config)
            experiments[str(path.relative_to(folder).with_suffix(""))] = name
            if name not in architectures:
                architectures[name] = shapes_by_key(config)
                tf.keras.backend.clear_session()
    write(experiments, architectures)
    print(f"{len(experiments)} experiments, {len(architectures)} architectures")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
