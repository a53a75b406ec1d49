"""300 generated pairs against panopticapi: in one and two processes, by our own engine and by hotcoco."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.datasets.segment_colors import ids_to_colors
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation import image_pairs
from deeplab2_kmax.evaluation.coco_format import read_coco_prediction, read_coco_truth
from deeplab2_kmax.evaluation.image_pairs import Pair
from deeplab2_kmax.evaluation.per_image import ImageFigures
from deeplab2_kmax.evaluation.scoring import rust_engine

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "panoptic_cases.npz"
ENGINES = {
    "one process": lambda figures, pairs: image_pairs.score_pairs(figures, pairs, 1),
    "two processes": lambda figures, pairs: image_pairs.score_pairs(figures, pairs, 2),
    "hotcoco": lambda figures, pairs: rust_engine.score_pairs(figures, pairs),
}
# How panopticapi refuses, and how we do.
REFUSALS = {
    "is presented in PNG and not presented in JSON": "is in the PNG but not in its JSON",
    "are presented in JSON and not presented in PNG": "is in the JSON but not in its PNG",
    "has unknown category_id": "which is unknown",
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """The pairs, panopticapi's result of each, and the classes."""
    folder = tmp_path_factory.mktemp("cases")
    arrays = np.load(GOLDEN)
    facts = json.loads(arrays["facts"].tobytes())
    annotations = {"truth": [], "prediction": []}
    for number, (maps, case) in enumerate(zip(arrays["maps"], facts["cases"])):
        for side, ids in zip(annotations, maps):
            (folder / side).mkdir(exist_ok=True)
            Image.fromarray(ids_to_colors(ids)).save(folder / side / f"{number:03d}.png")
            annotations[side].append(
                {"image_id": number, "file_name": f"{number:03d}.png", "segments_info": case[side]}
            )
    for side, entries in annotations.items():
        content = {"categories": facts["categories"], "annotations": entries}
        (folder / f"{side}.json").write_text(json.dumps(content))
    truth = read_coco_truth(folder / "truth.json")
    predictions = read_coco_prediction(folder / "prediction.json", None, truth).images
    pairs = list(map(Pair, truth.images, predictions))
    return pairs, [case["result"] for case in facts["cases"]], truth.categories.classes


def test_there_are_300_cases_and_some_are_refused(cases):
    pairs, results, _ = cases
    assert len(pairs) == 300
    assert sum(isinstance(result, str) for result in results) >= 60
    counted = np.array([result for result in results if not isinstance(result, str)])
    assert (counted.sum((0, 1)) > 100).all()


@pytest.fixture(params=ENGINES)
def engine(request):
    if request.param == "hotcoco" and not importlib.util.find_spec("hotcoco"):
        pytest.skip("hotcoco is not installed")
    return ENGINES[request.param]


def test_equals_panopticapi(cases, engine):
    pairs, results, classes = cases
    scored = [number for number, result in enumerate(results) if not isinstance(result, str)]
    figures = ImageFigures("cases", classes)
    engine(figures, [pairs[number] for number in scored])
    expected = np.array([results[number] for number in scored]).transpose(0, 2, 1)
    np.testing.assert_allclose(figures.states(), expected, rtol=0, atol=1e-9)
    assert figures.names == [f"{number:03d}" for number in scored]


def test_refuses_what_panopticapi_refuses_and_names_the_file(cases, engine):
    pairs, results, classes = cases
    for number, result in enumerate(results):
        if isinstance(result, str):
            (ours,) = (ours for theirs, ours in REFUSALS.items() if theirs in result)
            # Behind a pair that is right, as in a set of which a part is wrong.
            with pytest.raises(DataError, match=rf"prediction/{number:03d}.png: segment .*{ours}"):
                engine(ImageFigures("cases", classes), [pairs[0], pairs[number]])
            if engine is ENGINES["two processes"] and number > 250:
                break  # Each starts two processes.
