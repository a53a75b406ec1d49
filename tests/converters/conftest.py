import io
import json

import numpy as np
import pytest
from absl import flags
from PIL import Image

from deeplab2_kmax.cli.main import main

HEIGHT, WIDTH = 24, 32
SKY, LEFT, RIGHT = (slice(0, 8), slice(0, 32)), (slice(10, 20), slice(0, 9)), (slice(10, 20), slice(12, 30))


class PanopticTree:
    """A small tree in a data set's own layout: noise images whose labels are rectangles; tests break one thing in it.

    Subclasses say where files lie.
    """

    image_format = "jpeg"

    def __init__(self, root):
        self.root = root
        self.json = {}
        root.mkdir()

    def add(self, split, name, segments, mode="RGB"):
        """Adds an image; segments are (id, category_id, iscrowd, rows, columns), later ones on top."""
        self.add_image(split, name, mode)
        ids = np.zeros((HEIGHT, WIDTH), np.int32)
        for segment_id, _, _, rows, columns in segments:
            ids[rows, columns] = segment_id
        png = self.png_path(split, name)
        png.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(png)
        info = [
            {"id": s, "category_id": category, "iscrowd": crowd, "area": self.area(ids, s, rows, columns)}
            for s, category, crowd, rows, columns in segments
        ]
        annotation = {"image_id": self.image_id(name), "file_name": png.name, "segments_info": info}
        self.json.setdefault(split, []).append(annotation)
        self.save()

    def add_image(self, split, name, mode="RGB"):
        path = self.image_path(split, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded_image(mode, image_format=self.image_format))

    def save(self):
        for split, annotations in self.json.items():
            self.json_path(split).write_text(json.dumps({"annotations": annotations}))

    def area(self, ids, segment_id, rows, columns):
        return int((ids == segment_id).sum())

    def image_id(self, name):
        return name


class TinyCoco(PanopticTree):
    def image_path(self, split, name):
        return self.root / f"{split}2017" / f"{name}.jpg"

    def png_path(self, split, name):
        return self.root / "annotations" / f"panoptic_{split}2017" / f"{name}.png"

    def json_path(self, split):
        return self.root / "annotations" / f"panoptic_{split}2017.json"

    def image_id(self, name):
        return 1000 + sum(name.encode())


class TinyAde20k(PanopticTree):
    """As Mask2Former's script leaves it: `area` of a segment is what it had before others covered it."""

    def image_path(self, split, name):
        return self.root / "images" / {"train": "training", "val": "validation"}[split] / f"{name}.jpg"

    def png_path(self, split, name):
        return self.root / f"ade20k_panoptic_{split}" / f"{name}.png"

    def json_path(self, split):
        return self.root / f"ade20k_panoptic_{split}.json"

    def area(self, ids, segment_id, rows, columns):
        return int(ids[rows, columns].size)


