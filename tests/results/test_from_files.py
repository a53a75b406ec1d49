"""Reports and comparisons of files in COCO's format, from the command line."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.cli import main as command
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.coco_format import CocoTrueImage, coco_panoptic_quality
from deeplab2_kmax.evaluation.image_pairs import Pair
from deeplab2_kmax.evaluation.scoring.score import FilePairs, Options
from deeplab2_kmax.results.from_files import Photos, by_image_key, files_report

CATEGORIES = [
    {"id": 7, "name": "cat", "isthing": 1, "color": [255, 0, 0]},
    {"id": 9, "name": "sky & <sea>", "isthing": 0, "color": [0, 0, 255]},
]
# As many as an interval needs.
IMAGES = 12
SIZE = (40, 60)


def write_maps(folder, name, maps):
    """Maps of {segment id: category} as annotations; segment 3 is a crowd."""
    (folder / name).mkdir()
    annotations = []
    for number, (ids, categories) in enumerate(maps):
        pixels = np.stack([ids % 256, ids // 256, np.zeros_like(ids)], -1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number:03d}.png")
        segments = [
            {"id": i, "category_id": c, "iscrowd": int(i == 3), "area": int((ids == i).sum())}
            for i, c in categories.items()
        ]
        annotations.append({"image_id": number, "file_name": f"{number:03d}.png", "segments_info": segments})
    content = {"annotations": annotations, "categories": CATEGORIES}
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / f"{name}.json"


def drawn(cat_shift, with_crowd=False):
    ids = np.full(SIZE, 2)
    ids[10:30, 10 + cat_shift : 30 + cat_shift] = 300
    categories = {2: 9, 300: 7}
    if with_crowd:
        ids[:5, :5] = 3
        categories[3] = 7
    return ids, categories


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Truth; predictions that are right in all images, and ones that are right in the first half."""
    path = tmp_path_factory.mktemp("files")
    write_maps(path, "truth", [drawn(0, with_crowd=True)] * IMAGES)
    write_maps(path, "right", [drawn(1)] * IMAGES)
    write_maps(path, "half", [drawn(1 if number < IMAGES // 2 else 25) for number in range(IMAGES)])
    (path / "photos").mkdir()
    for number in range(IMAGES):
        Image.new("RGB", SIZE[::-1], (90, 120, 10 * number)).save(path / "photos" / f"{number:03d}.jpg")
    return path


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        command.main([str(argument) for argument in arguments])
    return ended.value.code, capsys.readouterr().out


def test_a_report_of_files_has_the_official_figures(folder, capsys, tmp_path):
    flags = [f"--truth={folder / 'truth.json'}", f"--prediction={folder / 'half.json'}"]
    page = tmp_path / "report.html"
    status, _ = run(capsys, "report", *flags, f"--image_folder={folder / 'photos'}", f"--output={page}", "--pictures=2")
    assert status == 0
    content = page.read_text()
    quality = coco_panoptic_quality(folder / "truth.json", folder / "half.json")
    for averages in (quality.all, quality.things, quality.stuff):
        assert f"<dd>{100 * averages.pq:.2f}" in content
    assert content.count("<img ") == 16 and "sky &amp; &lt;sea&gt;" in content
    # The worst are of the second half; what is in the wrong place is missed, and invented elsewhere.
    worst = re.search(r"Worst images.*?<h3>(\d+)</h3>", content, re.S)[1]
    assert int(worst) >= IMAGES // 2 and "1 missed, 1 invented" in content
    assert "Mask slots" not in content
    status, _ = run(capsys, "report", *flags, f"--output={page}", "--pictures=2")
    assert status == 0 and page.read_text().count("<img ") == 12


def test_images_that_one_side_gets_right_are_shown(folder, capsys, tmp_path):
    results = []
    for name in ("right", "half"):
        results.append(tmp_path / f"{name}.json")
        flags = [f"--truth={folder / 'truth.json'}", f"--prediction={folder / name}.json", f"--json={results[-1]}"]
        assert run(capsys, "score", *flags)[0] == 0
    page = tmp_path / "page.html"
    maps = [f"--truth={folder / 'truth.json'}", *(f"--prediction={folder / name}.json" for name in ("right", "half"))]
    flags = [f"--html={page}", f"--image_folder={folder / 'photos'}", "--pictures=2", *maps]
    status, printed = run(capsys, "compare", *results, *flags)
    assert status == 0 and f"page: {page}" in printed
    content = page.read_text()
    assert "B is worse than A on these images" in content
    assert content.count("<img ") == 2 * 6
    assert "A is better than B" in content and "B is better than A" not in content
    assert re.findall(r"<h3>(\d+)</h3>", content) == ["006", "007"]
    assert "errors of B" in content and "1 missed, 1 invented" in content
    assert not re.search(r"url\(|@import|https?://", content)
    # Without maps, the page has the figures alone.
    status, _ = run(capsys, "compare", *results, f"--html={page}")
    assert status == 0 and "<img" not in page.read_text() and "worse" in page.read_text()

    # Maps in another order than the results would have captions that say the opposite of the table.
    status, _ = run(capsys, "compare", *results, *flags[:-2], *reversed(flags[-2:]))
    assert "--prediction: the maps of A give PQ 32.81 on image 006, its result says 93.63" in status
    status, _ = run(capsys, "compare", *results, *flags[:-1])
    assert "expected one for each of the 2 results, in their order; got 1" in status
    status, _ = run(capsys, "compare", *results, "--truth=truth.json")
    assert "expected --html, --truth and a --prediction for each result together" in status
    status, _ = run(capsys, "compare", *results, f"--html={page}", "--image_folder=x")
    assert "compare: expected --image_folder with --truth only; leave it out" in status
    status, _ = run(capsys, "compare", *results, *flags, f"--image_folder={folder / 'nowhere'}")
    assert "cannot read the folder of images" in status


def test_an_equal_result_is_not_shown_to_differ(folder, capsys, tmp_path):
    result = tmp_path / "right.json"
    flags = [f"--truth={folder / 'truth.json'}", f"--prediction={folder / 'right.json'}", f"--json={result}"]
    run(capsys, "score", *flags)
    run(capsys, "compare", result, result, f"--html={tmp_path / 'page.html'}")
    assert "no difference that this set can show" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--truth=a.json"],
        ["--config_file=shapes/kmax_tiny", "--truth=a.json", "--prediction=b.json"],
        ["--config_file=shapes/kmax_tiny", "--checkpoint=a", "--truth=a.json", "--prediction=b.json"],
    ],
)
def test_a_report_is_of_one_thing(capsys, flags):
    status, _ = run(capsys, "report", "--output=page.html", *flags)
    assert "report: of what? expected either --config_file FILE with --checkpoint PATH" in status


@pytest.mark.parametrize(
    "flag", ["--images=3", "--outputs=kept", "--no-thresholds", "--thresholds", "--override=a.b=1"]
)
def test_what_only_a_checkpoint_has_is_refused_beside_files(folder, capsys, flag):
    files = [f"--truth={folder / 'truth.json'}", f"--prediction={folder / 'half.json'}"]
    status, _ = run(capsys, "report", "--output=page.html", *files, flag)
    name = flag.replace("no-", "").split("=")[0]
    assert f"report: expected {name} with --config_file only; leave it out" in status


@pytest.mark.parametrize(
    "flag",
    ["--image_folder=x", "--dataset=shapes", "--raw_format=two_channel_png", "--training_ids", "--format=coco"],
)
def test_what_only_files_have_is_refused_beside_a_checkpoint(capsys, flag):
    status, _ = run(capsys, "report", "--output=page.html", "--config_file=shapes/kmax_tiny", "--checkpoint=none", flag)
    assert f"report: expected {flag.split('=')[0]} with --truth only; leave it out" in status


def test_a_report_takes_the_pngs_from_elsewhere(folder, capsys, tmp_path):
    (tmp_path / "truth.json").write_text((folder / "truth.json").read_text())
    (tmp_path / "half.json").write_text((folder / "half.json").read_text())
    folders = [f"--truth_folder={folder / 'truth'}", f"--prediction_folder={folder / 'half'}", "--format=coco"]
    flags = [f"--truth={tmp_path / 'truth.json'}", f"--prediction={tmp_path / 'half.json'}", *folders]
    page = tmp_path / "page.html"
    assert run(capsys, "report", *flags, f"--output={page}", "--pictures=1")[0] == 0
    assert page.read_text().count("<img ") == 6


@pytest.mark.parametrize("command_of", ["score", "report"])
def test_no_result_overwrites_what_it_is_made_of(folder, capsys, command_of):
    files = [f"--truth={folder / 'truth.json'}", f"--prediction={folder / 'half.json'}"]
    before = (folder / "truth.json").read_bytes()
    flag = "--json" if command_of == "score" else "--output"
    status, _ = run(capsys, command_of, *files, f"{flag}={folder / 'truth.json'}")
    assert f"{flag}: expected a file to write" in str(status) and (folder / "truth.json").read_bytes() == before
    for path, message in (("-", "got '-'"), ("", "got ''"), (folder, "got the folder")):
        status, _ = run(capsys, command_of, *files, f"{flag}={path}")
        assert message in str(status)


def test_no_comparison_overwrites_a_result(folder, capsys, tmp_path):
    result = tmp_path / "right.json"
    flags = [f"--truth={folder / 'truth.json'}", f"--prediction={folder / 'right.json'}", f"--json={result}"]
    run(capsys, "score", *flags)
    for flag, path in (("--html", tmp_path / "right-images.npz"), ("--json", result), ("--html", "-")):
        before = [each.read_bytes() for each in sorted(tmp_path.iterdir())]
        status, _ = run(capsys, "compare", result, result, f"{flag}={path}")
        assert f"{flag}: expected" in str(status)
        assert [each.read_bytes() for each in sorted(tmp_path.iterdir())] == before


def test_a_folder_without_any_of_the_images_is_told(folder, caplog, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes((folder / "photos/000.jpg").read_bytes())
    with caplog.at_level("WARNING", "absl"):
        files = (str(folder / "truth.json"), str(folder / "half.json"))
        files_report(*files, Options(), "report", str(folder / "photos"), pictures=1)
        assert not caplog.messages
        files_report(*files, Options(), "report", str(tmp_path), pictures=1)
    assert len(caplog.messages) == 1
    assert f"--image_folder: none of {IMAGES} images found in {tmp_path}" in caplog.messages[0]
    assert "expected a name such as 000.jpg" in caplog.messages[0]


def test_images_are_found_in_the_folders_of_their_names(folder, tmp_path, caplog):
    (tmp_path / "a").mkdir()
    for path, color in (("a/x.jpg", 200), ("x.jpg", 0)):
        Image.new("RGB", (4, 4), (color,) * 3).save(tmp_path / path)
    truth = CocoTrueImage("a/x", "a/x.png", "{}", {})
    with caplog.at_level("WARNING", "absl"):
        photos = Photos(str(tmp_path), [Pair(truth, None)])
    assert not caplog.messages
    assert photos.of(Pair(truth, None)).max() == 200
    assert photos.of(Pair(CocoTrueImage("b/x", "b/x.png", "{}", {}), None)).max() == 0


def test_images_of_one_name_are_not_confused():
    def pair(name):
        truth = CocoTrueImage(name, f"{name}.png", "{}", {})
        return Pair(truth, truth)

    assert by_image_key(FilePairs(None, [pair("a/x"), pair("a/y")], 0)) == {"x": 0, "y": 1}
    with pytest.raises(DataError, match="images 'a/x' and 'b/x': expected names that differ in more than"):
        by_image_key(FilePairs(None, [pair("a/x"), pair("b/x")], 0))
