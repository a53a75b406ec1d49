import io
import json

import numpy as np
import pytest
from PIL import Image

HEIGHT, WIDTH = 24, 32


class TinyCoco:
    """A COCO tree of a few noise images whose labels are rectangles; tests break one thing in it."""

    def __init__(self, root):
        self.root = root
        self.json = {}

    def add(self, split, stem, segments):
        """Adds an image; segments are (id, category_id, iscrowd, rows, columns), later ones on top."""
        folder = self.root / f"{split}2017"
        folder.mkdir(exist_ok=True)
        (folder / f"{stem}.jpg").write_bytes(jpeg())
        ids = np.zeros((HEIGHT, WIDTH), np.int32)
        for segment_id, _, _, rows, columns in segments:
            ids[rows, columns] = segment_id
        png = self.png_path(split, stem)
        png.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(png)
        info = [
            {"id": s, "category_id": category, "iscrowd": crowd, "area": int((ids == s).sum())}
            for s, category, crowd, _, _ in segments
        ]
        annotation = {"image_id": len(self.json), "file_name": png.name, "segments_info": info}
        self.json.setdefault(split, []).append(annotation)
        self.save()
        return ids

    def png_path(self, split, stem):
        return self.root / "annotations" / f"panoptic_{split}2017" / f"{stem}.png"

    def save(self):
        for split, annotations in self.json.items():
            path = self.root / "annotations" / f"panoptic_{split}2017.json"
            path.write_text(json.dumps({"annotations": annotations}))


def jpeg(mode="RGB", height=HEIGHT, width=WIDTH, **options):
    pixels = np.random.RandomState(0).randint(0, 256, (height, width, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(encoded, format="jpeg", **options)
    return encoded.getvalue()


@pytest.fixture
def coco(tmp_path):
    """train: "a" and "b"; val: "c". Category 1 is a thing (class 1), 18 a thing (17), 200 is stuff (class 133)."""
    tree = TinyCoco(tmp_path / "coco")
    tree.root.mkdir()
    sky, left, right = (slice(0, 8), slice(0, 32)), (slice(10, 20), slice(0, 9)), (slice(10, 20), slice(12, 30))
    tree.add("train", "a", [(70000, 200, 0, *sky), (513, 1, 0, *left), (4, 1, 0, *right)])
    tree.add("train", "b", [(9, 18, 1, *left), (300, 18, 0, *right)])
    tree.add("val", "c", [(5, 200, 0, *sky)])
    return tree
