"""The report's figures, pictures and page, from made-up maps."""

import base64
import dataclasses
import html.parser
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass
from deeplab2_kmax.evaluation.panoptic_quality import Categories, PanopticQuality
from deeplab2_kmax.results.pictures import COLORS, panels
from deeplab2_kmax.results.report_data import LabelledMap, ReportData, ReportImage, gather
from deeplab2_kmax.results.report_page import About, Sweep, report_page
from deeplab2_kmax.results.segment_errors import Kind

EVIL = "<script>alert(1)</script> & 'cat'"
CLASSES = (
    SegmentClass(1, EVIL, True, (255, 0, 0), 17),
    SegmentClass(2, "dog", True, (0, 160, 0), 18),
    SegmentClass(3, "sky", False, (0, 0, 255), 42),
)
CATEGORIES = Categories("pets", CLASSES)
DESCRIPTOR = DatasetDescriptor("pets", CLASSES, 4, 0, 256)
COMMAND = "deeplab2-kmax report --output='a & b.html'"


def labelled(panoptic):
    ids = np.unique(panoptic).tolist()
    classes = {i: i // 256 - 1 for i in ids if i // 256}
    return LabelledMap(panoptic, classes, frozenset(i for i in classes if i in (256, 512)))


def scene(seed, quality, size=(60, 80)):
    """Sky with a cat and a dog; with less quality they move further from where they are."""
    random = np.random.default_rng(seed)
    truth, prediction = np.full(size, 3 * 256, np.int32), np.full(size, 3 * 256, np.int32)
    for class_id, left in ((1, 5), (2, 40)):
        shift = int(20 * (1 - quality)) + random.integers(2)
        truth[10:40, left : left + 25] = class_id * 256 + 1
        prediction[10 + shift : 40 + shift, left : left + 25] = class_id * 256 + 3
    truth[50:, 70:] = 0
    return truth, prediction


def images(count=12):
    for number in range(count):
        truth, prediction = scene(number, number / count)
        yield ReportImage(
            f"{number}<b>.jpg",
            labelled(truth),
            labelled(prediction),
            confidences={i: 0.55 for i in np.unique(prediction).tolist()},
            slots={i: i // 256 for i in np.unique(prediction).tolist()},
        )


@pytest.fixture(scope="module")
def data():
    return gather(images(), CATEGORIES, 3)


def photo(judged):
    return np.full((30, 40, 3), 90 + judged.number, np.uint8)


@pytest.fixture(scope="module")
def page(data):
    sweeps = [Sweep("pixel_confidence_threshold", 0.4, [(0.34, 0.5), (0.4, 0.6), (0.7, 0.1)])]
    return report_page(data, About(EVIL, "run & data", COMMAND, 16, sweeps, 12), photo)


def test_figures_are_those_of_panoptic_quality(data):
    quality = PanopticQuality(DESCRIPTOR)
    for number in range(12):
        quality.update(*scene(number, number / 12))
    np.testing.assert_allclose(data.quality().pq, quality.result().pq)
    # Each segment is in one size and in one crowd.
    for groups in (data.sizes(), data.crowding()):
        sums = np.array([group[1:] for group in groups]).sum(0)
        np.testing.assert_allclose(sums, quality.state.sum(1))
    assert [group.name for group in data.crowding()] == ["2 to 3"]
    errors = sum(data.errors.values())
    assert errors >= quality.state[3].sum() and data.errors[Kind.WRONG_CLASS] == 0


def test_the_best_and_the_worst_are_kept_and_no_image_is_both(data):
    worst, best = ([judged.number for judged in each] for each in (data.worst(), data.best()))
    assert worst == [0, 1, 2] and set(best) <= {9, 10, 11} and len(best) == 3
    qualities = [judged.quality for judged in data.best()]
    assert qualities == sorted(qualities, reverse=True)
    few = gather(images(3), CATEGORIES, 3)
    assert {j.number for j in few.worst()} | {j.number for j in few.best()} == {0, 1, 2}
    assert not {j.number for j in few.worst()} & {j.number for j in few.best()}
    assert not gather(images(1), CATEGORIES, 3).best()
    # Images in which nothing is right are not among the best of a bad lot.
    nothing = (dataclasses.replace(image, state=np.array([[0.0] * 3, [0] * 3, [1] * 3, [1] * 3])) for image in images())
    assert not gather(nothing, CATEGORIES, 3).best()


def test_slots_and_calibration(data):
    assert set(data.slots) == {1, 2, 3} and list(data.slots[3].classes) == [2]
    counts, confidences, right = data.calibration
    assert counts[5] == counts.sum() == 36
    assert data.calibration_error() == pytest.approx(abs(0.55 - right.sum() / 36))
    assert ReportData(CATEGORIES, 3).calibration_error() is None


def test_errors_are_painted_where_they_are_in_the_color_of_their_kind(data):
    worst = data.worst()[0]
    drawn = {panel.title: panel for panel in panels(worst, CATEGORIES, photo(worst))}
    assert list(drawn) == ["image", "truth", "prediction", "errors"]
    pixels = decoded(drawn["errors"].url)
    assert pixels.shape == decoded(drawn["image"].url).shape
    scale = pixels.shape[0] / 60
    kinds = dict(zip(worst.true_ids.tolist(), worst.errors.of_truth))
    place = pixels[int(12 * scale), int(10 * scale)].astype(float)
    expected = 0.72 * np.array(COLORS[kinds[257]]) + 0.28 * (130 + 0.45 * 90)
    assert np.abs(place - expected).max() < 25
    sky = pixels[int(3 * scale), int(3 * scale)].astype(int)
    assert np.ptp(sky) < 8 and sky.min() > 120
    assert "errors: " in drawn["errors"].alt and "0<b>.jpg" in drawn["errors"].alt
    assert "image" not in [panel.title for panel in panels(worst, CATEGORIES, None)]


def test_pictures_of_large_images_stay_small():
    truth, prediction = scene(0, 0.5, (1500, 2000))
    data = gather([ReportImage("large", labelled(truth), labelled(prediction))], CATEGORIES, 1)
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    for panel in panels(data.worst()[0], CATEGORIES, noise):
        assert max(panel.width, panel.height) <= 480 and len(panel.url) < 500_000


def decoded(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


class Reader(html.parser.HTMLParser):
    """Collects elements, and fails where they are not closed in order."""

    OPEN = {"meta", "img", "br", "line", "polyline", "circle"}

    def __init__(self):
        super().__init__()
        self.stack, self.elements, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.OPEN:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def read(page):
    reader = Reader()
    reader.feed(page)
    assert not reader.stack
    return reader


def test_the_page_says_what_was_measured_and_how(data, read):
    text = " ".join("".join(read.text).split())
    assert COMMAND in text and "run & data" in text and EVIL in text
    quality = data.quality()
    for averages in (quality.all, quality.things, quality.stuff):
        assert f"{100 * averages.pq:.2f}" in text
    for part in ("Confusion between classes", "Mask slots", "3 of 16", "Calibration", "pixel_confidence_threshold"):
        assert part in text, part


def test_names_are_escaped_and_nothing_is_fetched(page, read):
    assert "<script>alert" not in page and "<b>.jpg" not in page
    assert [tag for tag, _ in read.elements].count("script") == 1
    for tag, attributes in read.elements:
        assert tag not in ("link", "iframe", "object"), tag
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/")), attributes
    assert not re.search(r"url\(|@import|https?://", page)
    policy = next(a["content"] for _, a in read.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_the_page_can_be_used_by_keyboard_and_read_aloud(read):
    headings = [a for tag, a in read.elements if tag == "th" and "aria-sort" in a]
    assert headings and [tag for tag, _ in read.elements].count("button") == len(headings)
    assert all(a.get("alt") for tag, a in read.elements if tag == "img")
    assert all(a.get("aria-label") for tag, a in read.elements if tag == "svg")
    anchors = {a["href"][1:] for tag, a in read.elements if tag == "a"}
    assert anchors and anchors <= {a.get("id") for _, a in read.elements}
    assert "@media print" in "".join(read.text) or "@media print" in str(read.rawdata)


def test_a_report_without_a_model_leaves_out_what_is_not_known():
    plain = [ReportImage(image.name, image.truth, image.prediction) for image in images(4)]
    page = report_page(gather(plain, CATEGORIES, 2), About("files", "two files", COMMAND), lambda judged: None)
    for part in ("Mask slots", "Calibration", "Thresholds"):
        assert f">{part}</h2>" not in page
    assert "Worst images" in page and 'alt="0&lt;b&gt;.jpg, errors' in page


def test_many_classes_are_listed_in_place_of_a_matrix():
    classes = tuple(SegmentClass(n, f"class {n}", True, (n, n, n), n) for n in range(1, 31))
    truth, prediction = np.full((8, 8), 257), np.full((8, 8), 257)
    prediction[:2] = 5 * 256 + 1
    data = gather([ReportImage("a", labelled(truth), labelled(prediction))], Categories("many", classes), 1)
    page = report_page(data, About("many", "", COMMAND), lambda judged: None)
    assert 'class="matrix' not in page and "the most frequent confusions" in page
    assert re.search(r"<td>class 1</td><td>class 5</td><td[^>]*>25.0</td><td[^>]*>100.0</td>", page)


def test_a_report_of_nothing_but_void_and_of_nothing_predicted():
    void, sky = np.zeros((8, 8), int), np.full((8, 8), 3 * 256)
    for truth, prediction, shown in ((void, void, 0), (void, sky, 0), (sky, void, 3)):
        data = gather([ReportImage("a", labelled(truth), labelled(prediction))], CATEGORIES, 2)
        page = report_page(data, About("empty", "", COMMAND), lambda judged: None)
        assert page.count("<img ") == shown and "<dd>0.00" in page


@pytest.mark.skipif(not shutil.which("chromium"), reason="no browser")
def test_a_browser_sorts_a_table_by_its_buttons(page, tmp_path):
    press = """<script>
      const button = [...document.querySelectorAll("th button")].find((each) => each.textContent === "class");
      const names = () => [...button.closest("table").tBodies[0].rows].map((row) => row.children[0].textContent);
      const sorted = () => button.closest("th").getAttribute("aria-sort");
      const found = [];
      for (let turn = 0; turn < 2; turn++) { button.click(); found.push([sorted(), ...names()].join("|")); }
      document.title = found.join(";");
    </script></body>"""
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", press))
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", path.as_uri()]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    title = re.search(r"<title>(.*?)</title>", found)[1]
    up, down = title.split(";") if title.count(";") == 1 else re.split(r";(?=descending)", title)
    assert up.startswith("ascending|") and up.endswith("|dog|sky")
    assert down.startswith("descending|sky|dog|")
