"""`deeplab2-kmax compare`: figures that are known, what cannot be compared, and what is printed."""

import json
import subprocess
import sys

import numpy as np
import pytest

from deeplab2_kmax import files
from deeplab2_kmax.cli import main as command
from deeplab2_kmax.datasets import SegmentClass
from deeplab2_kmax.errors import DataError, UserError
from deeplab2_kmax.evaluation.per_image import ImageFigures
from deeplab2_kmax.results.comparison import NOT_SHOWN, compare, image_qualities
from deeplab2_kmax.results.result_files import find_figures

CLASSES = (SegmentClass(1, "cat", True, (255, 0, 0), 17), SegmentClass(2, "sky", False, (0, 0, 255), 42))
IMAGES = 40


def figures(cat_quality, seed=0, order=None, classes=CLASSES, names=None):
    """Results in which cats are matched with this probability, and skies always."""
    random = np.random.default_rng(seed)
    found = ImageFigures("pets", classes)
    names = names or [f"image {number}" for number in range(IMAGES)]
    states = []
    for _ in names:
        hits = random.binomial(3, cat_quality)
        states.append(np.array([[0.8 * hits, 0.9], [hits, 1], [0, 0], [3 - hits, 0]], float))
    for index in order if order is not None else range(len(names)):
        found.add(names[index], states[index])
    return found


def saved(folder, **results):
    paths = []
    for name, result in results.items():
        paths.append(str(folder / f"{name}.npz"))
        result.save(paths[-1])
    return paths


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        command.main(["compare", *map(str, arguments)])
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_differences_are_those_of_the_results_and_shown_where_they_are_large(tmp_path):
    low, high = figures(0.3), figures(0.8, seed=1)
    found = compare(saved(tmp_path, a=low, b=high))
    (pairing,) = found.pairings
    everything, things, stuff = pairing.averages
    for row, group in ((everything, "all"), (things, "things"), (stuff, "stuff")):
        of_low, of_high = (getattr(each.result(), group).pq for each in (low, high))
        assert (row.first, row.second) == pytest.approx((of_low, of_high))
        assert row.difference.value == pytest.approx(of_high - of_low)
    cat, sky = pairing.classes
    assert cat.difference.is_shown and cat.difference.low > 0 and everything.difference.is_shown
    assert sky.difference.value == 0 and not sky.difference.is_shown
    report = found.report()
    assert "better" in report and "not shown" in report and NOT_SHOWN in " ".join(report.split())
    assert all(len(line) <= 80 for line in report.splitlines()[3:])


def test_images_in_another_order_are_brought_together(tmp_path):
    """Pairs count: the same result in another order is no difference at all, with no interval around it."""
    same = figures(0.5)
    turned = figures(0.5, order=np.random.default_rng(3).permutation(IMAGES))
    row = compare(saved(tmp_path, a=same, b=turned)).pairings[0].averages[0]
    assert abs(row.difference.value) < 1e-12 and abs(row.difference.low) < 1e-12 and abs(row.difference.high) < 1e-12
    assert f"B and A: {NOT_SHOWN}" in compare(saved(tmp_path, a=same, b=turned)).report()


def test_images_of_one_name_are_paired_in_their_order(tmp_path):
    names = [f"image {number % 20}" for number in range(IMAGES)]
    same = figures(0.5, names=names)
    assert compare(saved(tmp_path, a=same, b=same)).pairings[0].averages[0].difference.high == 0


def test_three_results_are_compared_with_the_first(tmp_path, capsys):
    paths = saved(tmp_path, a=figures(0.3), b=figures(0.4, 1), c=figures(0.9, 2))
    status, printed, _ = run(capsys, *paths, f"--json={tmp_path / 'out.json'}", "--draws=300")
    assert status == 0
    assert "B - A" in printed and "C - A" in printed and "95 % of 300 times" in " ".join(printed.split())
    content = json.loads((tmp_path / "out.json").read_text())
    assert [each["result"] for each in content["differences_to_the_first"]] == paths[1:]
    cat = content["differences_to_the_first"][1]["per_class"]["cat"]
    assert cat["is_shown"] and cat["low"] < cat["difference"] < cat["high"]


