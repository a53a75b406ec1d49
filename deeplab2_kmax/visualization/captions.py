"""Writes text on segments, where it is readable and no two texts cover each other."""

from __future__ import annotations

import math
import re
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab2_kmax.visualization.borders import border_pixels
from deeplab2_kmax.visualization.large_maps import count_segments, screen_shrinking

# Words that COCO appends to the names of stuff classes to tell them from things; in a picture they are only noise.
_SUFFIX = re.compile(r"-(other-merged|merged|other|stuff)$")
_SMALLEST_FONT, _LARGEST_FONT = 10, 28
# Of the shorter side of the picture, as it is shown on a screen.
_FONT_SHARE = 0.032
# Where a segment is widest is looked for among at most so many pixels of a side.
_SEARCHED_PIXELS = 1024
# Steps of a search that go by before it is looked whether there may be more to find.
_STEPS_UNCHECKED = 8
# A segment gets a label only if it has at least this share of the label's pixels.
_SMALLEST_SHARE = 0.6

# Left, top, right, bottom; the last two exclusive.
_Box = tuple[int, int, int, int]
_Font = ImageFont.FreeTypeFont


def readable_class_name(name: str) -> str:
    """The class name as a person would say it: "sky-other-merged" becomes "sky", "traffic_light" "traffic light"."""
    return _SUFFIX.sub("", name).replace("_", " ")


@lru_cache(maxsize=32)
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """A scalable sans-serif font of `size` pixels: Pillow's own, or matplotlib's if Pillow is older than 10.1."""
    try:
        font = ImageFont.load_default(size)
        # Pillow without FreeType has only a bitmap font, which has no size.
        if isinstance(font, ImageFont.FreeTypeFont):
            return font
    except TypeError:  # Before 10.1, load_default takes no size.
        pass
    from matplotlib import font_manager

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def draw_captions(
    image: np.ndarray, index: np.ndarray, texts: list[str], smallest: float, font_size: int = 0
) -> np.ndarray:
    """Writes `texts[i]` on the pixels where `index == i`, the largest segments first.

    A text is placed where its segment is widest. If it would cover an earlier text, it moves up or down by a line or
    two within its segment. It is left out if that does not help, or if it would hide too much of its segment.

    Args:
        image: [H, W, 3] uint8.
        index: [H, W] integers in 0..len(texts)-1.
        texts: one for each segment; nothing is drawn for empty ones.
        smallest: number of pixels below which a segment gets no text.
        font_size: in pixels; 0 chooses one by the size of the picture.

    Returns:
        A new [H, W, 3] uint8 picture, or `image` itself if there is nothing to write.
    """
    height, width = index.shape
    font = load_font(font_size or _fitting_font(height, width))
    areas = count_segments(index, len(texts))
    wanted = [i for i in np.argsort(-areas, kind="stable").tolist() if texts[i] and areas[i] >= smallest]
    if not wanted:
        return image
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture, "RGBA")
    taken: list[_Box] = []
    for segment, (row, column) in zip(wanted, _widest_points(index, wanted)):
        boxes = _boxes_around(draw, texts[segment], font, (row, column), (height, width))
        box = next((b for b in boxes if _fits(b, index, segment, areas[segment], taken)), None)
        if box is not None:
            taken.append(box)
            _draw_text(draw, texts[segment], font, box)
    return np.asarray(picture)


def _fitting_font(height: int, width: int) -> int:
    """The size of the texts of a picture, in its pixels, so that they can be read when all of it is on a screen."""
    shrunk = screen_shrinking(height, width)
    shown = np.clip(round(min(height, width) / shrunk * _FONT_SHARE), _SMALLEST_FONT, _LARGEST_FONT)
    return round(float(shown) * shrunk)


