"""Fixtures shared by all tests."""

import os
import pathlib
import signal

# A shell that starts the tests in the background has them ignore Ctrl-C, `nohup` the end of the terminal, and some test
# what these do.
for ignored, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        signal.signal(ignored, usual)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest  # noqa: E402

from helpers.memory import filed_gradients, give_back_memory  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]
pytest_plugins = ["helpers.exported_model"]
# They take longest. If they came last, one process would run them while the other has nothing left to do.
FIRST = ("your_own_dataset", "training")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.relative_to(ROOT / "tests").parts[0] not in FIRST)


@pytest.fixture(scope="module", autouse=True)
def memory_given_back():
    """Ends each test file with about the memory that it began with."""
    kept = filed_gradients()
    yield
    give_back_memory(kept)


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """Folder of figures computed by DeepLab2 and by panopticapi (see tests/golden/README.md)."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def configs() -> pathlib.Path:
    """Folder of the project's own experiment configs."""
    return ROOT / "configs"


@pytest.fixture(scope="session")
def coco_sample() -> pathlib.Path:
    """Two real COCO images with their annotations; they lie beside the project, not in it."""
    folder = ROOT.parent / "shared" / "coco_sample"
    if not folder.is_dir():
        pytest.skip(f"no COCO sample at {folder}")
    return folder


def golden_value(key: str, shape):
    """The float32 value that golden runs gave the variable with DeepLab2 checkpoint key `key`.

    Seeded by the key, scaled so that activations neither vanish nor explode.
    """
    import zlib

    import numpy as np

    random = np.random.RandomState(zlib.crc32(key.encode()))
    leaf = key.rsplit("/", 1)[-1]
    if leaf == "gamma":
        return random.uniform(0.3, 0.7, shape).astype(np.float32)
    if leaf == "moving_variance":
        return random.uniform(0.8, 1.6, shape).astype(np.float32)
    value = random.standard_normal(shape)
    if not leaf.endswith("kernel"):
        return (0.1 * value).astype(np.float32)
    inputs = shape[:2] if "depthwise" in leaf else shape[:-1]
    return (value * np.sqrt(1.0 / max(int(np.prod(inputs)), 1))).astype(np.float32)


def write_golden_checkpoint(keys: dict, prefix: str) -> str:
    """Writes {key: shape} with their golden values as an object-based checkpoint; knows nothing of our models."""
    import tensorflow as tf

    tree: dict = {}
    for key, shape in keys.items():
        *parents, leaf = key.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = tf.Variable(golden_value(key, shape))

    def checkpoint(node):
        if isinstance(node, dict):
            return tf.train.Checkpoint(**{name: checkpoint(child) for name, child in node.items()})
        return node

    return checkpoint(tree).write(prefix)


@pytest.fixture(scope="session", name="golden_value")
def golden_value_fixture():
    """The function `golden_value`."""
    return golden_value


@pytest.fixture(scope="session", name="write_golden_checkpoint")
def write_golden_checkpoint_fixture():
    """The function `write_golden_checkpoint`."""
    return write_golden_checkpoint


@pytest.fixture(scope="session")
def golden_keys(golden):
    """Case, e.g. "kmax_r50_coco" -> {key: shape} of the checkpoint that DeepLab2 writes.

    Models of full size are in one archive, the others in <case>.keys.json.
    """
    import json
    import lzma

    full_size = json.loads(lzma.decompress((golden / "checkpoint_keys.json.xz").read_bytes()))["architectures"]
    return lambda case: full_size.get(case) or json.loads((golden / f"{case}.keys.json").read_text())


@pytest.fixture(scope="session")
def golden_checkpoint(golden_keys, tmp_path_factory):
    """Case -> prefix of a checkpoint with DeepLab2's keys and golden values."""
    import functools

    @functools.cache
    def write(case: str) -> str:
        return write_golden_checkpoint(golden_keys(case), str(tmp_path_factory.mktemp(case) / "ckpt"))

    return write


CROP_65_97 = (
    "train_dataset_options.crop_size=65,97",
    "train_dataset_options.min_resize_value=",
    "train_dataset_options.max_resize_value=",
    "eval_dataset_options.crop_size=65,97",
    "eval_dataset_options.min_resize_value=",
    "eval_dataset_options.max_resize_value=",
)


