import pytest

from deeplab2_kmax.converters.importing.xml_document import load_xml, number_of_text, whole_of_text
from deeplab2_kmax.errors import DataError


@pytest.mark.parametrize("text, value", [("1", 1), (" -2.50 ", -2.5), ("1e2", 100), ("+.5", 0.5), ("7.", 7)])
def test_numbers(text, value):
    assert number_of_text(text, "a.xml") == value


@pytest.mark.parametrize("text", ["", "nan", "inf", "1e400", "1_0", "\u0663", "0x1", "1,2", "1e30"])
def test_what_python_would_take_for_a_number(text):
    with pytest.raises(DataError, match="a.xml: expected a number, got"):
        number_of_text(text, "a.xml")


def test_whole_numbers():
    assert [whole_of_text(text, "a.xml") for text in ("12", " -3", "4.00")] == [12, -3, 4]
    for text in ("4.5", "1e2", "", "\u0663", "9" * 30):
        with pytest.raises(DataError, match="a.xml: expected a whole number, got"):
            whole_of_text(text, "a.xml")


def test_places_and_missing_fields(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("<root><a/><b x='1' y=' '><c>text</c></b><b/></root>")
    first, second = load_xml(str(path), "root").children("b")
    assert (first.number("x"), first.number("z", None), first.child_content("c"), "y" in first) == (
        1,
        None,
        "text",
        True,
    )
    with pytest.raises(DataError, match=r"a.xml: b 0: y: expected a name, got \" \""):
        first.name("y")
    with pytest.raises(DataError, match="a.xml: b 1: expected the attribute x, which is missing"):
        second.whole("x")
    with pytest.raises(DataError, match="a.xml: b 1: expected one element <c>, got none"):
        second.child_content("c")


@pytest.mark.parametrize("text", ["<root>", "<root a='1' a='2'/>", "root", "<root/><root/>", "<root>&x;</root>"])
def test_what_is_no_xml(tmp_path, text):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=r"a.xml: expected XML, but it is cut off or broken at line 1, column \d+"):
        load_xml(str(tmp_path / "a.xml"), "root")