def _widest_points(index: np.ndarray, wanted: list[int]) -> list[tuple[int, int]]:
    """For each wanted segment the (row, column) farthest from its border; unlike the centroid, it is always inside."""
    # Distances take some 60 bytes for each pixel that is looked at; every few pixels are enough for a text.
    steps = [-(-length // _SEARCHED_PIXELS) for length in index.shape]
    index = index[tuple(slice(step // 2, None, step) for step in steps)]
    # Padded, so that the edge of the picture counts as a border.
    inside = np.zeros((index.shape[0] + 2, index.shape[1] + 2), bool)
    inside[1:-1, 1:-1] = ~border_pixels(index, both_sides=False)
    distance = _distances(inside, steps)[1:-1, 1:-1]
    # Of several places with the same number, the last one that is written counts: the widest, and of these the first.
    widest = np.zeros(int(index.max()) + 1, np.int64)
    order = np.argsort(-distance, axis=None, kind="stable")[::-1]
    widest[index.ravel()[order]] = order
    (down, across), (top, left) = steps, (step // 2 for step in steps)
    found = zip(*np.unravel_index(widest[wanted], index.shape))
    return [(int(row) * down + top, int(column) * across + left) for row, column in found]


def _distances(inside: np.ndarray, steps: list[int]) -> np.ndarray:
    """How far each pixel is from the nearest that is not inside, in pixels of `steps` [2], [H, W] of a map [H, W]."""
    try:
        from scipy import ndimage  # Late, as pictures are drawn where only NumPy and Pillow are installed, too.
    except ImportError:
        return _distances_by_numpy(inside, steps)
    distances: np.ndarray = ndimage.distance_transform_edt(inside, sampling=steps)
    return distances


def _distances_by_numpy(inside: np.ndarray, steps: list[int]) -> np.ndarray:
    """`_distances` without SciPy, which takes a fraction of the time."""
    down, across = steps
    rows = np.arange(len(inside))[:, np.newaxis]
    above = np.maximum.accumulate(np.where(inside, -(2**20), rows))
    below = np.minimum.accumulate(np.where(inside, 2**20, rows)[::-1])[::-1]
    # From the nearest in the same column to the nearest of all: one that is farther away across than the largest
    # distance so far is nearer to none.
    squares = (np.minimum(rows - above, below - rows) * down).astype(np.float32) ** 2
    nearest = squares.copy()
    for offset in range(1, inside.shape[1]):
        square = np.float32(offset * across) ** 2
        # Looking for the largest takes as long as a step does.
        if offset % _STEPS_UNCHECKED == 1 and square >= nearest.max():
            break
        np.minimum(nearest[:, offset:], squares[:, :-offset] + square, out=nearest[:, offset:])
        np.minimum(nearest[:, :-offset], squares[:, offset:] + square, out=nearest[:, :-offset])
    return np.sqrt(nearest)


def _boxes_around(
    draw: ImageDraw.ImageDraw, text: str, font: _Font, center: tuple[int, int], size: tuple[int, int]
) -> list[_Box]:
    """Possible places for a text, the best first.

    Args:
        draw: knows how large texts are.
        text: to be placed.
        font: of the text.
        center: row and column of the best place.
        size: height and width of the picture.

    Returns:
        Boxes around `center` and one or two lines above and below it; none if the text is larger than the picture.
    """
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    padding = max(2, int(font.size) // 5)
    width = math.ceil(right - left) + 2 * padding  # Pillow gives whole numbers, but as floats.
    # By the font, not by the letters of this text, so that all texts of a picture are equally high.
    height = sum(font.getmetrics()) + padding // 2
    if width > size[1] or height > size[0]:
        return []
    x = int(np.clip(center[1] - width // 2, 0, size[1] - width))
    preferred = [center[0] - height // 2 + lines * (height + 1) for lines in (0, -1, 1, -2, 2)]
    tops = [int(np.clip(y, 0, size[0] - height)) for y in preferred]
    return [(x, y, x + width, y + height) for y in tops]


def _fits(box: _Box, index: np.ndarray, segment: int, area: int, taken: list[_Box]) -> bool:
    """Whether the box is centered on its segment, not much larger than it, and clear of the boxes that are taken."""
    left, top, right, bottom = box
    if index[(top + bottom) // 2, (left + right) // 2] != segment:
        return False
    if area < _SMALLEST_SHARE * (right - left) * (bottom - top):
        return False
    return not any(left < other[2] and other[0] < right and top < other[3] and other[1] < bottom for other in taken)


def _draw_text(draw: ImageDraw.ImageDraw, text: str, font: _Font, box: _Box) -> None:
    """Draws white text on a dark, rounded, half transparent plate."""
    draw.rounded_rectangle(
        (box[0], box[1], box[2] - 1, box[3] - 1), radius=max(2, font.size // 4), fill=(16, 18, 24, 165)
    )
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    draw.text(middle, text, font=font, fill=(255, 255, 255, 255), anchor="mm")
