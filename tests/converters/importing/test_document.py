import pytest

from deeplab2_kmax.converters.importing.document import Entry, load_json, load_json_object, load_yaml_object
from deeplab2_kmax.errors import DataError


def entry(**content):
    return Entry(content, "export.json: shapes[3]")


@pytest.mark.parametrize(
    "method, value, reason",
    [
        ("text", 7, "expected text, got 7"),
        ("text", ["a"], r'expected text, got \["a"\]'),
        ("name", "  ", 'expected a name, got "  "'),
        ("number", "7", 'expected a number, got "7"'),
        ("number", True, "expected a number, got true"),
        ("number", 10**400, "expected a number, got 1000000"),
        ("number", float("inf"), "expected a number, got Infinity"),
        ("whole", 0.5, "expected a whole number, got 0.5"),
        ("whole", "7", "expected a whole number"),
        ("whole", float("nan"), "expected a whole number, got NaN"),
        ("flag", "0", 'expected 0, 1, true or false, got "0"'),
        ("flag", 2, "expected 0, 1, true or false, got 2"),
        ("flag", [], r"expected 0, 1, true or false, got \[\]"),
        ("items", {"a": 1}, 'expected a list, got {"a": 1}'),
        ("entry", [], "expected an object, got"),
        ("entries", "x", "expected a list, got"),
    ],
)
def test_fields_of_another_type_are_refused_by_their_place(method, value, reason):
    with pytest.raises(DataError, match=rf"^export.json: shapes\[3\].field: {reason}"):
        getattr(entry(field=value), method)("field")


def test_elements_of_lists_are_refused_by_their_place():
    with pytest.raises(DataError, match=r"shapes\[3\].points\[1\]: expected a number, got null"):
        entry(points=[0, None]).numbers("points")
    with pytest.raises(DataError, match=r"shapes\[3\].parts\[1\]: expected an object, got 5"):
        entry(parts=[{}, 5]).entries("parts")
    (part,) = entry(parts=[{"id": "x"}]).entries("parts")
    with pytest.raises(DataError, match=r"shapes\[3\].parts\[0\].id: expected a whole number"):
        part.whole("id")


def test_missing_fields_and_null_need_a_default():
    with pytest.raises(DataError, match=r"expected the field label, .*missing or null; did you mean 'labels'"):
        entry(labels="x").text("label")
    assert entry(label=None).text("label", None) is None
    assert entry().flag("iscrowd", False) is False
    assert "label" not in entry(label=None)


def test_what_is_right_is_returned():
    full = entry(a=" x ", b=7.0, c=1, d=[1, 2.5], e={"f": 1}, g=True)
    assert (full.name("a"), full.whole("b"), full.flag("c"), full.numbers("d")) == ("x", 7, True, [1, 2.5])
    assert (full.entry("e").whole("f"), full.flag("g")) == (1, True)
    assert isinstance(full.whole("b"), int)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "got an empty file"),
        (b" \n", "got an empty file"),
        (b'{"a": 1', "expected JSON, but it is cut off or broken at line 1, column 8"),
        (b'{"a": 1, "a": 2}', 'expected keys that differ in an object, got "a" twice'),
        (b'{"a": NaN}', "expected finite numbers, got NaN"),
        (b'{"a": -Infinity}', "expected finite numbers, got -Infinity"),
        (b'{"a": "\xe4"}', "expected text in UTF-8, got the byte 0xe4 at byte 7"),
        (b"[" * 100_000, "nesting beyond all measure"),
        (b'"text"', 'expected a JSON object or list, got "text"'),
    ],
)
def test_files_that_are_no_annotations_are_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "export.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        load_json(str(path))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_byte_order_marks_and_missing_files(tmp_path):
    path = tmp_path / "export.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert load_json_object(str(path)).whole("a") == 1
    path.write_text("[1]")
    assert load_json(str(path)) == [1]
    with pytest.raises(DataError, match="expected a JSON object, got a list"):
        load_json_object(str(path))
    with pytest.raises(DataError, match="none.json: cannot read the annotations: No such file"):
        load_json(str(tmp_path / "none.json"))


def test_points_are_pairs_of_numbers():
    assert entry(points=[[1, 2.5], [3, 4]]).points("points") == [1, 2.5, 3, 4]
    with pytest.raises(DataError, match=r"shapes\[3\].points\[1\]: expected x and y of a point, got \[3\]"):
        entry(points=[[1, 2], [3]]).points("points")


def test_yaml_is_read_as_strictly(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text("names: {0: cat, 1: dog}\ntrain: images # a comment\n")
    content = load_yaml_object(str(path))
    assert content.raw("names") == {0: "cat", 1: "dog"} and content.text("train") == "images"
    path.write_text("names: {0: cat, 0: dog}\n")
    with pytest.raises(DataError, match='data.yaml: expected keys that differ in an object, got "0" twice'):
        load_yaml_object(str(path))


def test_half_characters_are_refused_and_whole_ones_are_not(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(r'{"name": "\ud83d\ude00"}')
    assert load_json(str(path)).name("name") == "\U0001f600"
    path.write_text(r'{"name": "\ud83d"}')
    with pytest.raises(DataError, match=r"a.json: expected whole characters, got \\ud83d, which is half of one"):
        load_json(str(path))


def test_names_are_of_one_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(r'{"name": " a b\t", "broken": "a\nb", "blank": " "}')
    entry = load_json(str(path))
    assert entry.name("name") == "a b"
    for field in ("broken", "blank"):
        with pytest.raises(DataError, match=f"a.json: {field}: expected a name, got"):
            entry.name(field)
