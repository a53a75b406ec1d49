"""Annotations that are read one by one, beside Python's json."""

import json

import pytest

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.annotation_file import read_annotation_file

ANNOTATIONS = [{"image_id": 1, "segments_info": [{"id": 2**24, "area": 1.5}]}, {"name": 'bär ]}, " \\'}, 3, None, []]
WHOLE = {
    "as COCO writes it": json.dumps({"info": {}, "annotations": ANNOTATIONS, "categories": [{"id": 1}]}),
    "indented, and first": json.dumps({"annotations": ANNOTATIONS, "categories": []}, indent=2) + "\n",
    "not ASCII": json.dumps({"annotations": ANNOTATIONS}, ensure_ascii=False),
    "no annotations": '{"annotations": []}',
    "the last of two lists": '{"annotations": [1, 2], "annotations": [3]}',
    "a list, then none": '{"annotations": [1], "annotations": 7}',
    "something else": '{"annotations": {"a": 1}, "x": NaN}',
    "without the key": '{"images": [1, {"annotations": [2]}]}',
    "empty": "{}",
}
BROKEN = [
    "",
    "{",
    '{"annotations": [1',
    '{"annotations": [1 2]}',
    '{"annotations": [1,]}',
    '{"a" 1}',
    "{} {}",
    '{"a": 1,}',
]
BROKEN += ['{1: 2, "annotations": []}', '{"annotations": [' + 5000 * "9" + "]}", '{"a": ' + 100_000 * "[" + "}"]


@pytest.mark.parametrize("text", WHOLE.values(), ids=WHOLE)
def test_reads_what_python_reads(tmp_path, text):
    (tmp_path / "a.json").write_text(text, "utf-8")
    kept, others = read_annotation_file(tmp_path / "a.json", lambda number, value, text: (number, value, text))
    expected = json.loads(text)
    annotations = expected.get("annotations")
    if not isinstance(annotations, list):
        assert kept is None
        return
    assert [(number, value) for number, value, _ in kept] == list(enumerate(annotations))
    assert [json.loads(text) for _, _, text in kept] == annotations
    del expected["annotations"]
    assert others == expected


def test_another_value_is_no_list_of_annotations(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    assert read_annotation_file(tmp_path / "a.json", lambda *_: 0) == (None, {})


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_says_what_is_wrong(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="cut off or broken at line 1|thousands of digits|nested beyond"):
        read_annotation_file(tmp_path / "a.json", lambda *_: 0)


def test_what_is_refused_is_passed_on(tmp_path):
    (tmp_path / "a.json").write_text(WHOLE["as COCO writes it"])

    def refuse(number, value, text):
        raise DataError(f"annotation {number}")

    with pytest.raises(DataError, match="annotation 0"):
        read_annotation_file(tmp_path / "a.json", refuse)
