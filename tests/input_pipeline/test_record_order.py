"""The order of records: the same again with a seed, after a restart too, and shared among workers without loss."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.errors import ConfigError, DataError
from deeplab2_kmax.input_pipeline import build_dataset
from deeplab2_kmax.input_pipeline.record_order import random_orders, records_in_order, share_of
from deeplab2_kmax.input_pipeline.settings import PipelineSettings
from helpers.pipeline_records import labels, options, record, write

PASTE = {
    "max_scale_factor": 2.0,
    "panoptic_copy_paste": {"panoptic_copy_paste_scale": 0.5, "panoptic_copy_paste_thing_option": "all"},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Eleven records in three shards, and an empty one."""
    folder = tmp_path_factory.mktemp("shards")
    for number, size in enumerate((4, 0, 2, 5)):
        seeds = [10 * number + i for i in range(size)]
        write(folder / f"{number}", [record(name=str(s), seed=s, label=labels(12, 16, seed=s)) for s in seeds])
    return str(folder / "*")


def batches(pattern, count, first_step=0, input_context=None, **fields):
    values = {"batch_size": 4, "seed": 3, "shuffle_buffer_size": 4, "augmentations": PASTE, **fields}
    dataset = build_dataset(options(pattern, **values), True, input_context, first_step=first_step)
    return [{key: value.numpy() for key, value in batch.items()} for batch in dataset.take(count)]


def assert_equal(some, others):
    assert len(some) == len(others)
    for batch, other in zip(some, others):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key], err_msg=key)


# Of eleven records, in batches of four: within the first epoch, at its end, in the third.
@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_restarted_run_goes_on_where_it_stopped(shards, step):
    assert_equal(batches(shards, 9)[step:], batches(shards, 9 - step, first_step=step))


def test_restarted_run_of_two_workers(shards):
    for worker in range(2):
        context = tf.distribute.InputContext(2, worker, num_replicas_in_sync=2)
        whole = batches(shards, 6, input_context=context)
        assert whole[0]["image"].shape[0] == 2
        assert_equal(whole[4:], batches(shards, 2, first_step=4, input_context=context))


def test_order_begins_anew_where_it_shall(shards):
    again = batches(shards, 2, first_step=3, resume_in_order=False)
    assert_equal(batches(shards, 2), again)


def test_resuming_needs_a_seed():
    with pytest.raises(ConfigError, match="resume_in_order: needs a seed"):
        PipelineSettings.from_options(options("x", resume_in_order=True), is_training=True)
    assert not PipelineSettings.from_options(options("x"), is_training=True).resume_in_order


def names_of(dataset):
    def name(serialized):
        return tf.train.Example.FromString(serialized).features.feature["image/filename"].bytes_list.value[0].decode()

    return [name(serialized.numpy()) for serialized in dataset]


def paths(tmp_path, sizes):
    return [
        write(tmp_path / str(shard), [record(name=f"{shard}-{i}") for i in range(size)])
        for shard, size in enumerate(sizes)
    ]


# More files than workers, as many, fewer, and files of one record.
@pytest.mark.parametrize("sizes", [(4, 0, 2, 5), (3, 2), (7,), (1, 1, 1)])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_each_record_goes_to_one_worker_once(tmp_path, sizes, workers):
    shards = paths(tmp_path, sizes)
    everything = [f"{shard}-{i}" for shard, size in enumerate(sizes) for i in range(size)]
    settings = PipelineSettings.from_options(options("x", shuffle_buffer_size=3), is_training=True)
    in_order, at_random = [], []
    for worker in range(workers):
        share = share_of(shards, tf.distribute.InputContext(workers, worker, num_replicas_in_sync=workers))
        own = names_of(records_in_order(share))
        assert own == sorted(own) and len(own) == share.count() > 0
        (order,) = random_orders(share, settings, seed=1)
        three_epochs = names_of(order.take(3 * len(own)))
        assert collections.Counter(three_epochs) == {name: 3 for name in own}
        in_order += own
        at_random += three_epochs[: len(own)]
    assert sorted(in_order) == sorted(at_random) == everything


def test_epochs_differ(tmp_path):
    share = share_of(paths(tmp_path, (20,)), None)
    settings = PipelineSettings.from_options(options("x"), is_training=True)
    (order,) = random_orders(share, settings, seed=1)
    names = names_of(order.take(60))
    assert len({tuple(names[i : i + 20]) for i in (0, 20, 40)}) == 3
    assert names != names_of(random_orders(share, settings, seed=2)[0].take(60))


def test_worker_without_any_record(tmp_path):
    share = share_of(paths(tmp_path, (1,)), tf.distribute.InputContext(2, 1, num_replicas_in_sync=2))
    settings = PipelineSettings.from_options(options("x"), is_training=True)
    with pytest.raises(DataError, match=r"no record for worker 1: 2 workers for 1 file with too few"):
        random_orders(share, settings, seed=1)
