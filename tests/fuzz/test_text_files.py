"""Configs, descriptors and annotations with words, characters and lines damaged."""

import json
import pathlib

import numpy as np
import pytest
from fuzz.damage import byte_damage, damaged_bytes, damaged_text, fuzzed, text_damage
from fuzz.watched import own_folder, watched
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deeplab2_kmax.config import load_config
from deeplab2_kmax.converters.coco_panoptic import convert_coco_panoptic
from deeplab2_kmax.datasets import read_descriptor
from deeplab2_kmax.datasets.segment_colors import ids_to_colors

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = [path.read_text() for path in sorted((ROOT / "configs").rglob("*.textproto"))]
DESCRIPTORS = [path.read_text() for path in sorted((ROOT / "deeplab2_kmax/datasets").glob("*.json"))]


@fuzzed
@given(text=st.sampled_from(CONFIGS), edits=text_damage)
def test_configs(tmp_path_factory, text, edits):
    with own_folder(tmp_path_factory.getbasetemp()) as folder:
        path = pathlib.Path(folder) / "config.textproto"
        damaged = damaged_text(text, edits)
        path.write_bytes(damaged.encode("utf-8", "surrogatepass"))
        watched(lambda: load_config(str(path)), folder, len(damaged), several_lines=True)


@fuzzed
@given(text=st.sampled_from(DESCRIPTORS), edits=text_damage)
def test_descriptors(tmp_path_factory, text, edits):
    with own_folder(tmp_path_factory.getbasetemp()) as folder:
        path = pathlib.Path(folder) / "own.json"
        damaged = damaged_text(text, edits)
        path.write_bytes(damaged.encode("utf-8", "surrogatepass"))
        watched(lambda: read_descriptor(path), folder, len(damaged))


def _annotations():
    """(JSON, PNG of segment ids) of one picture."""
    ids = np.full((12, 16), 70000)
    ids[:5, :6], ids[6:9, 8:12], ids[:, 15] = 258, 3, 0
    segments = [
        {"id": int(value), "category_id": 90 if value == 70000 else 7, "area": int((ids == value).sum()), "iscrowd": 0}
        for value in (258, 3, 70000)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 12, "width": 16}],
        "categories": [
            {"id": 7, "name": "apple", "isthing": 1, "color": [200, 10, 20]},
            {"id": 90, "name": "soil", "isthing": 0, "color": [90, 60, 20]},
        ],
        "annotations": [{"file_name": "a.png", "image_id": 1, "segments_info": segments}],
    }
    return json.dumps(content, indent=1), ids


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    """(JSON text, bytes of the PNG, folder of the photo)."""
    text, ids = _annotations()
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (12, 16, 3), np.uint8)).save(folder / "a.png")
    png = tmp_path_factory.mktemp("png") / "a.png"
    Image.fromarray(ids_to_colors(ids)).save(png)
    return text, png.read_bytes(), folder


@fuzzed
@given(edits=text_damage, png_edits=st.one_of(st.just([]), byte_damage))
def test_annotations(annotated, tmp_path_factory, edits, png_edits):
    text, png, photos = annotated
    with own_folder(tmp_path_factory.getbasetemp()) as folder:
        place = pathlib.Path(folder)
        (place / "pngs").mkdir()
        damaged, damaged_png = damaged_text(text, edits), damaged_bytes(png, png_edits)
        (place / "own.json").write_bytes(damaged.encode("utf-8", "surrogatepass"))
        (place / "pngs/a.png").write_bytes(damaged_png)

        def convert():
            convert_coco_panoptic(
                dataset=str(place / "dataset.json"),
                image_folder=str(photos),
                annotations=str(place / "own.json"),
                png_folder=str(place / "pngs"),
                output_dir=str(place / "records"),
                num_processes=1,
            )

        watched(convert, folder, len(damaged) + len(damaged_png))
