"""Records with random damage: each decodes or is named; none stops the process or keeps it waiting."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax.input_pipeline import BadRecords, build_dataset, data_errors
from deeplab2_kmax.records import schema
from deeplab2_kmax.records.tfrecord import regions
from helpers.pipeline_records import labels, options, pixels, png, record, write

COUNT = 200


def jpeg(image, **save):
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="jpeg", **save)
    return encoded.getvalue()


def sound_record(number):
    image = pixels(12, 16, number)
    kind, encoded = [("png", png(image)), ("jpeg", jpeg(image)), ("jpeg", jpeg(image, progressive=True))][number % 3]
    return schema.encode_record(encoded, kind, str(number), labels(12, 16, seed=number))


def flip_bytes(serialized, random):
    changed = bytearray(serialized)
    for place in random.integers(len(changed), size=random.integers(1, 9)):
        changed[place] ^= random.integers(1, 256)
    return bytes(changed)


def cut_short(serialized, random):
    return serialized[: random.integers(len(serialized))]


def swap_fields(serialized, random):
    example = tf.train.Example.FromString(serialized)
    names = sorted(example.features.feature)
    one, other = (example.features.feature[names[i]] for i in random.choice(len(names), 2, replace=False))
    kept = tf.train.Feature.FromString(one.SerializeToString())
    one.CopyFrom(other)
    other.CopyFrom(kept)
    return example.SerializeToString()


def odd_number(serialized, random):
    example = tf.train.Example.FromString(serialized)
    field = random.choice([schema.IMAGE_HEIGHT, schema.IMAGE_WIDTH])
    example.features.feature[field].int64_list.value[0] = random.choice([-1, 0, 2**31, 2**32 + 12, 2**62, 60000])
    return example.SerializeToString()


def odd_field(serialized, random):
    """Within one field, as damage before the record was written makes it."""
    example = tf.train.Example.FromString(serialized)
    field = random.choice([schema.IMAGE_ENCODED, schema.LABEL_ENCODED, schema.IMAGE_FORMAT, schema.LABEL_FORMAT])
    mutate = random.choice([flip_bytes, cut_short])
    value = example.features.feature[field].bytes_list.value
    value[0] = mutate(value[0], random)
    return example.SerializeToString()


MUTATIONS = [flip_bytes, cut_short, swap_fields, odd_number, odd_field]


def run(pattern, limit, is_training=False, **fields):
    chosen, bad = options(pattern, max_bad_records=limit, **fields), BadRecords(limit)
    with data_errors(chosen, is_training):
        dataset = build_dataset(chosen, is_training, bad_records=bad)
        return sum(len(batch["image"]) for batch in (dataset.take(20) if is_training else dataset)), list(bad)


@pytest.fixture(scope="module")
def mutated(tmp_path_factory):
    random = np.random.default_rng(7)
    records = [MUTATIONS[i % len(MUTATIONS)](sound_record(i), random) for i in range(COUNT)]
    return write(tmp_path_factory.mktemp("mutated") / "records", records)


def test_each_decodes_or_is_named(mutated):
    decoded, bad = run(mutated, COUNT)
    assert decoded + len(bad) == COUNT
    assert 120 < len(bad) < COUNT
    for each in bad:
        assert each.shard == mutated and each.reason.isprintable() and 10 < len(each.reason) < 500, each
        assert "Traceback" not in each.reason and "{{" not in each.reason


def test_training_goes_on_with_what_decodes(mutated):
    assert run(mutated, COUNT, is_training=True, batch_size=8)[0] == 160


@pytest.mark.parametrize("seed", range(8))
def test_damage_anywhere_in_a_file(tmp_path, seed):
    """Bytes overwritten without regard to records: what is left out was hit, all the rest comes out."""
    random = np.random.default_rng(seed)
    path = tmp_path / "records"
    write(path, [record(name=str(i), seed=i) for i in range(20)])
    places = [(region.offset, region.offset + region.size) for region in regions(str(path))]
    content = bytearray(path.read_bytes())
    hit = set()
    for _ in range(3):
        begin, size = random.integers(len(content)), random.integers(1, 40)
        content[begin : begin + size] = random.bytes(len(content[begin : begin + size]))
        hit |= {i for i, (first, end) in enumerate(places) if first < begin + size and begin < end}
    path.write_bytes(content)
    decoded, bad = run(str(path), 20)
    assert decoded == 20 - len(hit)
    assert 1 <= len(bad) <= len(hit)
