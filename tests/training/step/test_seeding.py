"""The seed of a run beside that of its data."""

import pytest
import tensorflow as tf

from deeplab2_kmax.converters.shapes import convert_shapes
from deeplab2_kmax.input_pipeline import build_dataset
from deeplab2_kmax.protos import dataset_pb2
from deeplab2_kmax.training.step.seeding import Seeding


@pytest.fixture
def unseeded():
    yield
    tf.random.set_seed(None)


def test_seed_zero_goes_with_a_seeded_order_of_records(tmp_path, unseeded):
    convert_shapes(str(tmp_path), num_train=4, num_val=1, size=33, num_processes=1)
    options = dataset_pb2.DatasetOptions(
        dataset="shapes", file_pattern=[str(tmp_path / "train-*")], batch_size=4, crop_size=[33, 33], seed=0
    )
    Seeding(0).begin()
    batch = next(iter(build_dataset(options, is_training=True)))
    assert batch["image"].shape == [4, 33, 33, 3]