def with_sky(found, sky):
    """The same results with other figures of skies: sum of IoU, TP, FP, FN."""
    changed = ImageFigures("pets", CLASSES)
    for name, state in zip(found.names, found.states()):
        changed.add(name, np.stack([state[:, 0], sky], 1))
    return changed


def test_a_class_that_only_one_side_has_is_shown_without_a_difference(tmp_path, capsys):
    """No truth has a sky; one side has invented some."""
    first, second = with_sky(figures(0.5), [0, 0, 1, 0]), with_sky(figures(0.5), [0, 0, 0, 0])
    status, printed, _ = run(capsys, *saved(tmp_path, a=first, b=second), f"--json={tmp_path / 'out.json'}")
    assert status == 0
    assert next(line for line in printed.splitlines() if line.startswith("sky")).split() == ["sky", "0.00", "-", "-"]
    assert (
        json.loads((tmp_path / "out.json").read_text())["differences_to_the_first"][0]["per_class"]["sky"]["pq"] is None
    )


@pytest.mark.parametrize("remote", [False, True])
def test_results_are_found_by_folder_and_by_metrics(tmp_path, remote):
    folder = "ram://compared" if remote else str(tmp_path)
    for step in (9, 100):
        figures(0.5).save(files.join(folder, "run", "eval", f"images-{step}.npz"))
    # Results of fewer images, or under other settings.
    figures(0.5).save(files.join(folder, "run", "eval", "images-200-3-images-abc.npz"))
    expected = files.join(folder, "run", "eval", "images-100.npz")
    assert find_figures(files.join(folder, "run")) == expected
    assert find_figures(files.join(folder, "run", "eval")) == expected
    assert find_figures(files.join(folder, "run", "eval", "metrics-100.json")) == expected
    assert find_figures(expected) == expected
    with pytest.raises(DataError, match="expected images-<step>.npz there or in its folder eval, got none"):
        files.make_folder(files.join(folder, "empty"))
        files.write_text(files.join(folder, "empty", "notes.txt"), "")
        find_figures(files.join(folder, "empty"))
    with pytest.raises(DataError, match="metrics-7.json: expected the figures of each image in .*images-7.npz"):
        find_figures(files.join(folder, "metrics-7.json"))


def test_what_cannot_be_compared_is_refused_by_name(tmp_path, capsys):
    good, shorter = figures(0.5), figures(0.5, names=["image 0", "photo"])
    paths = saved(tmp_path, good=good, shorter=shorter, empty=ImageFigures("pets", CLASSES))
    status, _, _ = run(capsys, *paths[:2])
    assert isinstance(status, str) and "only" in status
    with pytest.raises(DataError, match=r"2 images: only .*good.npz has image 1, image 10, image 11 and 36 more; only"):
        compare(paths[:2])
    with pytest.raises(DataError, match=r"shorter.npz has photo"):
        compare(paths[:2])
    with pytest.raises(DataError, match="empty.npz: expected at least one image"):
        compare([paths[2], paths[0]])
    with pytest.raises(UserError, match="at least two results, got 1"):
        compare(paths[:1])
    as_stuff = (SegmentClass(1, "cat", False, (255, 0, 0), 17), CLASSES[1])
    other = saved(tmp_path, other=figures(0.5, classes=as_stuff))
    with pytest.raises(DataError, match=r"good.npz has cat \(1, thing\); only .*other.npz has cat \(1, stuff\)"):
        compare([paths[0], *other])
    doubled = [*good.names[:-1], good.names[0]]
    with pytest.raises(DataError, match="only"):
        compare([paths[0], *saved(tmp_path, doubled=figures(0.5, names=doubled))])
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match="broken.npz"):
        compare([paths[0], str(tmp_path / "broken.npz")])
    status, _, _ = run(capsys, *paths[:2], "--draws=1")
    assert "--draws: expected a number from 200, or intervals mean nothing; got 1" in status