@pytest.fixture(scope="session")
def small_crop() -> tuple[str, ...]:
    """Overrides that bring a config to the crop size of the golden cases."""
    return CROP_65_97


@pytest.fixture(scope="session")
def golden_config(configs):
    """data set -> config of kMaX-R50 on it at the crop size of the golden cases."""
    from deeplab2_kmax.config import load_config

    return lambda dataset: load_config(str(configs / dataset / "kmax_r50.textproto"), CROP_65_97)


@pytest.fixture(scope="session")
def coco_r50(golden_config, golden_checkpoint):
    """The full-size COCO model, restored strictly from the golden checkpoint. Tests leave its variables as they are."""
    from deeplab2_kmax.checkpoints import load_checkpoint
    from deeplab2_kmax.model import build_model

    model = build_model(golden_config("coco"))
    load_checkpoint(model, golden_checkpoint("kmax_r50_coco"))
    return model


TINY = (
    "train_dataset_options.crop_size=65,65",
    "eval_dataset_options.crop_size=65,65",
    "model_options.backbone.stem_channels=8",
    "model_options.backbone.stage_filters=4,4,8,8",
    "model_options.backbone.stage_blocks=1,1,1,1",
    # Most experiments predict masks at stride 4, unlike the demo.
    "model_options.max_deeplab.high_resolution_output_stride=4",
    "model_options.max_deeplab.pixel_decoder.filters=8,8,4,4",
    "model_options.max_deeplab.pixel_decoder.num_blocks=1,1,1,1",
    "model_options.max_deeplab.pixel_decoder.block_type=axial,axial,bottleneck,bottleneck",
    # The demo's rates are meant for its own width; with these, two ways of computing a step stay comparable for longer.
    "trainer_options.solver_options.base_learning_rate=2e-3",
    "trainer_options.solver_options.backbone_learning_rate_multiplier=1",
    "model_options.max_deeplab.transformer_decoder.num_blocks=1,1,1",
    "model_options.max_deeplab.transformer_decoder.center_channels=16",
    "model_options.max_deeplab.transformer_decoder.bottleneck_channels=16",
    "model_options.max_deeplab.transformer_decoder.key_channels=8",
    "model_options.max_deeplab.transformer_decoder.value_channels=16",
    "model_options.max_deeplab.transformer_decoder.feed_forward_channels=16",
    "model_options.max_deeplab.pixel_space_head.head_channels=8",
    "model_options.max_deeplab.pixel_space_head.output_channels=8",
)


@pytest.fixture(scope="session")
def tiny_overrides() -> tuple[str, ...]:
    """Overrides that make configs/shapes/kmax_tiny.textproto as narrow as tests like it."""
    return TINY


@pytest.fixture(scope="session")
def tiny_config(configs):
    """The shapes experiment with a few thousand weights at 65 x 65."""
    from deeplab2_kmax.config import load_config

    return load_config(str(configs / "shapes" / "kmax_tiny.textproto"), TINY)


TINY_MAX = (
    "train_dataset_options.crop_size=65,65",
    "eval_dataset_options.crop_size=65,65",
    "model_options.backbone.stem_channels=4",
    "model_options.backbone.stage_filters=4,4,8,8",
    "model_options.max_deeplab.transformer_decoder.center_channels=16",
    "model_options.max_deeplab.transformer_decoder.bottleneck_channels=16",
    "model_options.max_deeplab.transformer_decoder.key_channels=16",
    "model_options.max_deeplab.transformer_decoder.value_channels=16",
    "model_options.max_deeplab.transformer_decoder.feed_forward_channels=16",
    "model_options.max_deeplab.pixel_space_head.head_channels=8",
    "model_options.max_deeplab.pixel_space_head.output_channels=8",
)


@pytest.fixture(scope="session")
def tiny_max_overrides() -> tuple[str, ...]:
    """Overrides that make configs/shapes/max_deeplab_tiny.textproto as narrow as tests like it."""
    return TINY_MAX


@pytest.fixture(scope="session")
def tiny_max_config(configs):
    """(*overrides) -> the shapes experiment on MaX-DeepLab's skeleton with a few thousand weights at 65 x 65."""
    from deeplab2_kmax.config import load_config

    path = str(configs / "shapes" / "max_deeplab_tiny.textproto")
    return lambda *overrides: load_config(path, [*TINY_MAX, *overrides])
