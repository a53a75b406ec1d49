import numpy as np
import pytest
from PIL import Image

BALL, BOX, SKY, MEADOW = 1, 2, 3, 4
SIDE = 72


def draw_picture(number):
    """A photograph-like scene: (image [72, 72, 3] uint8, semantic uint8, instances uint16), no void."""
    random = np.random.RandomState(number)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    horizon = random.randint(20, 40) + 3 * np.sin(columns / 9 + number)
    semantic = np.where(rows < horizon, SKY, MEADOW).astype(np.uint8)
    image = np.where((rows < horizon)[..., None], [140, 190, 240], [80, 140, 60]) + 0.4 * rows[..., None]
    instances = np.zeros((SIDE, SIDE), np.uint16)
    for place in range(random.randint(2, 5)):
        row, column, radius = random.randint(15, 60), random.randint(10, 62), random.randint(5, 11)
        is_ball = place % 2 == 0
        distance = np.hypot(rows - row, columns - column)
        box = np.maximum(abs(rows - row), abs(columns - column))
        inside = (distance if is_ball else box) < radius
        semantic[inside] = BALL if is_ball else BOX
        # Far from 1, 2, 3, as numbers that count over a whole data set are.
        instances[inside] = 24001 + 10 * place
        light = 1.2 - 0.5 * distance[inside] / radius
        image[inside] = np.array([200, 60, 40] if is_ball else [40, 80, 190]) * light[:, None]
    image += random.normal(0, 6, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), semantic, instances


@pytest.fixture(scope="session")
def make_folders():
    """(root, count) -> writes photos/, semantic/ and instances/ with `count` pictures below `root`."""

    def make(root, count):
        for folder in ("photos", "semantic", "instances"):
            (root / folder).mkdir(parents=True)
        for number in range(count):
            image, semantic, instances = draw_picture(number)
            Image.fromarray(image).save(root / "photos" / f"picture_{number:02d}.jpg", quality=92)
            Image.fromarray(semantic).save(root / "semantic" / f"picture_{number:02d}.png")
            Image.fromarray(instances).save(root / "instances" / f"picture_{number:02d}.png")

    return make