def test_results_on_different_truths_are_refused_by_image_and_class(tmp_path):
    one, other = with_sky(figures(0.5), [0.9, 1, 0, 0]), with_sky(figures(0.5), [0.9, 1, 0, 1])
    with pytest.raises(DataError, match=r"image image 0 has 1 true segment of class sky there and 2 here, 40 images"):
        compare(saved(tmp_path, a=one, b=other))
    # What was found, and what was invented, may differ.
    missed = with_sky(figures(0.5), [0, 0, 3, 1])
    assert compare(saved(tmp_path, a=one, c=missed)).pairings[0].classes[1].second == 0


def test_few_images_show_nothing_and_have_no_interval(tmp_path):
    """All draws of one image are the same: what differs on it would seem certain."""
    for number in (1, 9):
        names = [f"image {index}" for index in range(number)]
        found = compare(saved(tmp_path, a=figures(0.0, names=names), b=figures(1.0, names=names)))
        assert not any(row.difference.is_shown for row in (*found.pairings[0].averages, *found.pairings[0].classes))
        report = " ".join(found.report().split())
        assert "better" not in report and "+80.00 - not shown" in report and f"B and A: {NOT_SHOWN}" in report
        assert "What fewer than 10 images have has no interval" in report
        assert found.as_dict()["differences_to_the_first"][0]["all"]["low"] is None
    names = [f"image {index}" for index in range(10)]
    found = compare(saved(tmp_path, a=figures(0.0, names=names), b=figures(1.0, names=names)))
    assert found.pairings[0].averages[0].difference.is_shown
    # A class of one image among many is no better known than one image alone.
    one, other = figures(0.5), figures(0.5)
    rare = [ImageFigures("pets", CLASSES) for _ in range(2)]
    for side, hit in zip(rare, (0, 1)):
        for index, (name, state) in enumerate(zip(one.names, (one, other)[hit].states())):
            sky = [0.9 * hit, hit, 0, 1 - hit] if index == 0 else [0, 0, 0, 0]
            side.add(name, np.stack([state[:, 0], sky], 1))
    sky = compare(saved(tmp_path, a=rare[0], b=rare[1])).pairings[0].classes[1]
    assert sky.difference.value == pytest.approx(0.9) and not sky.difference.is_shown


def test_columns_stay_apart_and_chance_is_told_as_it_is(tmp_path):
    names = [f"image {index}" for index in range(12)]
    worst, best = (ImageFigures("pets", CLASSES) for _ in range(2))
    for name in names:
        worst.add(name, np.array([[0, 0], [0, 0], [0, 0], [1, 1]], float))
        best.add(name, np.array([[1, 1], [1, 1], [0, 0], [0, 0]], float))
    report = compare(saved(tmp_path, a=worst, b=best)).report()
    row = next(line for line in report.splitlines() if line.startswith("cat"))
    assert row.split() == ["cat", "0.00", "100.00", "+100.00", "+100.00", "to", "+100.00", "better"] and len(row) <= 80
    assert "Of 2 classes whose quality is equal, 0.1 would show a difference by chance" in " ".join(report.split())


def test_the_quality_of_an_image_takes_all_its_segments_together():
    states = np.zeros((3, 4, 2))
    states[0] = [[0.8, 0.6], [1, 1], [0, 0], [0, 0]]
    states[1] = [[0.8, 0.0], [1, 0], [1, 0], [0, 1]]
    np.testing.assert_allclose(image_qualities(states), [0.7, 0.4, np.nan])


def test_comparing_takes_no_tensorflow(tmp_path):
    paths = saved(tmp_path, a=figures(0.5), b=figures(0.6))
    code = "import sys; sys.modules['tensorflow'] = None; from deeplab2_kmax.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "compare", *paths], capture_output=True, text=True)
    assert done.returncode == 0 and "B - A" in done.stdout, done.stderr
