import numpy as np
import pytest

from deeplab2_kmax.converters.importing.painting import CROWDS, EMPTY, HIDDEN, OVERLAPPING, PaintRules, panoptic_label
from deeplab2_kmax.converters.importing.regions import AnnotatedImage, Polygons, Region
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import DataError

SHAPES = load_dataset("shapes")
BY_NAME = {c.name: c for c in SHAPES.classes}
CIRCLE, SKY = BY_NAME["circle"].id * 256, BY_NAME["sky"].id * 256


def box(x0, y0, x1, y1):
    return Polygons([[x0, y0, x1, y0, x1, y1, x0, y1]])


def region(name, *corners, **more):
    return Region(name, box(*corners), "export: region", **more)


def painted(*regions, overlaps="later_on_top", size=None, **more):
    rules = PaintRules(SHAPES, {**BY_NAME, "ignore": None}, overlaps, **more)
    image = AnnotatedImage("a", "a.png", regions, "export: a", size)
    return panoptic_label(image, 4, 6, rules)


@pytest.mark.parametrize(
    "overlaps, on_top, lost", [("later_on_top", 2, 2), ("earlier_on_top", 1, 4), ("smaller_on_top", 2, 2)]
)
def test_the_rule_decides_which_thing_is_on_top(overlaps, on_top, lost):
    # The second one covers 2 of 4 columns of the first, and 4 pixels in all.
    label, counts = painted(
        region("circle", 0, 0, 4, 4), region("circle", 2, 0, 4, 1), region("circle", 2, 1, 4, 2), overlaps=overlaps
    )
    assert label[0, 2] == CIRCLE + (on_top if overlaps != "earlier_on_top" else 1)
    if overlaps == "earlier_on_top":
        assert counts == {OVERLAPPING: 4, HIDDEN: 2}
    else:
        assert counts == {OVERLAPPING: 4}


def test_smaller_counts_the_whole_thing_not_its_parts():
    # A thing of two parts, 8 + 1 pixels, and one of 4 that covers a part of the first part and touches the second.
    first = [region("circle", 0, 0, 2, 4, instance="g"), region("circle", 5, 0, 6, 1, instance="g")]
    label, counts = painted(*first, region("square", 4, 0, 6, 2), overlaps="smaller_on_top")
    assert label[0, 5] == BY_NAME["square"].id * 256 + 1
    assert counts == {OVERLAPPING: 1}
    assert (label[:, :2] == CIRCLE + 1).all()


def test_levels_come_before_the_rule():
    label, _ = painted(region("circle", 0, 0, 4, 4, level=1), region("sky", 0, 0, 6, 4), overlaps="later_on_top")
    assert (label[:, :4] == CIRCLE + 1).all() and (label[:, 4:] == SKY).all()


def test_instances_are_numbered_by_annotation_and_hidden_ones_get_no_number():
    label, counts = painted(region("circle", 0, 0, 2, 2), region("circle", 0, 0, 3, 3), region("circle", 4, 0, 6, 4))
    assert sorted(set(label.ravel())) == [0, CIRCLE + 1, CIRCLE + 2]
    assert label[0, 5] == CIRCLE + 2 and counts == {OVERLAPPING: 4, HIDDEN: 1}


def test_stuff_below_things_is_no_loss_and_empty_regions_are_counted():
    label, counts = painted(region("sky", 0, 0, 6, 4), region("circle", 0, 0, 2, 2), region("star", 6, 0, 6.4, 4))
    assert counts == {EMPTY: 1}
    assert label[3, 5] == SKY


def test_two_regions_of_one_stuff_are_one_segment():
    label, _ = painted(region("sky", 0, 0, 1, 4), region("sky", 3, 0, 6, 4))
    assert set(label.ravel()) == {0, SKY}


def test_crowds_are_void_or_their_class():
    crowd = region("circle", 0, 0, 3, 4, is_crowd=True)
    label, counts = painted(crowd)
    assert set(label.ravel()) == {0} and counts == {CROWDS: 1}
    label, counts = painted(crowd, treat_crowd_as_ignore=False)
    assert set(label.ravel()) == {0, CIRCLE} and counts == {}
    with pytest.raises(DataError, match="export: region: expected a crowd of things, got one of the stuff 'sky'"):
        painted(region("sky", 0, 0, 3, 4, is_crowd=True))


def test_void_classes_and_background():
    label, _ = painted(region("ignore", 0, 0, 3, 4), background=BY_NAME["sky"])
    assert (label[:, :3] == 0).all() and (label[:, 3:] == SKY).all()


def test_more_instances_than_the_divisor_allows_are_refused():
    many = [region("circle", x / 100, 0, 6, 4) for x in range(256)]
    assert painted(*many[:3], overlaps="earlier_on_top")[0].max() == CIRCLE + 1  # only the first is visible
    dots = [Region("circle", box(k % 16, k // 16, k % 16 + 1, k // 16 + 1), "r") for k in range(256)]
    rules = PaintRules(SHAPES, BY_NAME, "later_on_top")
    with pytest.raises(DataError, match="export: a: expected at most 255 instances of 'circle'"):
        panoptic_label(AnnotatedImage("a", "a.png", dots, "export: a"), 16, 16, rules)
    label, _ = panoptic_label(AnnotatedImage("a", "a.png", dots[:255], "export: a"), 16, 16, rules)
    np.testing.assert_array_equal(label.ravel()[:255], CIRCLE + np.arange(1, 256))


def test_pictures_of_another_size_are_named():
    with pytest.raises(DataError, match="export: a: expected a picture of 5 x 4 pixels, .* got 6 x 4 in a.png$"):
        painted(size=(4, 5))
    with pytest.raises(DataError, match="got 6 x 4 in a.png; does EXIF turn the picture"):
        painted(size=(6, 4))
    painted(size=(4, 6))


def test_unknown_classes_are_refused():
    with pytest.raises(DataError, match="export: region: expected one of the classes circle, .*got 'cat'"):
        painted(region("cat", 0, 0, 1, 1))
