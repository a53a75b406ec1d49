"""Kinds of errors on small maps that are drawn by hand."""

import numpy as np
import pytest

from deeplab2_kmax.evaluation.panoptic_quality import VOID, Segments, compare_segments, overlap_table
from deeplab2_kmax.results.segment_errors import Kind, segment_errors

CAT, DOG, SKY = 0, 1, 2


def errors_of(truth, prediction, classes_of_truth, classes_of_prediction, crowds=()):
    """Kinds by id, for maps of one row whose letters are segments; "." is void."""
    maps = [np.array([[ord(letter) for letter in row]]) for row in (truth, prediction)]
    true_ids, predicted_ids, overlaps = overlap_table(*maps)

    def segments(ids, areas, classes):
        letters = [chr(i) for i in ids]
        index = np.array([classes.get(letter, VOID) for letter in letters])
        return Segments(index, np.array([letter in crowds for letter in letters]), areas)

    of_truth = segments(true_ids, overlaps.sum(1), classes_of_truth)
    of_prediction = segments(predicted_ids, overlaps.sum(0), classes_of_prediction)
    found = segment_errors(of_truth, of_prediction, overlaps)
    counts = compare_segments(of_truth, of_prediction, overlaps, 3)
    # Whatever the kinds are called, they are the misses and false positives of panoptic quality.
    assert sum(kind is not None for kind in found.of_truth) == counts[3].sum()
    assert sum(kind is not None for kind in found.of_prediction) == counts[2].sum()
    by_id = [
        {chr(i): kind for i, kind in zip(ids, kinds) if kind is not None}
        for ids, kinds in ((true_ids, found.of_truth), (predicted_ids, found.of_prediction))
    ]
    return (*by_id, found)


def test_what_is_right_has_no_kind():
    assert errors_of("aaaa..ss", "aaaa..ss", {"a": CAT, "s": SKY}, {"a": CAT, "s": SKY})[:2] == ({}, {})


def test_missed_and_invented():
    true, predicted, found = errors_of("aaaassss", "....ssxx", {"a": CAT, "s": SKY}, {"s": SKY, "x": DOG})
    assert (true, predicted) == ({"a": Kind.MISSED, "s": Kind.INEXACT}, {"s": Kind.INEXACT, "x": Kind.INVENTED})
    assert found.counts()[Kind.INVENTED] == 1 and found.counts()[Kind.MISSED] == 1


def test_a_segment_under_another_name_is_a_wrong_class_on_both_sides():
    true, predicted, found = errors_of("aaaa....", "xxxx....", {"a": CAT}, {"x": DOG})
    assert (true, predicted) == ({"a": Kind.WRONG_CLASS}, {"x": Kind.WRONG_CLASS})
    assert found.confused == [(CAT, DOG)]
    # It counts once.
    assert sum(found.counts().values()) == 1


def test_a_segment_in_pieces_is_split():
    true, predicted, found = errors_of("aaaaaaaa..", "xxxyyyzz..", {"a": CAT}, {"x": CAT, "y": CAT, "z": CAT})
    assert true == {"a": Kind.SPLIT} and predicted == dict.fromkeys("xyz", Kind.SPLIT)
    assert found.counts()[Kind.SPLIT] == 1


def test_two_segments_under_one_prediction_are_merged():
    true, predicted, _ = errors_of("aaaabbbb", "xxxxxxxx", {"a": CAT, "b": CAT}, {"x": CAT})
    assert true == {"a": Kind.MERGED, "b": Kind.MERGED} and predicted == {"x": Kind.MERGED}


def test_the_larger_of_two_merged_segments_may_match_and_be_right():
    true, predicted, _ = errors_of("aaaaaabb", "xxxxxxxx", {"a": CAT, "b": CAT}, {"x": CAT})
    assert true == {"b": Kind.MERGED} and predicted == {}


def test_a_loose_outline_is_inexact_and_a_looser_one_is_missed():
    true, predicted, _ = errors_of("aaaaaa....", "..xxxxxxxx", {"a": CAT, ".": SKY}, {"x": CAT})
    assert true["a"] is Kind.INEXACT and predicted["x"] is Kind.INEXACT
    true, predicted, _ = errors_of("aaaaaassssss", ".....xxsssss", {"a": CAT, "s": SKY}, {"x": CAT, "s": SKY})
    assert true["a"] is Kind.MISSED and predicted["x"] is Kind.INVENTED


@pytest.mark.parametrize("crowds, classes", [("c", {"c": CAT}), ("", {})])
def test_what_lies_in_a_crowd_or_in_void_is_neither_right_nor_wrong(crowds, classes):
    assert errors_of("cccccccc", "xxxx....", classes, {"x": CAT}, crowds)[:2] == ({}, {})


def test_maps_of_void_only():
    assert errors_of("....", "....", {}, {})[:2] == ({}, {})
