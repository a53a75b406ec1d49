"""Records with bytes flipped, cut off or swapped: each is named or decodes, none ends the check."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax.dataset_check import Limits, make_report
from deeplab2_kmax.dataset_check.records import check_record
from deeplab2_kmax.dataset_check.report import Place
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.records import schema

RECORDS = 200


def _record(image_format):
    random = np.random.RandomState(0)
    encoded = io.BytesIO()
    Image.fromarray(random.randint(0, 256, (24, 32, 3), np.uint8)).save(encoded, format=image_format)
    label = np.repeat(np.array([5 * 256, 257, 258, 0], np.int32), 8)[None].repeat(24, 0)
    return schema.encode_record(encoded.getvalue(), image_format, "image", label)


def _mutated(record, random):
    """A record in which one of three things has gone wrong."""
    how = random.randint(3)
    if how == 0:
        changed = bytearray(record)
        for place in random.randint(0, len(record), random.randint(1, 8)):
            changed[place] ^= 1 << random.randint(8)
        return bytes(changed)
    if how == 1:
        return record[: random.randint(len(record))]
    example = tf.train.Example.FromString(record)
    features = example.features.feature
    first, second = random.choice(sorted(features), 2, replace=False)
    kept = features[first].SerializeToString()
    features[first].CopyFrom(features[second])
    features[second].ParseFromString(kept)
    return example.SerializeToString()


@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_mutated_records_are_named_or_decode(image_format):
    record, descriptor = _record(image_format), load_dataset("shapes")
    assert not check_record(record, descriptor, True, Limits(128, 128)).faults
    random = np.random.RandomState(1)
    found = []
    for index in range(RECORDS // 2):
        mutated = _mutated(record, random)
        facts = check_record(mutated, descriptor, True, Limits(128, 128))
        assert facts.faults or facts.areas is not None
        found.append((Place("shard", index), facts))
    report = make_report("train", descriptor, ["shard"], found)
    assert report.records == RECORDS // 2
    assert not report.can_train