class TinyCityscapes(PanopticTree):
    """As csCreatePanopticImgs --use-train-id and csCreateTrainIdLabelImgs leave it."""

    image_format = "png"

    def image_path(self, split, name):
        return self.root / "leftImg8bit" / split / name.split("_")[0] / f"{name}_leftImg8bit.png"

    def png_path(self, split, name):
        return self.root / "gtFine" / f"cityscapes_panoptic_{split}_trainId" / f"{name}_gtFine_panoptic.png"

    def train_ids_path(self, split, name):
        return self.root / "gtFine" / split / name.split("_")[0] / f"{name}_gtFine_labelTrainIds.png"

    def json_path(self, split):
        return self.root / "gtFine" / f"cityscapes_panoptic_{split}_trainId.json"

    def add(self, split, name, segments, mode="RGB"):
        super().add(split, name, segments, mode)
        train_ids = np.full((HEIGHT, WIDTH), 255, np.uint8)
        for _, train_id, _, rows, columns in segments:
            train_ids[rows, columns] = train_id
        path = self.train_ids_path(split, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(train_ids).save(path)


def encoded_image(mode="RGB", height=HEIGHT, width=WIDTH, image_format="jpeg", **options):
    pixels = np.random.RandomState(0).randint(0, 256, (height, width, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(encoded, format=image_format, **options)
    return encoded.getvalue()


def drawn_segments(seed, kinds):
    """20 rectangles of segments that are drawn from `kinds`, (first id, category_id, iscrowd); ids differ."""
    random = np.random.RandomState(seed)
    segments = []
    for number in range(20):
        first_id, category, crowd = kinds[random.randint(len(kinds))]
        top, left = random.randint(0, HEIGHT - 4), random.randint(0, WIDTH - 4)
        rows, columns = (slice(start, start + random.randint(3, 13)) for start in (top, left))
        segments.append((first_id + number, category, crowd, rows, columns))
    return segments


# Cityscapes: segment ids are instanceIds.png's, categories train ids; a thing below 1000 is a crowd.
CITYSCAPES_KINDS = [(7, 0, 0), (40, 10, 0), (70, 11, 1), (24000, 11, 0), (26000, 13, 0), (33000, 18, 0), (100, 18, 1)]
# ADE20K: any 24 bit ids; categories from 0 on, 255 is void.
ADE20K_KINDS = [(7895160, 0, 0), (65793, 2, 0), (500, 7, 0), (9000, 12, 0), (900, 12, 1), (70000, 149, 0), (1, 255, 0)]


def golden_cityscapes(root):
    """The tree that DeepLab2's converter was run on for tests/golden/converted_labels.json."""
    tree = TinyCityscapes(root)
    places = {"train": ("aachen_000000", "bochum_000003"), "val": ("munster_000001",)}
    for split, names in places.items():
        for number in range(7 if split == "train" else 3):
            name = f"{names[number % len(names)]}_{number:06d}"
            tree.add(split, name, drawn_segments(number + (100 if split == "val" else 0), CITYSCAPES_KINDS))
    tree.add_image("test", "berlin_000000_000019")
    return tree


def golden_ade20k(root):
    """The tree that DeepLab2's converter was run on for tests/golden/converted_labels.json."""
    tree = TinyAde20k(root)
    for split, count in (("train", 7), ("val", 3)):
        for number in range(count):
            name, seed = f"ADE_{split}_{number + 1:08d}", number + (200 if split == "val" else 300)
            tree.add(split, name, drawn_segments(seed, ADE20K_KINDS), mode="L" if number == 1 else "RGB")
    return tree


@pytest.fixture
def coco(tmp_path):
    """train: "a" and "b"; val: "c". Category 1 is a thing (class 1), 18 a thing (17), 200 is stuff (class 133)."""
    tree = TinyCoco(tmp_path / "coco")
    tree.add("train", "a", [(70000, 200, 0, *SKY), (513, 1, 0, *LEFT), (4, 1, 0, *RIGHT)])
    tree.add("train", "b", [(9, 18, 1, *LEFT), (300, 18, 0, *RIGHT)])
    tree.add("val", "c", [(5, 200, 0, *SKY)])
    return tree


@pytest.fixture
def cityscapes(tmp_path):
    """train: two images of two cities; val: one. Category 10 is sky (stuff), 11 person, 13 car."""
    tree = TinyCityscapes(tmp_path / "cityscapes")
    tree.add("train", "aachen_000000_000019", [(23, 10, 0, *SKY), (24000, 11, 0, *LEFT), (24001, 11, 0, *RIGHT)])
    tree.add("train", "bochum_000000_000313", [(26, 13, 1, *LEFT), (26000, 13, 0, *RIGHT)])
    tree.add("val", "munster_000001_000019", [(23, 10, 0, *SKY)])
    return tree


@pytest.fixture
def ade20k(tmp_path):
    """train: two images; val: one. Category 2 is sky (stuff, class 3), 12 a person (class 13), 255 void."""
    tree = TinyAde20k(tmp_path / "ade20k")
    tree.add("train", "ADE_train_00000001", [(70000, 2, 0, slice(0, 20), slice(0, 32)), (513, 12, 0, *LEFT)])
    tree.add("train", "ADE_train_00000002", [(9, 12, 1, *LEFT), (300, 12, 0, *RIGHT), (2, 255, 0, *SKY)])
    tree.add("val", "ADE_val_00000001", [(5, 2, 0, *SKY)])
    return tree


@pytest.fixture
def golden_tree(tmp_path):
    """data set -> the tree that the golden labels are of."""
    makers = {"cityscapes": golden_cityscapes, "ade20k": golden_ade20k}
    return lambda dataset: makers[dataset](tmp_path / dataset)


@pytest.fixture
def convert_by_command():
    """Runs `deeplab2-kmax convert` with arguments in this process; returns its exit status, 0 after success."""

    def run(*arguments):
        before = set(flags.FLAGS)
        with pytest.raises(SystemExit) as ended:
            main(["convert", *map(str, arguments)])
        # The next converter of this process defines flags of the same names.
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        return ended.value.code or 0

    return run


@pytest.fixture(scope="session")
def examples():
    """paths of shards -> {file name in the record: tf.train.Example}, in the order of the shards."""
    import tensorflow as tf

    def read(paths):
        parsed = (tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset([str(p) for p in paths]))
        return {e.features.feature["image/filename"].bytes_list.value[0].decode(): e for e in parsed}

    return read


@pytest.fixture(scope="session")
def label_of():
    """tf.train.Example -> its panoptic ids [height, width]."""

    def read(example):
        feature = example.features.feature
        height, width = (feature[f"image/{side}"].int64_list.value[0] for side in ("height", "width"))
        raw = feature["image/segmentation/class/encoded"].bytes_list.value[0]
        return np.frombuffer(raw, np.int32).reshape(height, width)

    return read
