"""The ADE20K converter: labels by hand, and broken trees that are named."""

import numpy as np
import pytest

from deeplab2_kmax.converters.ade20k import convert_ade20k
from deeplab2_kmax.errors import DataError

FIRST, SECOND = "ADE_train_00000001", "ADE_train_00000002"


@pytest.mark.parametrize("treat_crowd_as_ignore", [True, False])
def test_labels_of_things_stuff_crowd_and_void(ade20k, tmp_path, examples, label_of, treat_crowd_as_ignore):
    options = {"treat_crowd_as_ignore": treat_crowd_as_ignore, "num_processes": 1}
    written = examples(convert_ade20k(str(ade20k.root), str(tmp_path / "out"), **options))
    assert list(written) == [FIRST, SECOND, "ADE_val_00000001"]
    # The sky was 640 pixels before the person covered some: no error.
    assert ade20k.json["train"][0]["segments_info"][0]["area"] == 640
    expected = np.zeros((24, 32), np.int32)
    expected[:20] = 3 * 1000
    expected[10:20, :9] = 13 * 1000 + 1
    np.testing.assert_array_equal(label_of(written[FIRST]), expected)
    label = label_of(written[SECOND])
    crowd = 0 if treat_crowd_as_ignore else 13 * 1000
    assert (label[0, 0], label[12, 3], label[12, 20]) == (0, crowd, 13 * 1000 + 1)


def _segment(ade20k, **changes):
    ade20k.json["train"][0]["segments_info"][1].update(changes)
    ade20k.save()


BREAKAGES = {
    "category": (
        lambda a: _segment(a, category_id=150),
        f"{FIRST}.png: segment 513: .*category_id .*got 150",
    ),
    "id": (lambda a: _segment(a, id=514), f"{FIRST}.png: segment 513: 90 pixels of this id"),
    "stuff crowd": (lambda a: _segment(a, category_id=2, iscrowd=1), f"{FIRST}.png: segment 513: .*'sky'"),
    "no png": (lambda a: a.png_path("train", SECOND).unlink(), f"{SECOND}.png: no such file"),
    "no json": (lambda a: a.json_path("val").unlink(), "ade20k_panoptic_val.json: cannot read"),
    "no split": (lambda a: a.root.rename(a.root.parent / "moved"), "ade20k_root: .*images/training, images/valid"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_broken_input_is_named(ade20k, tmp_path, name):
    breakage, reason = BREAKAGES[name]
    breakage(ade20k)
    with pytest.raises(DataError, match=reason):
        convert_ade20k(str(ade20k.root), str(tmp_path / "out"), num_processes=1)
    assert not list(tmp_path.glob("out/*.tfrecord"))
